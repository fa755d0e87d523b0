"""How far a long step is: a bar on a terminal, plain lines elsewhere, nothing for short ones.

rich is imported when the first bar is due, one second into a step.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

#: seconds a step may take in silence, and between two plain lines
QUIET = 1.0
EVERY = 10.0


class Shown:
    """A :class:`~k210tasks.steps.job.Progress` of one task. ``tell`` prints past a bar."""

    def __init__(self, task: str, *, quiet: bool = False) -> None:
        self._task = task
        self._quiet = quiet
        self._started = time.monotonic()
        self._next = self._started + QUIET
        self._bar: Any = None
        self._id: Any = None

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._quiet or time.monotonic() < self._next:
            return
        if self._bar is not None:
            self._bar.update(self._id, completed=done, total=total, what=what)
            return
        if _terminal():
            self._bar = _bar()
            self._id = self._bar.add_task(self._task, completed=done, total=total, what=what)
            self._bar.start()
            self._next = 0.0
            return
        self._next = time.monotonic() + EVERY
        share = f" of {total}" if total else ""
        self.tell(f"   {self._task}: {what} {done}{share}")

    def tell(self, text: str) -> None:
        """One message to the user."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
            return
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _terminal() -> bool:
    """Whether one bar can have the last line to itself."""
    return (
        sys.stderr.isatty()
        and multiprocessing.parent_process() is None
        and threading.current_thread() is threading.main_thread()
    )


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("   {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[what]} {task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )


@contextlib.contextmanager
def shown(task: str, *, quiet: bool = False) -> Iterator[Shown]:
    """The progress of a task while it runs."""
    progress = Shown(task, quiet=quiet)
    try:
        yield progress
    finally:
        progress.close()
