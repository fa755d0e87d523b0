"""State of the whole process that a step changes for a while: counted, under a lock.

``doit -P thread`` runs steps in threads of one process. What each of them saved and put back
by itself, the second would save changed and put back changed, after the first had left.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


class WhileUsed:
    """A context manager for any number of threads: the first makes the change, the last undoes it.

    ``change`` makes the context manager that does both.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[None]]) -> None:
        self._change = change
        self._users = 0
        self._new_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._new_lock)

    def _new_lock(self) -> None:
        """In a forked child, too: the thread that held the lock is not there to give it back."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._made = self._change()
                self._made.__enter__()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._made.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


#: Python's own warnings, for all threads: one for all of us, since each undoes to what it found.
unwarned = WhileUsed(_no_warnings)
