"""Children of a killed ``doit`` end too.

doit's parallel children wait for jobs on a queue whose writing end they hold themselves:
when their parent is killed they would wait for ever, and keep a vendor's worker alive.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

_PAUSE = 0.25  # seconds

_watching: int | None = None


def end_with_parent() -> None:
    """In a child process of multiprocessing: exit soon after the parent has died."""
    global _watching
    if _watching == os.getpid():
        return
    _watching = os.getpid()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="watch").start()


def _watch(parent: int) -> None:
    time.sleep(_PAUSE)
    # A process the user forked himself is none of our business.
    process = multiprocessing.parent_process()
    if process is None:
        return
    while process.is_alive() and os.getppid() == parent:
        time.sleep(_PAUSE)
    os._exit(143)


def in_children() -> None:
    """From now on, children forked by multiprocessing end with this process."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=end_with_parent)


_registered = False
