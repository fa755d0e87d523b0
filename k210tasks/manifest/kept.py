"""A manifest that was found good, kept under ``.k210/`` so that YAML need not be read again.

JSON, found by the hash of what it was made from: the file's bytes, the project's
folder, and the code that judged it. Anything odd about it is a miss.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from k210tasks import jsondata, profiles
from k210tasks.heads import declared
from k210tasks.jsondata import loads, plain
from k210tasks.manifest.model import Firmware, Manifest, Model
from k210tasks.samples import preprocess
from k210tasks.store.checked import checked, unchecked
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
    for module in (preprocess, profiles, jsondata, declared):
        stamps.append((module.__name__, os.stat(str(module.__file__))))  # noqa: PTH116
    for name, status in stamps:
        code.update(f"{name}:{status.st_size}:{status.st_mtime_ns};".encode())
    code.update(f"{root}\n".encode("utf-8", "surrogateescape"))
    code.update(content)
    return code.hexdigest()


def _file(root: str, path: str) -> Path:
    return Path(root, _FOLDER, Path(path).name + ".json")


@dataclass(repr=False, eq=False)
class Kept:
    """``key``: what it was made from."""

    key: str
    models: tuple[Model, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    toolchains: tuple[ToolchainOverride, ...] = ()


def load(path: str, root: str, wanted: str) -> Manifest | None:
    """The manifest stored for that key, if there is one."""
    try:
        kept = loads(Kept, unchecked(_file(root, path).read_bytes()))
    except (OSError, ValueError):
        return None
    if kept.key != wanted:
        return None
    return Manifest(path, kept.models, kept.firmware, kept.toolchains, kept.key, kept=True)


def save(manifest: Manifest, root: str) -> None:
    """Keep a manifest. Where that cannot be done, the next load is slower, nothing else."""
    kept = Kept(manifest.made_from, manifest.models, manifest.firmware, manifest.toolchains)
    with suppress(OSError):
        write_atomically(str(_file(root, manifest.path)), checked(plain(kept, changed=True)))
