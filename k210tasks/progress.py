"""How far a long step is: a bar on a terminal, plain lines elsewhere, nothing for short ones.

rich is imported when the first bar is due, one second into a step.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from k210tasks.errors import visible

#: seconds a step may take in silence, and between two plain lines
QUIET = 1.0
EVERY = 10.0
#: no one counts so many samples: these are bytes of a download
MANY = 10_000_000


#: done, total, what: shown as a bar on a terminal when it takes longer than a second, else as lines
Progress = Callable[[int, int, str], None]


def no_progress(done: int, total: int, what: str) -> None:
    """A :data:`Progress` that shows nothing."""


class Shown:
    """A :data:`Progress` of one task. ``tell`` prints past a bar."""

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
        state = {
            "completed": done,
            "total": total or None,
            "what": f"{what} {_counted(done, total, '/')}",
        }
        if self._bar is not None:
            self._bar.update(self._id, **state)
            return
        if _terminal():
            self._bar = _bar()
            self._id = self._bar.add_task(self._task, **state)
            self._bar.start()
            self._next = 0.0
            return
        self._next = time.monotonic() + EVERY
        self.tell(f"   {self._task}: {what} {_counted(done, total, ' of ')}")

    def tell(self, text: str) -> None:
        """One message to the user."""
        if self._quiet:
            return
        text = visible(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
            return
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _counted(done: int, total: int, between: str) -> str:
    """How far it is; in millions where only bytes come to so much."""
    numbers = (done, total) if total else (done,)
    if max(numbers) < MANY:
        return between.join(str(n) for n in numbers)
    return between.join(f"{n / 1e6:.1f}" for n in numbers) + " MB"


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
        TextColumn("   {task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[what]}", markup=False),
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
