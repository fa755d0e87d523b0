"""LiteRT's ``INFO:`` lines, for which it has no switch, kept off the terminal.

Its native code writes them to the C library's ``stderr``. That variable, and no file descriptor,
points elsewhere while a model is loaded: what Python, other threads and programs started meanwhile
say goes where it always goes, and nothing can be lost with a process that is killed. Whatever else
the C library was given meanwhile is passed on.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from k210tasks.process_wide import WhileUsed

_REMARK = b"INFO: "


class _Kept:
    """A stream in memory in place of ``stderr``; never closed, since a thread may be about to
    write to it."""

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None)
        self._c.open_memstream.restype = ctypes.c_void_p
        self._text, self._size = ctypes.c_void_p(), ctypes.c_size_t()
        stream = self._c.open_memstream(ctypes.byref(self._text), ctypes.byref(self._size))
        if not stream:
            raise OSError("no memory for a stream")
        self._stream = ctypes.c_void_p(stream)
        self._slot = ctypes.c_void_p.in_dll(self._c, "stderr")
        self._own = self._slot.value
        self._told = 0  # bytes that were passed on
        os.register_at_fork(after_in_child=self.back)

    def instead(self) -> None:
        self._slot.value = self._stream.value

    def back(self) -> None:
        self._slot.value = self._own

    def tell(self) -> None:
        """Pass on what is no remark."""
        self._c.fflush(self._stream)
        text = ctypes.string_at(self._text.value or 0, self._size.value) if self._text else b""
        new, self._told = text[self._told :], len(text)
        rest = b"".join(line for line in new.splitlines(True) if not line.startswith(_REMARK))
        if rest:
            with suppress(OSError):
                os.write(2, rest)


def _kept() -> _Kept | None:
    """None where the C library is not known to have such a variable that may be changed."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return None
    try:
        return _Kept()
    except (OSError, ValueError, AttributeError):
        return None


_stream: list[_Kept | None] = []


@contextmanager
def _elsewhere() -> Iterator[None]:
    if not _stream:
        _stream.append(_kept())
    kept = _stream[0]
    if kept is None:
        yield
        return
    kept.instead()
    try:
        yield
    finally:
        kept.back()
        kept.tell()


#: while a model is loaded, by any number of threads
unremarked = WhileUsed(_elsewhere)
