"""The text of a models.yaml -> its entries, or all that is wrong with it.

The slow way, taken when the file has changed: YAML, schema, rules. Entries with a
problem are left out after each stage, so that the rest of the file is still judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from k210tasks.manifest import conflicts, document, rules, schema
from k210tasks.manifest.diagnostics import Mark, Problem, did_you_mean
from k210tasks.manifest.document import Document
from k210tasks.manifest.findings import Findings, Path
from k210tasks.manifest.kinds import listed, shown
from k210tasks.manifest.model import DEFAULT_PROFILE, Manifest

#: Where the keys of each map of the file are declared; names of entries are left out.
_MAPS: dict[tuple[str, ...], type[BaseModel]] = {
    (): schema.File,
    ("defaults",): schema.Defaults,
    ("models",): schema.Model,
    ("firmware",): schema.Firmware,
    ("firmware", "parts"): schema.Part,
    ("toolchains",): schema.Toolchain,
    **{
        (section, name): kind
        for section in ("defaults", "models")
        for name, kind in (
            ("preprocess", schema.Preprocess),
            ("calibrate", schema.Calibrate),
            ("verify", schema.Verify),
        )
    },
}


def decode(content: bytes) -> tuple[str, Problem | None]:
    """The text of the file; a byte order mark is dropped."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n"), None
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        encoding = " (it looks like UTF-16)" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        problem = Problem(
            f"the byte 0x{content[error.start]:02X} is not UTF-8{encoding}",
            (Mark(line, column, column + 1),),
            "save the file as UTF-8",
        )
        return content.decode("utf-8", "replace"), problem


def read(content: bytes, path: str, root: str) -> tuple[Manifest, Findings]:
    """The entries of the file that have no problem, and all problems.

    ``root`` is the absolute path of the project's folder. Nothing but ``content`` is read.
    """
    text, problem = decode(content)
    if problem:
        found = Findings(Document(text))
        found.problems.append(problem)
        return Manifest(path), found
    parsed = document.parse(text)
    found = Findings(parsed)
    data = _top(parsed, found)
    if data is None:
        return Manifest(path), found
    return _judge(_validate(data, found), path, root, found), found


def _top(parsed: Document, found: Findings) -> dict[str, Any] | None:
    """The file as a map, sections that are empty left out."""
    allowed = f"allowed at the top: {', '.join(schema.File.model_fields)}"
    if parsed.root is None:
        if not found.problems:
            found.problems.append(Problem("the file is empty", (), allowed))
        return None
    data = parsed.root.data()
    if not isinstance(data, dict):
        if not parsed.root.damaged:
            what = "empty" if data is None else f"{shown(data)}, not a map"
            found.problems.append(Problem(f"the file is {what}", (parsed.root.mark(),), allowed))
        return None
    return {key: value for key, value in data.items() if value is not None}


#: Stands for what must be there and is not, so that the rest can be validated.
_FILLING: dict[str, Any] = {"source": "missing", "parts": []}


def _validate(data: dict[str, Any], found: Findings) -> schema.File:
    """The file without the values that break the schema; these are noted as dropped."""
    for _ in range(3):  # a second pass is always enough; never loop on a surprise
        try:
            return schema.File.model_validate(data)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                _translate(details, found)
                _remove(data, details["loc"], details["type"] == "missing")
                found.drop(details["loc"])
    return schema.File()


def _remove(data: Any, place: Path, missing: bool) -> None:
    """Take out what was refused; put in what was missing."""
    for step in place[:-1]:
        data = data[step]
    last = place[-1]
    if missing:
        data[last] = _FILLING[str(last)]
    elif isinstance(data, list):
        data[int(last)] = {}
    else:
        data.pop(last, None)


def _translate(details: Any, found: Findings) -> None:
    """One error of pydantic as a problem of ours."""
    place: Path = details["loc"]
    kind, value = details["type"], details["input"]
    parent, last = place[:-1], place[-1]
    if kind == "extra_forbidden":
        _unknown(place, found)
        return
    if kind == "missing":
        if not found.document.damaged(parent) and not found.broken(place):
            found.add(parent, f"{last} is missing", _field(place), at_key=True)
        return
    if found.document.damaged(place):
        return
    context = details.get("ctx", {})
    if kind == "refused":
        found.add(place, context["message"], context["allowed"])
    elif kind == "list_type":
        found.add(place, _not(value, "a list"), conflicts.PARTS_ALLOWED)
    else:  # model_type, dict_type
        keys = _keys(place)
        allowed = f"allowed: a map with {', '.join(keys)}" if keys else "allowed: a map of names"
        if place[-1] == "inputs":
            allowed = rules.INPUTS_ALLOWED
        found.add(place, _not(value, "a map"), allowed)


def _not(value: Any, expected: str) -> str:
    return "is empty" if value is None else f"{shown(value)} is not {expected}"


def _kind_of_map(place: Path) -> tuple[str, ...]:
    """The path without the names of entries and the indexes of lists."""
    words = [step for step in place if isinstance(step, str)]
    if words and words[0] in ("models", "firmware", "toolchains") and len(words) > 1:
        del words[1]
    return tuple(words)


def _keys(place: Path) -> tuple[str, ...]:
    kind = _kind_of_map(place)
    if len(place) == 1 and kind != ("defaults",):
        return ()
    return _fields(_MAPS[kind]) if kind in _MAPS else ()


def _fields(kind: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a map, its own before those it shares with defaults."""
    shared = schema.Defaults.model_fields if kind is schema.Model else {}
    return (*(key for key in kind.model_fields if key not in shared), *shared)


def _field(place: Path) -> str:
    declared = _MAPS[_kind_of_map(place[:-1])].model_fields[str(place[-1])]
    allowed = [m.allowed for m in declared.metadata if hasattr(m, "allowed")]
    return allowed[0] if allowed else conflicts.PARTS_ALLOWED


def _unknown(place: Path, found: Findings) -> None:
    """An unknown key: what was meant, or where it belongs."""
    key = str(place[-1])
    parent = _kind_of_map(place[:-1])
    keys = _fields(_MAPS[parent])
    hint = did_you_mean(key, keys)
    if parent == ("defaults",) and key in schema.Model.model_fields:
        hint = f"; {key} is each model's own"
    elif not hint:
        homes = [home for home in _homes(key) if home != parent]
        near = [home for home in homes if home[: len(parent)] == parent]
        if near or homes:
            hint = f"; it belongs {listed(map(_home, near or homes))}"
    found.add(place, f"unknown key{hint}", f"allowed here: {', '.join(keys)}", at_key=True)


def _homes(key: str) -> Iterator[tuple[str, ...]]:
    for home, kind in _MAPS.items():
        if key in kind.model_fields and home != ("firmware", "parts"):
            yield home


def _home(home: tuple[str, ...]) -> str:
    named = {
        "models": "in a model",
        "firmware": "in a firmware image",
        "toolchains": "in a toolchain",
    }
    if not home:
        return "at the top of the file"
    return f"under {home[-1]}" if len(home) > 1 else named.get(home[0], f"under {home[0]}")


def _judge(file: schema.File, path: str, root: str, found: Findings) -> Manifest:
    """Rules over what is left of the file."""
    top = found.document.root
    assert top is not None
    assert top.items is not None

    def names(section: str) -> tuple[str, ...]:
        items = top.items[section][1].items if top.items and section in top.items else None
        return tuple(items or ())

    for section in ("models", "firmware"):
        conflicts.check_names(section, names(section), found)
    models = {
        name: rules.model(name, entry, file.defaults, root, found)
        for name, entry in (file.models or {}).items()
    }
    # Entries without a usable source are judged, but not part of the result.
    whole = {name: m for name, m in models.items() if not found.broken(("models", name, "source"))}
    profile = (file.defaults.firmware if file.defaults else None) or DEFAULT_PROFILE
    images = [
        conflicts.firmware(name, entry, profile, models, names("models"), root, found)
        for name, entry in (file.firmware or {}).items()
    ]
    toolchains = [
        conflicts.toolchain(name, entry, found) for name, entry in (file.toolchains or {}).items()
    ]
    conflicts.check_files_written(tuple(whole.values()), images, found)
    return Manifest(path, tuple(whole.values()), tuple(images), tuple(toolchains))
