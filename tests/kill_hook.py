"""Ends the process by SIGKILL at one of its changes to the file system: the one numbered
``K210_KILL_AT`` of those that this module has seen, counted in the file ``K210_KILL_COUNT``."""

from __future__ import annotations

import builtins
import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

_AT = int(os.environ.get("K210_KILL_AT", "0"))
_COUNT = os.environ.get("K210_KILL_COUNT", "")


def _moment() -> None:
    """One byte a moment, so that all processes of a run count together."""
    with _open(_COUNT, "ab", 0) as file:
        file.write(b".")
        if file.tell() == _AT:
            os.kill(os.getpid(), signal.SIGKILL)


def _before(function: Callable[..., Any]) -> Callable[..., Any]:
    def killed(*args: Any, **named: Any) -> Any:
        _moment()
        return function(*args, **named)

    return killed


_open = builtins.open


def _opened(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
    """A file that is made or written is a moment before and after it is opened."""
    if not set(mode) & set("wxa+"):
        return _open(file, mode, *args, **named)
    _moment()
    made = _open(file, mode, *args, **named)
    _moment()
    return made


def install() -> None:
    if _AT:
        for name in ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "chmod"):
            setattr(os, name, _before(getattr(os, name)))
        shutil.rmtree = _before(shutil.rmtree)  # type: ignore[assignment]
        os.write = _before(os.write)
        builtins.open = _opened
