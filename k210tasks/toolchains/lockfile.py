"""``k210.lock``: the hashes of downloaded archives, committed beside models.yaml.

Upstream publishes no checksums, so the first download is trusted and recorded, and every
later one, on any machine, must be the same file. With ``K210_LOCKED=1``, the default
where ``CI`` is set, nothing new is trusted.
"""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from k210tasks.store.files import write_atomically
from k210tasks.store.locks import lock
from k210tasks.toolchains.cache import cache_root
from k210tasks.toolchains.errors import ToolchainError

_VERSION = 1
_OFF = {"", "0", "false", "no", "off"}


class BadLockFile(ToolchainError):
    def __init__(self, path: Path, why: str):
        super().__init__(
            f"{path} cannot be used: {why}. Restore it from version control, or delete it to "
            "trust the next download anew"
        )


class Locked(ToolchainError):
    """A download without a recorded hash, where only recorded ones are allowed."""

    def __init__(self, name: str, platform: str, path: Path, sha256: str | None):
        reason = "K210_LOCKED" if os.environ.get("K210_LOCKED") else "CI"
        known = f" (the file in the cache has SHA-256 {sha256})" if sha256 else ""
        super().__init__(
            f"{path} has no entry for {name} on {platform}, and new entries are refused because "
            f"{reason} is set{known}. Run once without it: K210_LOCKED=0 doit toolchain:{name}, "
            f"and commit {path.name}; or give the sha256 in models.yaml under toolchains:"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    sha256: str
    size: int  # bytes
    url: str  # where it came from when it was recorded; not part of the identity


class EntryRecord(TypedDict):
    sha256: str
    size: int
    url: str


class LockFile(TypedDict):
    version: int
    archives: dict[str, dict[str, EntryRecord]]  # toolchain -> platform -> its archive


def locked() -> bool:
    """Whether new entries are refused."""
    chosen = os.environ.get("K210_LOCKED")
    if chosen is not None:
        return chosen.strip().lower() not in _OFF
    return os.environ.get("CI", "").strip().lower() not in _OFF


def read(path: Path, name: str, platform: str) -> Entry | None:
    """The entry of a toolchain on a platform; None where there is none."""
    entry = _load(path)["archives"].get(name, {}).get(platform)
    if entry is None:
        return None
    try:
        sha256, size, url = entry["sha256"], entry["size"], entry["url"]
        good = len(sha256) == 64 and int(sha256, 16) >= 0 and isinstance(size, int)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        raise BadLockFile(path, f"its entry for {name} on {platform} is not one of ours")
    return Entry(sha256.lower(), size, str(url))


def record(path: Path, name: str, platform: str, entry: Entry) -> Entry:
    """Add an entry; the one already there, where another process was first."""
    with _guard(path):
        present = read(path, name, platform)
        if present is not None:
            return present
        if locked():
            raise Locked(name, platform, path, entry.sha256)
        data = _load(path)
        data["archives"].setdefault(name, {})[platform] = {
            "sha256": entry.sha256,
            "size": entry.size,
            "url": entry.url,
        }
        text = json.dumps(data, indent=2, sort_keys=True) + "\n"
        write_atomically(str(path), text.encode(), sync=True)
    return entry


def _guard(path: Path) -> AbstractContextManager[None]:
    """A lock in the cache, not beside the file: the project folder stays clean."""
    import hashlib

    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return lock(str(cache_root() / "locks" / f"lockfile-{name}.lock"))


def _load(path: Path) -> LockFile:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"version": _VERSION, "archives": {}}
    except (OSError, ValueError) as error:
        raise BadLockFile(path, str(error)) from error
    except RecursionError:
        raise BadLockFile(path, "it is nested too deeply") from None
    if not isinstance(data, dict) or not isinstance(data.get("archives"), dict):
        raise BadLockFile(path, "it is no k210.lock")
    if data.get("version") != _VERSION:
        raise BadLockFile(path, f"it is of version {data.get('version')}, this is {_VERSION}")
    if not all(isinstance(v, dict) for v in data["archives"].values()):
        raise BadLockFile(path, "it is no k210.lock")
    return cast("LockFile", data)
