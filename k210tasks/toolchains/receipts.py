"""The receipt of an installed tool: written last, so that without one nothing is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from k210tasks.store.files import write_atomically
from k210tasks.store.records import Pin
from k210tasks.toolchains.errors import CacheUnusable

FILE = "receipt.json"
#: raised when what an installation must contain changes, so that older ones do not count
LAYOUT = 1


class Facts(TypedDict, total=False):
    """What is recorded beside the pin: ``interpreter`` of environments, the rest of archives."""

    proof: Mapping[str, object]  # what the tool said of itself when it was tried
    installed: str  # when, UTC
    bytes: int  # on disk
    interpreter: str
    url: str
    archive_bytes: int
    program: str  # path inside the folder


class Receipt(Facts):
    layout: int
    pin: Pin


def write(folder: Path, pin: Pin, facts: Facts) -> None:
    """Record in ``folder`` that ``pin`` was installed there and proved to run."""
    text = json.dumps({"layout": LAYOUT, "pin": pin, **facts}, indent=1, sort_keys=True) + "\n"
    write_atomically(str(folder / FILE), text.encode(), sync=True)


def read(folder: Path) -> Receipt | None:
    """The receipt in ``folder``; None where there is none, or another layout's.

    Raises :class:`CacheUnusable` where that cannot be known: an installation that is only not
    readable now must not be taken for none, and be made again in its place.
    """
    receipt = load(folder)
    if not isinstance(receipt, dict) or receipt.get("layout") != LAYOUT:
        return None
    return cast("Receipt", receipt)


def load(folder: Path) -> Any:
    """The JSON of a receipt of whatever layout, None for none. Raises :class:`CacheUnusable`."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise CacheUnusable(folder, error) from error
