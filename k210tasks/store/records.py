"""What the last run of each task read and wrote: ``.k210/state/TASK.json``.

A record is written atomically when its step ends, so a killed batch loses only the step
under way. It holds, by role, the hash and the stamp of every input and output file, so
that "nothing changed" costs one stat per file and no reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypedDict, cast, get_args

from k210tasks.store.checked import HEAD, checked, unchecked
from k210tasks.store.files import stays_inside, write_atomically

FORMAT = 2
_SEALED, SEAL_LENGTH = b'"seal":"', 32

#: relative path ("" for a single file) -> [sha256, stamp]
Files = dict[str, list[Any]]


#: of a step: JSON values (:mod:`k210tasks.steps.settings`)
Settings = Mapping[str, Any]

#: what identifies a toolchain in the key of a result: its version and hashes
Pin = Mapping[str, str]


class Place(TypedDict):
    """An input or an output: its path in the project, and what was there."""

    path: str
    files: Files


class Judged(TypedDict):
    """What the cheap half of a step found."""

    version: int
    settings: Settings
    ok: bool
    message: str
    outputs: dict[str, Place]


Outcome = Literal["begun", "done", "skipped", "forgotten", "failed"]


class _Always(TypedDict):
    outcome: Outcome


class Record(_Always, total=False):
    """What is known of a task. Plain dictionaries: a run in which nothing changed reads thousands.

    Beside the outcome, ``outputs`` are there but for a toolchain's (of one that has begun: what it
    will write), ``because`` for one that was skipped, and the rest for one that is done.
    ``former``: what was written before, and is to be replaced.
    """

    format: int
    task: str
    run: str  # of the ``doit`` that wrote it
    because: str
    finished: float  # seconds since 1970
    seconds: float
    key: str
    step: str
    version: int
    settings: Settings
    tools: dict[str, Pin]
    libraries: dict[str, str]
    inputs: dict[str, Place]
    outputs: dict[str, Place]
    judge: Judged | None
    former: dict[str, Place]


def outputs_of(record: Record | None) -> dict[str, Place]:
    """What a task and its judge wrote, by role, as far as that is known."""
    if record is None:
        return {}
    judged = record.get("judge")
    by_judge = judged["outputs"] if judged else {}
    return {**record.get("former", {}), **record.get("outputs", {}), **by_judge}


def written(record: Record | None) -> set[tuple[str, str]]:
    """Path of an output and relative path of every file that is known to be ours."""
    return {(p["path"], name) for p in outputs_of(record).values() for name in p["files"]}


#: In a file's name these stand for themselves; the rest of a task's name is percent-encoded
#: where a file system might refuse it. "convert:nn_xo" -> "convert.nn_xo.json"
_USUAL = re.compile(r"\w+:[\w.-]+")
_UNSAFE = re.compile(r'[<>"/\\|?*%\x00-\x1f]')


def file_name(task: str) -> str:
    """The name of a task's record. Step names hold no dot: the first one is the colon."""
    if _USUAL.fullmatch(task):
        return task.replace(":", ".") + ".json"
    safe = _UNSAFE.sub(lambda match: f"%{ord(match.group()):02x}", task)
    return safe.replace(":", ".", 1).replace(":", "%3a") + ".json"


def _read(path: str) -> bytes:
    """The content of a file, without the price of a file object: asked for every task."""
    fd = os.open(path, _FLAGS)
    try:
        data = os.read(fd, _USUAL_SIZE)
        if len(data) < _USUAL_SIZE:
            return data
        parts = [data]
        while part := os.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


_USUAL_SIZE = 1 << 15
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)


def _parsed(data: bytes) -> Record:
    """A record as :meth:`TaskStates.save` wrote it, to the last bit. Raises ValueError."""
    if data.startswith(b'{"format":1,'):
        return _of_0_1(data)
    try:
        record = json.loads(unchecked(data))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if record.pop("format", None) != FORMAT or not _fits(record):
        raise ValueError("it has another format")
    record.pop("seal", None)  # of this state of things: the next has another
    return cast("Record", record)


_OUTCOMES = set(get_args(Outcome))
#: what is there of a step that is done, besides places
_DONE = {"key": str, "version": int, "settings": dict, "tools": dict, "libraries": dict}


def _fits(record: Any) -> bool:
    """Whether a record has what is read of one, and names no file outside the project as ours."""
    try:
        judged = record.get("judge") or {}
        ours = [record.get("outputs", {}), record.get("former", {}), judged.get("outputs", {})]
        places = [place for part in ours for place in part.values()]
        inputs = list(record.get("inputs", {}).values())
        step = "step" in record
        return (
            record["outcome"] in _OUTCOMES
            and isinstance(record["task"], str)
            and all(stays_inside(place["path"].rstrip("/")) for place in places)
            and all(_files_fit(place) for place in [*places, *inputs])
            and (not step or all(isinstance(record[k], kind) for k, kind in _DONE.items()))
            and (not judged or isinstance(judged["settings"], dict))
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _files_fit(place: Any) -> bool:
    """Whether an input or output has a digest and a stamp for each of its files."""
    return isinstance(place["path"], str) and all(
        stays_inside(name) and isinstance(digest, str) and all(type(n) is int for n in stamp)
        for name, (digest, stamp) in place["files"].items()
    )


def _of_0_1(data: bytes) -> Record:
    """Of a record of k210tasks 0.1, which outputs are ours, so that they may be replaced."""
    try:
        record = json.loads(data)
        places = {**record.get("outputs", {}), **(record.get("judge") or {}).get("outputs", {})}
        ours: Record = {"outcome": "forgotten", "task": record["task"], "outputs": places}
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is damaged") from error
    if not _fits(ours):
        raise ValueError("it is damaged")
    return ours


class TaskStates:
    """The records of a project; ``folder`` is ``.k210/state``."""

    def __init__(self, folder: str, say: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self._say = say

    def _path(self, task: str) -> str:
        return f"{self.folder}{os.sep}{file_name(task)}"

    def seal(self, task: str) -> str:
        """What the record of a task was sealed with; "" where it was not, or there is none. Only
        that is looked at: who trusts it has something to compare it with."""
        try:
            head = _read(self._path(task))[HEAD : HEAD + len(_SEALED) + SEAL_LENGTH]
        except OSError:
            return ""
        seal = head[len(_SEALED) :].decode("ascii", "replace")
        return seal if head.startswith(_SEALED) and not seal.startswith('"') else ""

    def load(self, task: str) -> Record | None:
        """The record of a task, or None; a damaged one is said and counts as none."""
        try:
            record = _parsed(_read(self._path(task)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if self._say is not None:
                self._say(f"{task}: what is known of it cannot be read ({error}); checking anew")
            return None
        return record

    def save(self, task: str, record: Mapping[str, Any], seal: str = "") -> None:
        """Write a :class:`Record`, or what a task that is no step keeps instead; ``seal`` is
        what :meth:`seal` then tells."""
        data = checked({"seal": seal, "format": FORMAT, "task": task, **record})
        write_atomically(self._path(task), data)

    def remove(self, task: str) -> bool:
        try:
            os.unlink(self._path(task))
        except FileNotFoundError:
            return False
        return True

    def all(self) -> Iterator[Record]:
        """Every record that is one. Raises OSError where one is there and cannot be read."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(".json"):
                    with contextlib.suppress(FileNotFoundError, ValueError):
                        yield _parsed(_read(os.path.join(self.folder, name)))
