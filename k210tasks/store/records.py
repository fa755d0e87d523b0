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
from collections.abc import Callable, Iterator
from typing import Any

from k210tasks.store.files import write_atomically

FORMAT = 1

#: relative path ("" for a single file) -> [sha256, stamp]
Files = dict[str, list[Any]]

#: The keys of a record: format, task, outcome ("done", "skipped", "forgotten"), key, step,
#: version, settings, tools, libraries, inputs, outputs (role -> {"path", "files"}), judge, …
Record = dict[str, Any]

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


class TaskStates:
    """The records of a project; ``folder`` is ``.k210/state``."""

    def __init__(self, folder: str, say: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self._say = say

    def _path(self, task: str) -> str:
        return f"{self.folder}{os.sep}{file_name(task)}"

    def load(self, task: str) -> Record | None:
        """The record of a task, or None; a damaged one is said and counts as none."""
        try:
            record = json.loads(_read(self._path(task)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._damaged(task, str(error))
            return None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            self._damaged(task, "it has another format")
            return None
        return record

    def _damaged(self, task: str, why: str) -> None:
        if self._say is not None:
            self._say(f"{task}: what is known of it cannot be read ({why}); checking anew")

    def save(self, task: str, record: Record) -> None:
        record = {"format": FORMAT, "task": task, **record}
        data = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        write_atomically(self._path(task), data.encode("utf-8", "surrogatepass"))

    def remove(self, task: str) -> bool:
        try:
            os.unlink(self._path(task))
        except FileNotFoundError:
            return False
        return True

    def all(self) -> Iterator[Record]:
        """Every readable record."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.folder)):
                if name.endswith(".json"):
                    try:
                        with open(os.path.join(self.folder, name), "rb") as file:
                            record = json.loads(file.read())
                    except (OSError, ValueError):
                        continue
                    if isinstance(record, dict) and record.get("format") == FORMAT:
                        yield record
