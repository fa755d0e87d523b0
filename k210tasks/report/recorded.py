"""What files and records tell that may be missing, damaged or of another version.

A report is most needed when something went wrong, so nothing here raises: what is odd is not
known (:func:`k210tasks.jsondata.known`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k210tasks.jsondata import known_of
from k210tasks.store.records import TaskStates


@dataclass(frozen=True, slots=True)
class Placed:
    """``files``: hash and stamp by relative path, "" of an output that is one file."""

    files: dict[str, tuple[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    message: str = ""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a page shows of the record of a task (:class:`k210tasks.store.records.Record`)."""

    outcome: str = ""
    because: str = ""
    finished: float | None = None
    inputs: dict[str, Placed] = field(default_factory=dict)
    outputs: dict[str, Placed] = field(default_factory=dict)
    judge: Said | None = None


def recorded(states: TaskStates, task: str) -> StepRecord:
    """What is known of a task; nothing where that is not known."""
    record: Any = states.load(task)
    return known_of(StepRecord, record) or StepRecord()


def digest_of(places: Mapping[str, Placed], role: str) -> str | None:
    """The hash of the one file of a role."""
    place = places.get(role, Placed())
    return place.files.get("", ("", None))[0] or None


def read_bytes(path: Path) -> bytes | None:
    """The content of a file; None where there is none to be had."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return None
