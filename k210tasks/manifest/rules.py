"""What the keys of a model say together: defaults filled in, contradictions refused."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from k210tasks.heads.declared import COMMON, KEYS, MIN_F1, PARTS, TYPES, Head, Type
from k210tasks.manifest import schema
from k210tasks.manifest.compilers import COMPILERS, Compiler
from k210tasks.manifest.findings import Findings, Path
from k210tasks.manifest.kinds import listed
from k210tasks.manifest.model import (
    DEFAULT_COMPILER,
    DEFAULT_PROFILE,
    IN_PLACE,
    Calibrate,
    Model,
    Verify,
)
from k210tasks.manifest.paths import FOREIGN, SOURCE_KINDS, SOURCES_ALLOWED, normalise, suffix
from k210tasks.profiles import PROFILES, loading
from k210tasks.samples.preprocess import Preprocess

INPUTS_ALLOWED = "allowed: {NAME: [1, height, width, channels]}"

#: Keys for the built-in compiler alone. Under ``defaults`` they do not concern models of
#: another compiler; on such a model itself they are a contradiction.
_BUILTIN_ONLY = ("effort", "weights", "opcodes", "small_maps", "input")
#: Keys that a model takes over as they are written.
_AS_SAID = (
    "labels", "optional", "made_by", "effort", "weights", "opcodes", "small_maps", "input",
    "sram_free",
)  # fmt: skip
#: Tasks of the chain; a model that waits for its own would wait for ever.
_CHAIN = ("convert", "calibrate", "kmodel", "verify", "model", "vectors")


class _Entry:
    """A model's keys with the defaults below them, and where each value was written."""

    def __init__(
        self,
        name: str,
        entry: schema.Model,
        defaults: schema.Defaults | None,
        found: Findings,
    ) -> None:
        self.path: Path = ("models", name)
        self._found = found
        self._vague = found.document.damaged(self.path)  # a refused key may have meant any
        self._layers: list[tuple[Path, Any]] = [(self.path, entry)]
        if defaults is not None:
            self._layers.append((("defaults",), defaults))

    def broken(self, *keys: str) -> bool:
        """Whether one of these values was refused, so that nothing follows from its absence."""
        return any(
            self._found.broken((*self.path, key))
            or (not self.own(key) and (self._vague or self._found.broken(("defaults", key))))
            for key in keys
        )

    def own(self, key: str) -> bool:
        """Whether the model itself says ``key``, not the defaults."""
        return key in self._layers[0][1].model_fields_set

    def get(self, key: str, inner: str | None = None) -> tuple[Any, Path | None]:
        """The value of a key, or of a key of one of the maps, and its place; (None, None)."""
        for path, layer in self._layers:
            if key not in getattr(layer, "model_fields_set", ()):
                continue
            value = getattr(layer, key)
            if inner is None:
                return value, (*path, key)
            if value is False:  # verify: off hides what lies below
                return None, None
            if inner in value.model_fields_set:
                return getattr(value, inner), (*path, key, inner)
        return None, None

    def value(self, key: str, default: Any) -> Any:
        found, place = self.get(key)
        return default if place is None else found

    def said(self, *keys: str) -> dict[str, Any]:
        """The values of those keys that are written somewhere; the others keep their defaults."""
        return {key: value for key in keys for value, place in [self.get(key)] if place}

    def inside(self, key: str, kind: type) -> dict[str, Any]:
        """The same of a map's keys, by the fields of the dataclass it becomes."""
        names = (field.name for field in fields(kind))
        return {name: value for name in names for value, place in [self.get(key, name)] if place}


def model(
    name: str, entry: schema.Model, defaults: schema.Defaults | None, root: str, found: Findings
) -> Model:
    """One model of the manifest; what is wrong is added to ``found``.

    The result is a best effort where something was: enough to look for more problems.
    """
    e = _Entry(name, entry, defaults, found)
    source = normalise(entry.source, root)
    kind = SOURCE_KINDS.get(suffix(source), "savedmodel")
    if suffix(source) in FOREIGN and not e.broken("source"):
        found.add(
            (*e.path, "source"),
            f'"{entry.source}" cannot be read: {FOREIGN[suffix(source)]}',
            SOURCES_ALLOWED,
        )
    inputs = _inputs(e, entry, kind, found)
    compiler = COMPILERS[e.value("compiler", DEFAULT_COMPILER)]
    profile = PROFILES[e.value("firmware", DEFAULT_PROFILE)]
    kmodel = _kmodel(e, compiler, profile.name, found)
    _compiler(e, compiler, kmodel, found)
    if kind not in compiler.reads and not e.broken("source", "compiler"):
        others = listed(c.name for c in COMPILERS.values() if kind in c.reads)
        found.add((*e.path, "source"), f"{compiler.name} reads no .{kind}", f"use {others}")
    images = _path(e.get("images")[0], root)
    head = _head(e, found)
    verify = _verify(e, root, head, found)
    skip = e.broken("images", "source", "compiler", "verify") or found.document.damaged(e.path)
    if (
        images is None
        and not skip
        and not (
            compiler.name == "builtin" and kind in IN_PLACE and (verify is None or verify.images)
        )
    ):
        found.add(
            e.path,
            "images is missing",
            "allowed: a folder of pictures or tensors to calibrate with; only a quantised .tflite "
            "or .onnx for the built-in compiler needs none, with "
            "verify: off or verify: {images: …}",
            at_key=True,
        )
    made_by, place = e.get("made_by")
    for task in made_by or ():
        step, _, of = task.partition(":")
        if step in _CHAIN and of == name:
            found.add(place or e.path, f'"{task}" waits for this model itself')
    return Model(
        name=name,
        source=source,
        source_kind=kind,
        compiler=compiler.name,
        firmware=profile.name,
        kmodel=kmodel,
        images=images,
        inputs=inputs,
        outputs=entry.outputs,
        preprocess=Preprocess(**e.inside("preprocess", Preprocess)),
        calibrate=Calibrate(**e.inside("calibrate", Calibrate)),
        verify=verify,
        head=head,
        **_anchors(e, head, found),
        **e.said(*_AS_SAID),
        line=found.document.mark(e.path, at_key=True).line,
    )


def _path(written: str | None, root: str) -> str | None:
    return None if written is None else normalise(written, root)


def _inputs(
    e: _Entry, entry: schema.Model, kind: str, found: Findings
) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    for key in ("inputs", "outputs"):
        itself = kind == "tflite" or (kind == "onnx" and key == "outputs")
        if itself and not e.broken("source") and e.own(key):
            found.add(
                (*e.path, key),
                f"a .{kind} has its {key} in itself",
                "leave the key out; it is for graphs",
                at_key=True,
            )
    if entry.inputs is None:
        return None
    if len(entry.inputs) != 1 and not e.broken("inputs"):
        found.add(
            (*e.path, "inputs"),
            f"names {len(entry.inputs)} inputs; a kmodel for the K210 takes one",
            INPUTS_ALLOWED,
            at_key=True,
        )
    return tuple(entry.inputs.items())


def _kmodel(e: _Entry, compiler: Compiler, profile: str, found: Findings) -> int:
    """The version the compiler writes, refused where the firmware does not load it."""
    stated, place = e.get("kmodel")
    _, compiler_at = e.get("compiler")
    _, firmware_at = e.get("firmware")
    if compiler.name != "builtin" and not e.own("kmodel"):
        stated = place = None  # defaults.kmodel is for the built-in compiler
    can = PROFILES[profile].kmodels
    if stated is None:
        usable = [v for v in compiler.kmodels if v in can]
        version = usable[0] if usable else compiler.kmodels[0]
    else:
        version = stated
    if e.broken("compiler", "kmodel", "firmware"):
        return int(version)
    if version not in compiler.kmodels:
        found.add(
            place or e.path,
            f"{compiler.name} writes kmodel {listed(map(str, compiler.kmodels))}, not {version}",
            "leave the key out, or choose another compiler: " + _writers(version),
            also=_places((compiler_at, "the compiler")),
        )
    elif version not in can:
        where = place or (compiler_at if e.own("compiler") else None) or firmware_at
        found.add(
            where or compiler_at or e.path,
            f"{compiler.name} writes kmodel {version}, which {profile} does not load: "
            f"it loads {listed(map(str, can))}",
            f"allowed for kmodel {version}: firmware {listed(loading(version))}",
            at_key=(where or compiler_at) is None,
            also=_places(
                *((p, text) for p, text in ((firmware_at, "the firmware"),) if p != where)
            ),
        )
    return int(version)


def _writers(version: int) -> str:
    return listed(c.name for c in COMPILERS.values() if version in c.kmodels)


def _places(*marked: tuple[Path | None, str]) -> list[tuple[Path, str]]:
    return [(path, text) for path, text in marked if path is not None]


def _compiler(e: _Entry, compiler: Compiler, kmodel: int, found: Findings) -> None:
    """What is said for a compiler or a version that cannot do it."""
    if e.broken("compiler"):
        return
    _, compiler_at = e.get("compiler")
    method, place = e.get("calibrate", "method")
    if method is not None and method not in compiler.methods:
        found.add(
            place or e.path,
            f'{compiler.name} has no calibration method "{method}"',
            f"allowed for it: {', '.join(compiler.methods)}",
            also=_places((compiler_at, "the compiler")),
        )
    if compiler.name != "builtin":
        for key in _BUILTIN_ONLY:
            if e.own(key):
                found.add(
                    (*e.path, key),
                    f"is for the built-in compiler; this model's is {compiler.name}",
                    "leave the key out",
                    at_key=True,
                )
        return
    if e.broken("kmodel", "firmware") or kmodel not in compiler.kmodels:
        return
    weights, place = e.get("weights")
    if weights == 16 and kmodel != 3:
        found.add(
            place or e.path,
            f"16 bit weights exist in kmodel 3 only; this model is kmodel {kmodel}",
            "allowed: 8, or kmodel: 3",
            also=_places((e.get("kmodel")[1], "the version")),
        )
    if e.own("opcodes") and kmodel != 4:
        found.add(
            (*e.path, "opcodes"),
            f"opcodes exist in kmodel 4 only; this model is kmodel {kmodel}",
            "leave the key out, or write kmodel: 4",
            at_key=True,
            also=_places((e.get("kmodel")[1], "the version")),
        )


def _verify(e: _Entry, root: str, head: Head | None, found: Findings) -> Verify | None:
    stated, place = e.get("verify")
    if place is not None and stated is False:
        return None
    said = e.inside("verify", Verify)
    if head is not None:
        said = {"min_cosine": None, "min_f1": MIN_F1, **said}
    elif not e.broken("head"):
        for key in sorted({"min_f1", "max_map_loss"} & said.keys()):
            found.add(
                e.get("verify", key)[1] or e.path,
                "is for detectors, and nothing says what this model's outputs mean",
                f"add head: {{type: …}} (allowed: {', '.join(TYPES)}), or leave the key out",
                at_key=True,
            )
    verify = Verify(**said)
    return replace(verify, images=_path(verify.images, root))


def _head(e: _Entry, found: Findings) -> Head | None:
    """What the outputs mean; None where nothing is said, or nothing that can be used."""
    _, place = e.get("head")
    if place is None or e.broken("head"):
        return None
    said = e.inside("head", Head)
    kind = said.get("type")
    if kind is None:
        found.add(place, "type is missing", f"allowed: {', '.join(TYPES)}", at_key=True)
        return None
    needed, optional = KEYS[kind]
    missing = [key for key in needed if key not in said]
    strange = [key for key in said if key not in (*COMMON, *needed, *optional)]
    for key in missing:
        found.add(place, f"{key} is missing, which {kind} needs", at_key=True)
    for key in strange:
        where = e.get("head", key)[1] or place
        allowed = f"allowed for it: {', '.join((*COMMON, *needed, *optional))}"
        found.add(where, f"is no key of a {kind} head", allowed, at_key=True)
    if missing or strange or not _head_fits(e, kind, said, found):
        return None
    return Head(**said)


def _head_fits(e: _Entry, kind: Type, said: dict[str, Any], found: Findings) -> bool:
    """What the values of a head say together."""
    wrong: list[tuple[str, str]] = []
    if kind == "yolo2" and len(said["anchors"]) != 1:
        wrong.append(
            ("anchors", f"holds {len(said['anchors'])} lists; yolo2 has one output, one list")
        )
    if kind == "ssd" and len(said["strides"]) != len(said["min_sizes"]):
        text = f"holds {len(said['min_sizes'])} for {len(said['strides'])} of strides"
        wrong.append(("min_sizes", f"{text}; write a list for each stride"))
    if "order" in said:
        needed, optional = PARTS[kind]
        allowed = listed((*needed, *optional))
        for part in said["order"]:
            if part not in (*needed, *optional):
                wrong.append(("order", f'"{part}" is nothing {kind} has; it has {allowed}'))
        for part in needed:
            if part not in said["order"]:
                wrong.append(("order", f"{part} is not in it, which {kind} needs"))
    for key, text in wrong:
        found.add(e.get("head", key)[1] or e.path, text)
    return not wrong


def _anchors(e: _Entry, head: Head | None, found: Findings) -> dict[str, Any]:
    """The anchors for snippets: the key's, or those of a head that snippets know."""
    said = e.said("anchors")
    if head is None or head.type != "yolo2":
        return said
    if said and e.own("anchors") and not e.broken("anchors"):
        found.add(
            (*e.path, "anchors"),
            "is told by head already",
            "leave the key out; anchors of a head reach the snippets too",
            at_key=True,
        )
    return {"anchors": head.anchors[0]}
