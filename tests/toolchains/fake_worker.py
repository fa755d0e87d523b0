"""A worker whose operations do what goes wrong with vendors' code. Standard library only."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

from serve import Refused  # type: ignore[import-not-found]

if "FAKE_SLOW_IMPORT" in os.environ:  # as a large package that never gives the lock back
    Path(os.environ["FAKE_SLOW_IMPORT"]).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def hello(say):
    return {"version": "1"}


def pid(say):
    return {"pid": os.getpid()}


def add(say, a, b):
    for step in range(3):
        say(step + 1, 3, "adding")
    print("python prints")
    os.write(1, b"C prints\n")
    return {"sum": a + b}


def refuse(say):
    raise Refused("the graph has no input x")


def fail(say):
    print("Fatal: KPU ran out of memory.")
    raise RuntimeError("compile failed")


def crash(say, number):
    os.write(2, b"free(): invalid pointer\n")
    os.kill(os.getpid(), number)


def leave(say, code):
    os.write(2, b"giving up\n")
    os._exit(code)


def babble(say):
    # as a vendor's code would that found the protocol's own descriptor
    for fd in range(3, 20):
        try:
            os.write(fd, b"loading 100 %\n")
        except OSError:
            continue
    time.sleep(60)


def hold(say, sign):
    """Sleep in C without ever giving the interpreter lock back."""
    Path(sign).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


OPERATIONS = {f.__name__: f for f in (hello, pid, add, refuse, fail, crash, leave, babble, hold)}
