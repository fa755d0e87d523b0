"""Keeps numpy's OpenBLAS to one thread while many small matrix products run.

A layer's products are blocks that fit the cache. Split over threads they spend their time
waiting for each other: a run then takes several times as long, and worse on a busy machine.
Where numpy uses another library, or none that can be told, nothing happens.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

#: The extension module that is linked to the library, by numpy version.
_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")
#: Name patterns of OpenBLAS builds: the bundled ones of wheels first, then a system's.
_NAMES = (
    "scipy_openblas_{}_num_threads64_",
    "openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads",
)

_lock = threading.Lock()
_users = 0
_before = 0


@cache
def _controls() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """Functions that get and set the number of threads; None: not OpenBLAS."""
    for module in _MODULES:
        try:
            library = ctypes.CDLL(importlib.import_module(module).__file__)
        except (ImportError, OSError, TypeError):
            continue
        for name in _NAMES:
            try:
                return library[name.format("get")], library[name.format("set")]
            except AttributeError:
                continue
    return None


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrix products inside run in the calling thread; may be nested, and used by threads."""
    global _users, _before
    controls = _controls()
    if controls is None:
        yield
        return
    get, set_to = controls
    with _lock:
        if _users == 0:
            _before = get()
            set_to(1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                set_to(_before)
