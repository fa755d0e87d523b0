"""What verbs print, into whatever they print it: a pipe that closes, a full disk, ASCII alone."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import textwrap
from contextlib import AbstractContextManager
from typing import Any, TextIO

from k210tasks.errors import visible

#: what --json prints
Json = dict[str, Any]

#: What our own texts hold beyond ASCII, for an output that cannot write it.
_PLAIN = {
    "→": "->",
    "−": "-",
    "–": "-",
    "…": "...",
    "×": "x",
    "µ": "u",
    "\u202f": " ",
}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """One character at a time: as near as ASCII comes, a byte of a file's name as that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # what Python makes of a byte that is not in the encoding
        return bytes([code - 0xDC00]), error.start + 1
    escaped = character.encode("ascii", "backslashreplace").decode()
    return _PLAIN.get(character, escaped), error.start + 1


codecs.register_error("k210tasks.plain", _plain)


def take_any_character() -> None:
    """Let standard output write, in whatever encoding it has, every text there is."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="k210tasks.plain")  # type: ignore[union-attr]


def visibly() -> AbstractContextManager[object]:
    """Standard output with control characters as escapes: names of tensors may hold any."""
    if sys.stdout is None:
        return contextlib.nullcontext()
    seen: Any = _Visible(sys.stdout)
    return contextlib.redirect_stdout(seen)


class _Visible:
    """A text stream to which control characters are written as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def wrapped(text: str, indent: str = "  ") -> str:
    """At most 80 columns, later lines indented; paths and words are not broken."""
    return textwrap.fill(
        text, 80, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def flush() -> None:
    """Write what is still held back, so that a failure to do so is seen. Raises OSError."""
    if sys.stdout is not None:
        sys.stdout.flush()


def abandon() -> None:
    """Send what is left to nowhere: Python would try once more when it ends, and complain."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
