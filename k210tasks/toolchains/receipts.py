"""The receipt of an installed tool: written last, so that without one nothing is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from k210tasks.store.files import write_atomically

FILE = "receipt.json"
#: raised when what an installation must contain changes, so that older ones do not count
LAYOUT = 1


def write(folder: Path, pin: dict[str, Any], facts: dict[str, Any]) -> None:
    """Record in ``folder`` that ``pin`` was installed there and proved to run."""
    text = json.dumps({"layout": LAYOUT, "pin": pin, **facts}, indent=1, sort_keys=True) + "\n"
    write_atomically(str(folder / FILE), text.encode(), sync=True)


def read(folder: Path) -> dict[str, Any] | None:
    """The receipt in ``folder``; None where there is none, or none that can be read."""
    try:
        receipt = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(receipt, dict) or receipt.get("layout") != LAYOUT:
        return None
    return receipt
