"""``k210 inspect X.kfpkg``: what a firmware image puts where, and the models in it."""

from __future__ import annotations

import json
from typing import Any

from k210tasks.cli.inspect import as_json, look
from k210tasks.errors import K210Error
from k210tasks.firmware import kfpkg


def show(path: str, data: bytes, as_text_json: bool) -> int:
    """Print the parts of a kfpkg; raises :class:`KfpkgError` for a damaged one."""
    image = kfpkg.read(data, path)
    parts = [part_facts(part) for part in image.parts]
    if as_text_json:
        facts = {"file": path, "name": image.name, "profile": image.profile, "parts": parts}
        print(json.dumps(facts, indent=2))
        return 0
    named = f" {image.name}" if image.name else ""
    profile = f", for {image.profile}" if image.profile else ""
    print(f"{path}: firmware image{named}{profile}, {len(data)} bytes")
    print(f"\n{'address':>10} {'bytes':>9}  content")
    for part in parts:
        prefix = ", with SHA-256 prefix" if part["sha256_prefix"] else ""
        print(f"{part['address']:>#10x} {part['bytes']:>9}  {part['bin']}{prefix}")
        for line in model_lines(part):
            print(f"{'':>22}{line}")
    return 0


def part_facts(part: kfpkg.Part) -> dict[str, Any]:
    """One part as JSON; ``model`` is what ``inspect --json`` says of a kmodel 3 or 4."""
    facts: dict[str, Any] = {
        "address": part.address,
        "bytes": len(part.data),
        "bin": part.bin,
        "sha256": part.sha256,
        "sha256_prefix": part.sha256_prefix,
        "source": part.source,
        "kmodel": part.kmodel,
        "model": None,
        "problem": None,
    }
    if part.sha256_prefix and not part.is_model:
        return facts  # a program
    from k210tasks.kmodel import KmodelError, detect

    try:
        facts["kmodel"] = detect(part.data).version
        facts["model"] = as_json(part.bin, look(part.bin, part.data))
    except KmodelError:
        if part.is_model:
            facts["problem"] = f"{part.bin} should be a kmodel and is none"
    except K210Error as error:
        facts["problem"] = str(error)
    return facts


def model_lines(part: dict[str, Any]) -> list[str]:
    """What the listing says below a part that is a model."""
    lines = []
    model = part["model"]
    if model:
        lines.append(f"kmodel {model['version']}, {len(model['layers'])} layers")
        lines += [
            f"KPU memory usage: {model['kpu_bytes']} B",
            f"Main memory usage: {model['main_bytes']} B",
        ]
    if part["problem"]:
        lines.append(part["problem"])
    return lines
