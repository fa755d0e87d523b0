"""LiteRT's remarks stay off the terminal, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k210tasks.reference.remarks import _kept

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(_kept() is None, reason="the C library is not glibc")

#: Two threads load models, the first to begin is the last to end; Python, another program and the
#: C library speak meanwhile and afterwards, and a child is forked.
OVERLAP = """
import ctypes, os, subprocess, sys, threading
from k210tasks.reference.remarks import unremarked

c = ctypes.CDLL(None)
slot = ctypes.c_void_p.in_dll(c, "stderr")
def says(text):
    c.fputs(text, ctypes.c_void_p(slot.value))
    c.fflush(ctypes.c_void_p(slot.value))

inside, leave = threading.Event(), threading.Event()
def first():
    with unremarked:
        inside.set()
        leave.wait()
thread = threading.Thread(target=first)
thread.start()
inside.wait()
with unremarked:
    says(b"INFO: a remark\\n")
    says(b"ERROR: told\\n")
    sys.stderr.write("Python\\n")
    sys.stderr.flush()
    subprocess.run([sys.executable, "-c", "import sys; print('a program', file=sys.stderr)"])
    pid = os.fork()
    if not pid:
        says(b"INFO: of a child\\n")
        os._exit(0)
    os.waitpid(pid, 0)
    leave.set()
    thread.join()
says(b"INFO: afterwards\\n")
with unremarked:
    says(b"once more\\n")
"""

LOAD = """
import numpy as np
from k210tasks.reference.litert import FloatModel
from tests.steps.tiny import dense
FloatModel(dense(np.ones((2, 48)), [1, 4, 4, 3])).run(np.ones((1, 4, 4, 3), np.float32))
"""


def said(program: str) -> str:
    done = subprocess.run(
        # Since 3.12 Python itself warns of a fork beside threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_two_threads_do_loses_nothing() -> None:
    wanted = "Python\na program\nINFO: of a child\nERROR: told\nINFO: afterwards\nonce more\n"
    assert said(OVERLAP) == wanted


def test_a_model_is_loaded_without_a_word() -> None:
    assert said(LOAD) == ""
