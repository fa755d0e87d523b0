"""A manifest that was found good, kept under ``.k210/`` so that YAML need not be read again.

JSON, found by the hash of what it was made from: the file's bytes, the project's
folder, and the code that judged it. Anything odd about it is a miss.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from k210tasks import profiles
from k210tasks.manifest.model import (
    Calibrate,
    Firmware,
    Manifest,
    Model,
    Part,
    Verify,
)
from k210tasks.samples import preprocess
from k210tasks.store.files import write_atomically
from k210tasks.toolchains.catalogue import ToolchainOverride
from k210tasks.version import __version__

_FOLDER = ".k210/manifest"


def key(content: bytes, root: str) -> str:
    """What a stored manifest must have been made from."""
    code = hashlib.sha256(__version__.encode())
    own = Path(__file__).parent
    with os.scandir(own) as listing:
        stamps = sorted((e.name, e.stat()) for e in listing if e.name.endswith(".py"))
    for module in (preprocess, profiles):
        stamps.append((module.__name__, os.stat(str(module.__file__))))  # noqa: PTH116
    for name, status in stamps:
        code.update(f"{name}:{status.st_size}:{status.st_mtime_ns};".encode())
    code.update(f"{root}\n".encode("utf-8", "surrogateescape"))
    code.update(content)
    return code.hexdigest()


def _file(root: str, path: str) -> Path:
    return Path(root, _FOLDER, Path(path).name + ".json")


def load(path: str, root: str, wanted: str) -> Manifest | None:
    """The manifest stored for that key, if there is one."""
    try:
        stored = json.loads(_file(root, path).read_bytes())
        if stored["key"] != wanted:
            return None
        return _manifest(path, stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def save(manifest: Manifest, root: str) -> None:
    """Keep a manifest. Where that cannot be done, the next load is slower, nothing else."""
    text = json.dumps({"key": manifest.made_from, **_plain(manifest)}, separators=(",", ":"))
    with suppress(OSError):
        write_atomically(str(_file(root, manifest.path)), text.encode())


def _fields(value: Any, defaults: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from another instance of it."""
    return {
        f.name: getattr(value, f.name)
        for f in fields(value)
        if getattr(value, f.name) != getattr(defaults, f.name)
    }


_MODEL = Model("", "", "pb", "", "", 0)


def _plain(manifest: Manifest) -> dict[str, Any]:
    """JSON values; what is at its default is left out."""
    models = []
    for model in manifest.models:
        plain = _fields(model, _MODEL)
        for name, default in (("preprocess", preprocess.Preprocess()), ("calibrate", Calibrate())):
            if name in plain:
                plain[name] = _fields(plain[name], default)
        if plain.get("verify") is not None:
            plain["verify"] = _fields(plain["verify"], Verify())
        plain["line"] = model.line
        models.append(plain)
    images = [
        {
            "name": image.name,
            "profile": image.profile,
            "line": image.line,
            "parts": [{**_fields(part, Part()), "line": part.line} for part in image.parts],
        }
        for image in manifest.firmware
    ]
    overrides = [_fields(override, ToolchainOverride("")) for override in manifest.toolchains]
    return {"models": models, "firmware": images, "toolchains": overrides}


def _tuple(value: Any) -> Any:
    return tuple(value) if value is not None else None


def _manifest(path: str, stored: dict[str, Any]) -> Manifest:
    models = []
    for plain in stored["models"]:
        if "inputs" in plain and plain["inputs"] is not None:
            plain["inputs"] = tuple((name, tuple(shape)) for name, shape in plain["inputs"])
        for name in ("outputs", "labels", "anchors", "made_by"):
            if name in plain:
                plain[name] = _tuple(plain[name])
        if "preprocess" in plain:
            plain["preprocess"] = preprocess.Preprocess(**plain["preprocess"])
        if "calibrate" in plain:
            plain["calibrate"] = Calibrate(**plain["calibrate"])
        if plain.get("verify") is not None:
            plain["verify"] = Verify(**plain["verify"])
        models.append(Model(**{"source_kind": "pb", **plain}))
    images = []
    for image in stored["firmware"]:
        parts = tuple(
            Part(**{**part, "made_by": tuple(part.get("made_by", ()))}) for part in image["parts"]
        )
        images.append(Firmware(image["name"], image["profile"], parts, image["line"]))
    overrides = tuple(ToolchainOverride(**plain) for plain in stored["toolchains"])
    return Manifest(path, tuple(models), tuple(images), overrides, stored["key"], kept=True)
