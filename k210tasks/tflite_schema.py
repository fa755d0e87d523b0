"""The classes of the ``tflite`` package by name, each imported when it is first asked for.

``import tflite`` imports one module for each of 190 tables and enumerations, of which a file
needs about twenty: 42 ms of processor time instead of 3 (CPython 3.11, numpy imported before),
a few percent of a whole compilation of a small model. So the package is
entered by a stand-in that has its path and nothing else, for as long as an import takes;
whoever imports the package itself, before or after, gets it whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

_lock = threading.RLock()
#: What the methods of ``Model`` and of its parts import by themselves.
_PARTS = ("Buffer", "BuiltinOperator", "Operator", "OperatorCode", "QuantizationParameters",
          "SubGraph", "Tensor")  # fmt: skip


def __getattr__(name: str) -> Any:
    """The class ``tflite.NAME.NAME``; AttributeError where there is none."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return _class(name)
    except ModuleNotFoundError as error:
        if error.name != f"tflite.{name}":
            raise
        raise AttributeError(f"tflite has no {name}") from error


@cache
def members(enumeration: str) -> dict[int, str]:
    """The names of an enumeration's values."""
    # A class of Python 3.13 has integers of its own, __firstlineno__ for one.
    names = vars(_class(enumeration)).items()
    return {v: k for k, v in names if isinstance(v, int) and not k.startswith("__")}


@cache
def _class(name: str) -> Any:
    with _lock, _stand_in():
        if name == "Model":
            for part in _PARTS:
                importlib.import_module(f"tflite.{part}")
        return getattr(importlib.import_module(f"tflite.{name}"), name)


@contextmanager
def _stand_in() -> Iterator[None]:
    folders = None if "tflite" in sys.modules else _folders()
    if folders is None:
        yield
        return
    package = ModuleType("tflite")
    package.__path__ = folders
    sys.modules["tflite"] = package
    try:
        yield
    finally:
        del sys.modules["tflite"]


@cache
def _folders() -> list[str] | None:
    """Where the package's modules lie."""
    spec = importlib.util.find_spec("tflite")
    return None if spec is None else list(spec.submodule_search_locations or []) or None
