"""``k210 inspect X.kfpkg``: what a firmware image puts where, and the models in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from k210tasks.cli.output import Json
from k210tasks.errors import K210Error
from k210tasks.firmware import kfpkg
from k210tasks.firmware.describe import describe, kmodels

#: what ``inspect --json`` says of a kmodel 3 or 4, from its name and bytes; raises K210Error
ModelFacts = Callable[[str, bytes], Any]


def show(path: str, data: bytes, as_text_json: bool, model_facts: ModelFacts) -> int:
    """Print the parts of a kfpkg; raises :class:`KfpkgError` for a damaged one."""
    if not as_text_json:
        print(describe(data, path), end="")
        return 0
    image = kfpkg.read(data, path)
    parts = [part_facts(part, model_facts) for part in image.parts]
    facts = {"file": path, "name": image.name, "profile": image.profile, "parts": parts}
    print(json.dumps(facts, indent=2))
    return 0


def part_facts(part: kfpkg.Part, model_facts: ModelFacts) -> Json:
    """One part as JSON; ``model`` is what ``model_facts`` gives."""
    facts: Json = {
        "address": part.address,
        "bytes": len(part.data),
        "bin": part.bin,
        "sha256": part.sha256,
        "sha256_prefix": part.sha256_prefix,
        "source": part.source,
        "kmodel": part.kmodel,
        "model": None,
        "problem": None,
        "kmodels": [{"offset": at, "version": it.version} for at, it in kmodels(part.data)],
    }
    if part.sha256_prefix and not part.is_model:
        return facts  # a program
    from k210tasks.kmodel import KmodelError, detect

    try:
        facts["kmodel"] = detect(part.data).version
        facts["model"] = model_facts(part.bin, part.data)
    except KmodelError:
        if part.is_model:
            facts["problem"] = f"{part.bin} should be a kmodel and is none"
    except K210Error as error:
        facts["problem"] = str(error)
    return facts
