"""``.k210/history.jsonl``: what was done when, one JSON object a line, only ever appended.

Each line is one write to a file opened for appending, so lines of several processes do not
mix; a line torn by a crash is skipped when reading and closed off when writing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from k210tasks.jsondata import known, plain, sparse

Did = Literal["computed", "restored", "kept", "judged", "skipped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step of one run. Read leniently: another version may have written it."""

    run: str = ""  # one ``doit``, shared by its processes
    time: float  # when the step ended, seconds since 1970
    task: str
    step: str = ""
    subject: str = ""
    did: Did | str = ""
    seconds: float = 0.0  # spent
    ok: bool = True  # false for failed, and for judged when the verdict is bad
    key: str = sparse(default="")  # of the result, where known
    message: str = sparse(default="")  # why it was skipped, failed or judged as it was


class History:
    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, entry: Line) -> None:
        """Append one line. A disk that refuses it does not fail the step."""
        line = json.dumps(plain(entry), ensure_ascii=False, separators=(",", ":")) + "\n"
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if _torn(fd):
                    line = "\n" + line
                os.write(fd, line.encode("utf-8", "replace"))
            finally:
                os.close(fd)

    def entries(self) -> Iterator[Line]:
        """The readable lines, oldest first."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            for line in file:
                if (entry := known(Line, line)) is not None:
                    yield entry


def _torn(fd: int) -> bool:
    """Whether the file ends in the middle of a line."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        return False
    os.lseek(fd, size - 1, os.SEEK_SET)
    return os.read(fd, 1) != b"\n"
