"""doit's parallel processes end together: children of a killed ``doit``, and the other way.

doit's children wait for jobs on a queue whose writing end they hold themselves: when their
parent is killed they would wait for ever, and keep a vendor's worker alive. And doit waits
for the answer of a child for ever when that child was killed or crashed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from k210tasks.errors import K210Error

_PAUSE = 0.25  # seconds

_watching: int | None = None  # process whose parent is watched
_minding: int | None = None  # process whose children are watched
_registered = False


class ChildDied(K210Error):
    def __init__(self, how: str) -> None:
        super().__init__(
            f"one of doit's processes {how}, and doit would wait for it for ever: stopped. "
            "Nothing that was finished is lost; run doit again, without -n to see which step it is"
        )


# -- in a child ----------------------------------------------------------------------------


def in_children() -> None:
    """From now on, children forked by multiprocessing end with this process."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=end_with_parent)


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


# -- in the parent -------------------------------------------------------------------------


def mind_children() -> None:
    """Once there are children: stop, with a sentence, when one of them dies."""
    global _minding
    if _minding == os.getpid() or not multiprocessing.active_children():
        return
    _minding = os.getpid()
    threading.Thread(target=_mind, daemon=True, name="mind").start()


def _mind() -> None:
    children: dict[int, BaseProcess] = {}
    while True:
        children |= {p.sentinel: p for p in multiprocessing.active_children()}
        ended: Iterable[object] = wait(list(children), timeout=4 * _PAUSE) if children else ()
        for sentinel in ended:
            status = children.pop(sentinel).exitcode  # type: ignore[call-overload]
            if status:
                # doit ends its children itself on its way out: be gone with it then.
                time.sleep(8 * _PAUSE)
                sys.stderr.write(f"!! {ChildDied(how_ended(status))}\n")
                sys.stderr.flush()
                os._exit(2)
        if not children:
            time.sleep(_PAUSE)


def how_ended(status: int) -> str:
    """An exit code of multiprocessing in words."""
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
