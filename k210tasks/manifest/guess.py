"""A first models.yaml for a folder: guessed from the models and samples that lie there."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k210tasks.manifest import document, entries, names, presence
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.manifest.model import DEFAULT_PROFILE
from k210tasks.manifest.paths import SOURCE_KINDS, suffix
from k210tasks.profiles import PROFILES
from k210tasks.samples import folder as samples

#: Where models are looked for, and the most that are written out.
_SOURCES_IN = ("workspace", "models", "model", ".")
_MOST = 100
#: Names of folders of samples, the likeliest first; NAME is the model's.
_SAMPLES_IN = ("images", "dataset", "data", "samples")
_CALIBRATION = ("calibration", "calib", "train", "training")
_VERIFICATION = ("verification", "verify", "validation", "valid", "val", "test")


@dataclass(frozen=True, slots=True)
class Guess:
    """One model that was found; ``images`` None where no samples were."""

    name: str
    source: str
    images: str | None
    verify_images: str | None


def usable_compiler(profile: str) -> str | None:
    """The first compiler that writes what the profile loads; None where none is there yet."""
    for compiler in COMPILERS.values():
        if set(compiler.kmodels) & set(PROFILES[profile].kmodels):
            return compiler.name
    return None


def default_pair() -> tuple[str, str]:
    """Compiler and profile of a new project where the user says neither."""
    first = next(iter(COMPILERS.values()))
    loads = [p for p in PROFILES.values() if set(first.kmodels) & set(p.kmodels)]
    wanted = [p.name for p in loads if p.name == DEFAULT_PROFILE]
    return first.name, (wanted or [loads[0].name])[0]


def models_in(root: Path) -> list[Guess]:
    """The models below ``root``, with the samples whose folders fit their names."""
    found: dict[str, str] = {}
    for source in _sources(root):
        name = name_for(source)
        # Of two files of one name the first is taken: .tflite and .onnx need no conversion.
        found.setdefault(names.folded(name), source)
    return [_with_samples(name_for(source), source, root) for source in found.values()][:_MOST]


def name_for(source: str) -> str:
    """A name that the rules allow, from the file's."""
    stem = source.rpartition("/")[2]
    if suffix(source) in SOURCE_KINDS:
        stem = stem[: -len(suffix(source))]
    stem = unicodedata.normalize("NFC", stem)
    kept = "".join(c if names.why_not(f"a{c}a") is None else "_" for c in stem)
    kept = re.sub("_+", "_", kept).strip("._-")[: names.LENGTH].rstrip("._-")
    while len(kept.encode()) > names.BYTES:
        kept = kept[:-1]
    if names.why_not(kept) is None:
        return kept
    return f"model_{kept}" if kept else "model"


def _sources(root: Path) -> Iterator[str]:
    """Paths of sources, of each folder those that need no conversion first."""
    order = (".tflite", ".onnx", ".pb", ".pbtxt", ".keras", ".h5")
    for folder in _SOURCES_IN:
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError:
            continue
        prefix = "" if folder == "." else f"{folder}/"
        plain = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
        for wanted in order:
            yield from (prefix + name for name in plain if suffix(name) == wanted)
        for entry in entries:
            if entry.is_dir() and (root / folder / entry.name / "saved_model.pb").is_file():
                yield prefix + entry.name


def _with_samples(name: str, source: str, root: Path) -> Guess:
    """Samples in a folder of the model's name, else in one that is for all."""
    stem = source.rpartition("/")[2].partition(".")[0]
    for top in _SAMPLES_IN:
        for folder in dict.fromkeys((f"{top}/{name}", f"{top}/{stem}", top)):
            split = _first(root, folder, _CALIBRATION)
            proof = _first(root, folder, _VERIFICATION)
            if split:
                return Guess(name, source, split, proof)
            if proof or (folder == top and _has_sets(root, folder)):
                continue  # the folder itself would mix what must be kept apart
            if _holds(root, folder):
                return Guess(name, source, folder, None)
    return Guess(name, source, None, None)


def _first(root: Path, folder: str, options: tuple[str, ...]) -> str | None:
    return next((f"{folder}/{o}" for o in options if _holds(root, f"{folder}/{o}")), None)


def _has_sets(root: Path, folder: str) -> bool:
    """Whether the folders in it are models' own sets of samples rather than classes."""
    try:
        inside = [entry.name for entry in os.scandir(root / folder) if entry.is_dir()]
    except OSError:
        return False
    return any(
        (root / folder / name / part).is_dir()
        for name in inside
        for part in (*_CALIBRATION, *_VERIFICATION)
    )


def _holds(root: Path, folder: str) -> bool:
    try:
        samples.scan(root / folder, folder)
    except samples.SamplesError:
        return False
    return True


# -- the text ------------------------------------------------------------------------------

_HEAD = """\
# The models of this project and how each becomes a .kmodel. `doit` builds them all,
# `doit model:NAME` one; `k210 why NAME` says what would run.

defaults:                 # what every model starts from; a model may say otherwise
  firmware: {firmware}{pad}# what the board runs: it decides which kmodel versions load
  compiler: {compiler}
  # The commonest fault is a wrong pair here: write how the model was trained. A pixel
  # 0..255 enters the model as (pixel / 255 - mean) / std.
  # preprocess: {{mean: 0.0, std: 1.0}}

models:
"""

_FOOT = """\

# Images for the flasher, made of the models above and binaries:
# firmware:
#   demo:
#     parts:
#       - {{bin: firmware/{firmware}.bin, address: 0x0}}
#       - {{model: {model}, address: {base}}}
"""


def text_for(guesses: list[Guess], compiler: str, firmware: str, root: Path) -> str:
    """The models.yaml of these models. It loads; what cannot work yet is a comment in it."""
    head = _HEAD.format(firmware=firmware, compiler=compiler, pad=" " * max(1, 14 - len(firmware)))
    body = ""
    waiting = ""
    kept = ""
    for guess in guesses:
        entry = _entry(guess)
        if guess.images is not None and _fine(head + body + entry, root):
            body += entry
            kept = kept or guess.name
        else:
            waiting += _commented(entry)
    if waiting or not guesses:
        waiting = _WAITING + (waiting or _commented(_entry(_EXAMPLE)))
    foot = _FOOT.format(
        firmware=firmware,
        model=_scalar(kept or "NAME"),
        base=f"0x{PROFILES[firmware].model_base:X}",
    )
    return head + body + waiting + foot


_EXAMPLE = Guess("my_model", "workspace/my_model.pb", None, None)
_WAITING = "  # To build one, put samples of its input in the folder and take the '# ' away.\n"


def _entry(guess: Guess) -> str:
    lines = [f"  {_scalar(guess.name)}:", f"    source: {_scalar(guess.source)}"]
    lines.append(f"    images: {_scalar(guess.images or f'images/{guess.name}/calibration')}")
    if guess.verify_images:
        lines.append(f"    verify: {{images: {_scalar(guess.verify_images)}}}")
    return "".join(f"{line}\n" for line in lines)


def _commented(entry: str) -> str:
    return "".join(f"  # {line[2:]}\n" for line in entry.splitlines())


def _scalar(text: str) -> str:
    """Plain where YAML reads the same text back, else in quotes."""
    plain = re.fullmatch(r"[\w./][\w./ -]*", text) and not text.endswith(" ")
    if plain and isinstance(document.plain(text), str):
        return text
    return json.dumps(text, ensure_ascii=False)


def _fine(text: str, root: Path) -> bool:
    """Whether a models.yaml of that text would be taken."""
    full = os.path.abspath(root)  # noqa: PTH100
    content = text.encode("utf-8", "surrogateescape")
    manifest, found = entries.read(content, str(root / "models.yaml"), full)
    return not found.problems and not presence.check(manifest, full)[1]
