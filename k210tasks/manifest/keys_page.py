"""The schema of models.yaml for readers: docs/models-yaml.md and docs/models.schema.json.

``python -m k210tasks.manifest.keys_page`` writes both; a test says when they are old.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from k210tasks.manifest import names, schema
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.manifest.kinds import JsonSchema, listed
from k210tasks.profiles import PROFILES

MARKDOWN = "docs/models-yaml.md"
JSON = "docs/models.schema.json"

EXAMPLE = """\
defaults:
  firmware: maixpy
  compiler: ncc-0.2.0-beta4

models:
  nn_xo:
    source: workspace/nn_xo.pb
    inputs: {input: [1, 28, 28, 1]}
    outputs: [output]
    images: images/xo/calibration
    preprocess: {color: gray, mean: 0.0, std: 1.0, resize: stretch}
    calibrate: {method: minmax, samples: 100}
    verify: {images: images/xo/verification, min_cosine: 0.98, min_top1: 0.98}
    labels: [cross, circle]

firmware:
  demo:
    parts:
      - {bin: firmware/maixpy.bin, address: 0x0, made_by: [build_firmware]}
      - {model: nn_xo, address: 0x300000}
"""

#: Heading, what is in the table, the map it documents.
_SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("The file", "", schema.File),
    ("A model: `models.NAME`", "The keys of `defaults` below, and these of its own.", schema.Model),
    ("Defaults: `defaults`, and any model", "", schema.Defaults),
    ("`preprocess`", "", schema.Preprocess),
    ("`calibrate`", "", schema.Calibrate),
    ("`verify`", "", schema.Verify),
    ("`head`", "", schema.Head),
    ("A firmware image: `firmware.NAME`", "", schema.Firmware),
    ("An entry of `parts`", "", schema.Part),
    ("A toolchain: `toolchains.NAME`", "", schema.Toolchain),
)


def json_schema() -> JsonSchema:
    """The JSON Schema of models.yaml (draft 2020-12), for editors."""
    made = schema.File.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "models.yaml of k210tasks"
    _tidy(made)
    return made


def _tidy(node: Any) -> None:
    """Drop what describes Python instead of YAML: null defaults, generated titles."""
    if isinstance(node, dict):
        if "default" in node and node["default"] is None:
            del node["default"]
        if isinstance(node.get("title"), str) and node["title"] != "models.yaml of k210tasks":
            del node["title"]
        for key in [key for key in node if key.startswith("x-")]:
            del node[key]
        for value in node.values():
            _tidy(value)
    elif isinstance(node, list):
        for value in node:
            _tidy(value)


def markdown() -> str:
    """The page that documents every key."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# models.yaml"
    yield ""
    yield "<!-- Written by `python -m k210tasks.manifest.keys_page`; do not edit. -->"
    yield ""
    yield "```yaml"
    yield from EXAMPLE.splitlines()
    yield "```"
    yield ""
    yield "Paths start from the folder of models.yaml and have `/` between folders."
    yield "Only a model's `source` must be written (and `images`, in nearly every case)."
    yield "For completion and hints while typing, an editor can use `docs/models.schema.json`."
    for heading, intro, kind in _SECTIONS:
        yield ""
        yield f"## {heading}"
        yield ""
        yield intro or str(kind.__doc__).strip()
        yield ""
        yield from _table(kind)
    yield from _names()
    yield from _compilers()
    yield from _profiles()
    yield from _yaml()


def _table(kind: type[BaseModel]) -> Iterator[str]:
    inherited = schema.Defaults.model_fields if kind is schema.Model else {}
    yield "| key | meaning | allowed | where it is not written |"
    yield "|---|---|---|---|"
    for key, declared in kind.model_fields.items():
        if key in inherited:
            continue
        kinds = [m.allowed for m in declared.metadata if hasattr(m, "allowed")]
        allowed = kinds[0].removeprefix("allowed: ") if kinds else _map_of(kind, key)
        extra = declared.json_schema_extra
        default = str(extra.get("x-default", "–")) if isinstance(extra, dict) else "–"
        if declared.is_required():
            default = "an error"
        cells = (f"`{key}`", str(declared.description), allowed, default)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _map_of(kind: type[BaseModel], key: str) -> str:
    if kind is schema.File:
        return "a map" if key == "defaults" else "a map of names"
    if key == "inputs":
        return "a map of one name: `[1, height, width, channels]`"
    return "a list" if key == "parts" else "a map, see below"


def _names() -> Iterator[str]:
    yield ""
    yield "## Names of models and firmware images"
    yield ""
    yield f"{names.ALLOWED.removeprefix('allowed: ').capitalize()}. No two may differ only by case."
    yield "Reserved: `report`, and the names Windows keeps for devices (`con`, `nul`, `com1`, …)."
    yield "Unicode form NFC. No two entries may write the same file, and none may write a source."


def _compilers() -> Iterator[str]:
    yield ""
    yield "## Compilers"
    yield ""
    yield "| compiler | writes kmodel | `calibrate.method` |"
    yield "|---|---|---|"
    for compiler in COMPILERS.values():
        versions = listed(map(str, compiler.kmodels))
        yield f"| `{compiler.name}` | {versions} | {', '.join(compiler.methods)} |"


def _profiles() -> Iterator[str]:
    yield ""
    yield "## Firmware profiles"
    yield ""
    yield "| profile | what it is | loads kmodel | models from | file system |"
    yield "|---|---|---|---|---|"
    for profile in PROFILES.values():
        area = "–"
        if profile.filesystem:
            area = f"0x{profile.filesystem[0]:X} to 0x{profile.filesystem[1]:X}"
        yield (
            f"| `{profile.name}` | {profile.title} | {', '.join(map(str, profile.kmodels))} "
            f"| 0x{profile.model_base:X} | {area} |"
        )


def _yaml() -> Iterator[str]:
    yield ""
    yield "## YAML"
    yield ""
    yield "One document, UTF-8, of maps, lists and plain values; no anchors, aliases or tags."
    yield "Unquoted `yes`, `no`, `on`, `off` are booleans (YAML 1.1): put them in quotes where the"
    yield "text is meant. A whole number with a leading zero is refused, as it would be octal;"
    yield "hexadecimal numbers (`0x300000`) are fine. A key that is there twice is refused."


def write(root: Path) -> None:
    """Write both files below ``root``."""
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    for name, content in ((MARKDOWN, markdown()), (JSON, text)):
        (root / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(__file__).parents[2])
