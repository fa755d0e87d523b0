"""Installed tools that this version of k210tasks would never use again: earlier pins.

The cache serves every project of a user, and perhaps another version of k210tasks beside
this one: nothing goes unless asked for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from k210tasks.store.records import Pin
from k210tasks.toolchains import receipts
from k210tasks.toolchains.cache import cache_root
from k210tasks.toolchains.catalogue import TOOLS, PythonTool

#: A folder without a receipt is an installation under way, or one that was cut off: it
#: counts as the latter after this many seconds.
ABANDONED = 86_400


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder in the cache; ``title`` says what was in it, ``nbytes`` counts its files."""

    folder: Path
    title: str
    nbytes: int


def leftovers() -> Iterator[Leftover]:
    """Every folder of a tool whose pin is not in the catalogue, sorted by name."""
    from k210tasks.toolchains.toolchain import size_of

    base = cache_root() / "toolchains"
    if not base.is_dir():
        return
    for folder in sorted(path for path in base.iterdir() if path.is_dir()):
        pin = _pin(folder)
        if pin is not None:
            if not _is_named(pin):
                yield Leftover(folder, f"{pin['name']} ({pin.get('version')})", size_of(folder))
        elif time.time() - folder.stat().st_mtime > ABANDONED:
            yield Leftover(folder, "an installation that was cut off", size_of(folder))


def remove(leftover: Leftover) -> None:
    """Remove one. Being killed on the way leaves a folder without a receipt, so no tool."""
    (leftover.folder / receipts.FILE).unlink(missing_ok=True)
    shutil.rmtree(leftover.folder)


def _pin(folder: Path) -> Pin | None:
    """What a receipt of whatever layout says was installed there."""
    receipt = receipts.load(folder)
    pin = receipt.get("pin") if isinstance(receipt, dict) else None
    return pin if isinstance(pin, dict) and "name" in pin else None


def _is_named(pin: Pin) -> bool:
    """Whether the catalogue has it. An archive's hash is pinned by projects, not by us."""
    tool = TOOLS.get(str(pin["name"]))
    if isinstance(tool, PythonTool):
        return pin == tool.pin()
    return tool is not None and pin.get("version") == tool.version
