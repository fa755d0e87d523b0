"""doit's parallel processes end together: children of a killed ``doit``, and the other way.

doit's children wait for jobs on a queue whose writing end they hold themselves: when their
parent is killed they would wait for ever, and keep a vendor's worker alive. And doit waits
for the answer of a child for ever when that child was killed or crashed.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
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


def together() -> None:
    """From now on, this process and the children multiprocessing forks end together."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=end_with_parent, after_in_parent=mind_children)


def before_task() -> None:
    """A task is about to run, perhaps in a child that no hook of ``fork`` tells of."""
    # Asking for the method would choose it, and the user may still do so: the first is the default.
    method = multiprocessing.get_start_method(allow_none=True)
    if (method or multiprocessing.get_all_start_methods()[0]) != "fork":
        mind_children()


def in_task() -> None:
    """A task runs: where this is a child that was not forked, nobody watches its parent yet."""
    if multiprocessing.parent_process() is not None:
        end_with_parent()


def arrived() -> None:
    """Something of ours was unpickled, perhaps in a child that was spawned and may never get a
    task."""
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        end_with_parent()


# -- in a child ----------------------------------------------------------------------------


def end_with_parent() -> None:
    """In a child process of multiprocessing: exit soon after the parent has died."""
    global _watching
    if _watching == os.getpid():
        return
    _watching = os.getpid()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="watch").start()


def _watch(parent: int) -> None:
    begun = multiprocessing.process.current_process()
    time.sleep(_PAUSE)
    while getattr(begun, "_inheriting", False) and os.getppid() == parent:
        time.sleep(_PAUSE)  # a spawned child that still unpickles what it is given
    # A process the user forked himself is none of our business.
    process = multiprocessing.parent_process()
    if process is None:
        return
    while process.is_alive() and os.getppid() == parent:
        time.sleep(_PAUSE)
    os._exit(143)


# -- in the parent -------------------------------------------------------------------------


def mind_children() -> None:
    """Stop, with a sentence, when a child of multiprocessing dies."""
    global _minding
    if _minding == os.getpid():
        return
    _minding = os.getpid()
    threading.Thread(target=_mind, daemon=True, name="mind").start()


def _mind() -> None:
    from multiprocessing.connection import wait

    children: dict[int, BaseProcess] = {}
    while True:
        children |= {p.sentinel: p for p in _children()}
        ended: Iterable[object] = wait(list(children), timeout=_PAUSE) if children else ()
        for sentinel in ended:
            child = children.pop(sentinel)  # type: ignore[call-overload]
            child.join(10)  # its pipe closes a little before its status can be had
            status = child.exitcode
            if status and _doit_waits():
                # doit ends its children itself on its way out: be gone with it then.
                time.sleep(8 * _PAUSE)
                sys.stderr.write(f"!! {ChildDied(how_ended(status))}\n")
                sys.stderr.flush()
                os._exit(2)
        if not children:
            time.sleep(_PAUSE)


def _children() -> Iterable[BaseProcess]:
    """Also those that have died already, which ``active_children()`` would silently drop."""
    known: set[BaseProcess] | None = getattr(multiprocessing.process, "_children", None)
    return multiprocessing.active_children() if known is None else set(known)


def _doit_waits() -> bool:
    """Whether this process is a doit that waits for children: a user's own may die as they like."""
    from doit.runner import MRunner

    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code is MRunner.run_tasks.__code__:
            return multiprocessing.parent_process() is None
        frame = frame.f_back
    return False


def how_ended(status: int) -> str:
    """An exit code of multiprocessing in words."""
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
