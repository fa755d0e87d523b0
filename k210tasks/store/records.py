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
from hashlib import blake2b
from typing import Any, Literal, TypedDict, cast

from k210tasks.store.files import write_atomically

FORMAT = 2
_SEALED, _SEAL_LENGTH = b'{"seal":"', 32

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


class _Always(TypedDict):
    outcome: Literal["done", "skipped", "forgotten", "failed"]


class Record(_Always, total=False):
    """What is known of a task. Plain dictionaries: a run in which nothing changed reads thousands.

    Beside the outcome, ``outputs`` are there but for a toolchain's, ``because`` for one that was
    skipped, and the rest for one that is done.
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


def outputs_of(record: Record | None) -> dict[str, Place]:
    """What a task wrote, by role, as far as that is known."""
    return {} if record is None else record.get("outputs", {})


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


def _sum(rest: bytes) -> bytes:
    return blake2b(rest, digest_size=16).hexdigest().encode("ascii")


def _parsed(data: bytes) -> Record:
    """A record as :meth:`TaskStates.save` wrote it, to the last bit. Raises ValueError."""
    sealed, _, rest = data.partition(b'","sum":"')
    digest, mark, rest = rest.partition(b'",')
    if not sealed.startswith(_SEALED) or not mark:
        raise ValueError("it has another format")
    rest = b"{" + rest
    if _sum(rest) != digest:
        raise ValueError("it is not what was written")
    record = json.loads(rest)
    if record["format"] != FORMAT:
        raise ValueError("it has another format")
    return cast("Record", record)


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
            head = _read(self._path(task))[: len(_SEALED) + _SEAL_LENGTH]
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
        """Write a :class:`Record`, or what a task that is no step keeps instead; ``seal`` is 32
        hex digits by which it is known whole (:meth:`seal`)."""
        rest = json.dumps(
            {"format": FORMAT, "task": task, **record}, ensure_ascii=False, separators=(",", ":")
        ).encode("utf-8", "surrogatepass")
        head = b'%b%b","sum":"%b",' % (_SEALED, seal.encode("ascii"), _sum(rest))
        write_atomically(self._path(task), head + rest[1:])

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
