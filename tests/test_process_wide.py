"""Two steps in two threads of one process: neither leaves its change behind."""

from __future__ import annotations

import sys
import threading
import warnings
from contextlib import AbstractContextManager

import pytest

from k210tasks.process_wide import WhileUsed, unwarned


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
