"""Two steps in two threads of one process: neither leaves its change behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from contextlib import AbstractContextManager

import pytest

from k210tasks.process_wide import WhileUsed, unwarned

#: A model that another thread loads while ours is loading, and that is ready later.
OVERLAP = """
import sys, threading
from k210tasks.reference import litert

def quiet():
    made = litert._without_remarks
    return made() if callable(made) else made

inside, leave = threading.Event(), threading.Event()
def first():
    with quiet():
        inside.set()
        leave.wait()
thread = threading.Thread(target=first)
thread.start()
inside.wait()
with quiet():
    sys.stderr.write("INFO: a remark\\nsaid inside\\n")
    sys.stderr.flush()
    leave.set()
    thread.join()
sys.stderr.write("said after\\n")
"""


def test_stderr_is_there_after_two_threads_loaded_models() -> None:
    done = subprocess.run([sys.executable, "-c", OVERLAP], capture_output=True, text=True)
    assert done.stderr == "said inside\nsaid after\n"


def overlapping(made: AbstractContextManager[None]) -> None:
    """The other thread enters first and leaves first."""
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with made:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with made:
        leave.set()
        thread.join(10)


def test_warnings_are_heard_after_two_threads_read_pictures() -> None:
    before = list(warnings.filters)
    overlapping(unwarned)
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_the_turns_of_threads_are_as_before() -> None:
    from k210tasks.compiler.numerics.collect import SWITCH, _short_turns

    before = sys.getswitchinterval()
    with _short_turns:
        assert sys.getswitchinterval() == pytest.approx(SWITCH)
    overlapping(_short_turns)
    assert sys.getswitchinterval() == before


def test_a_change_that_fails_leaves_nothing_counted() -> None:
    tries = []

    def change() -> AbstractContextManager[None]:
        tries.append(1)
        raise OSError("no such descriptor")

    made = WhileUsed(change)
    for _ in range(2):
        with pytest.raises(OSError, match="no such descriptor"), made:
            raise AssertionError
    assert len(tries) == 2
