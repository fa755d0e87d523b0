"""Why a step runs: one small dataclass per cause, and how each is said.

Deciding collects reasons; rendering is here, apart from it. Every reason names the field
or file and old and new.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

#: what --json prints
Json = dict[str, Any]
#: reasons shown per step before "and N more"
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Reason:
    """A cause; ``str(reason)`` is a phrase without a full stop."""

    def to_json(self) -> Json:
        """The cause as JSON values; ``why`` is the name of its class."""
        return {"why": type(self).__name__, **asdict(self), "text": str(self)}


@dataclass(frozen=True, slots=True)
class NeverRun(Reason):
    def __str__(self) -> str:
        return "no record of an earlier run"


@dataclass(frozen=True, slots=True)
class Forgotten(Reason):
    def __str__(self) -> str:
        return "its result was forgotten"


@dataclass(frozen=True, slots=True)
class WasSkipped(Reason):
    because: str

    def __str__(self) -> str:
        return f"it was skipped last time: {self.because.splitlines()[0] if self.because else ''}"


@dataclass(frozen=True, slots=True)
class SettingChanged(Reason):
    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field}: {say(self.old)} → {say(self.new)}"


@dataclass(frozen=True, slots=True)
class StepChanged(Reason):
    step: str
    old: int
    new: int

    def __str__(self) -> str:
        return f"the version of the step {self.step}: {self.old} → {self.new}"


@dataclass(frozen=True, slots=True)
class ToolChanged(Reason):
    tool: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"toolchain {self.tool}: {say(self.old)} → {say(self.new)}"


@dataclass(frozen=True, slots=True)
class LibraryChanged(Reason):
    library: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"library {self.library}: {self.old or 'none'} → {self.new or 'none'}"


@dataclass(frozen=True, slots=True)
class ContentChanged(Reason):
    role: str
    path: str
    old: str  # SHA-256
    new: str

    def __str__(self) -> str:
        return f"{self.path} ({self.role}) has other content: {self.old[:12]} → {self.new[:12]}"


@dataclass(frozen=True, slots=True)
class FileAdded(Reason):
    role: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.role}) is new"


@dataclass(frozen=True, slots=True)
class FileRemoved(Reason):
    role: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.role}) is no longer among the files"


@dataclass(frozen=True, slots=True)
class InputMissing(Reason):
    role: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} ({self.role}) is missing"


@dataclass(frozen=True, slots=True)
class OutputMissing(Reason):
    path: str

    def __str__(self) -> str:
        return f"{self.path} is missing"


@dataclass(frozen=True, slots=True)
class OutputTampered(Reason):
    path: str
    old: str  # SHA-256
    new: str

    def __str__(self) -> str:
        return f"{self.path} is not what the step wrote: {self.old[:12]} → {self.new[:12]}"


@dataclass(frozen=True, slots=True)
class OutputMoved(Reason):
    role: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"the place of its {self.role}: {self.old or 'none'} → {self.new or 'none'}"


@dataclass(frozen=True, slots=True)
class JudgedBadly(Reason):
    message: str

    def __str__(self) -> str:
        return f"it did not pass last time: {self.message.splitlines()[0] if self.message else ''}"


@dataclass(frozen=True, slots=True)
class NotJudged(Reason):
    def __str__(self) -> str:
        return "its result is not judged yet"


@dataclass(frozen=True, slots=True)
class AfterTask(Reason):
    """Said by ``k210 why`` only: what the step reads is about to be made anew."""

    task: str

    def __str__(self) -> str:
        return f"{self.task} would run before it; if its result is the same, this is kept"


def say(value: Any) -> str:
    """A setting as a person would write it in models.yaml."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, dict):  # what is not set is not written
        value = {key: item for key, item in value.items() if item is not None}
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def differences(name: str, old: Any, new: Any) -> list[SettingChanged]:
    """The fields in which two settings differ: dotted, entries of a list of objects by number."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[SettingChanged] = []
        for key in sorted({*old, *new}):
            dotted = f"{name}.{key}" if name else key
            found += differences(dotted, old.get(key), new.get(key))
        return found
    if _is_objects(old) and _is_objects(new):
        pairs = enumerate(zip_longest(old, new))
        return [d for i, (was, now) in pairs for d in differences(f"{name}[{i}]", was, now)]
    return [] if old == new else [SettingChanged(name, old, new)]


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def listing(reasons: Iterable[Reason], limit: int = SHOWN) -> list[str]:
    """The phrases to show, the rest counted."""
    texts = [str(reason) for reason in reasons]
    if len(texts) > limit:
        texts[limit:] = [f"and {len(texts) - limit} more"]
    return texts
