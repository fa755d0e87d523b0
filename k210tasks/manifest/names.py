"""Which names models and firmware images may have.

A name becomes part of file names, task names and log lines, on every system; two names
that one of them would take for the same are one name.
"""

from __future__ import annotations

import unicodedata

LENGTH = 64
#: A name of that many bytes still leaves room for suffixes in a file name of 255.
BYTES = 200

RESERVED = frozenset({"report"})
_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)))
)

ALLOWED = (
    f"allowed: letters and digits of any script, '.', '_' and '-', at most {LENGTH} characters, "
    "beginning with a letter, a digit or '_'"
)


def folded(name: str) -> str:
    """What two names share when some file system takes them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def why_not(name: str) -> str | None:
    """Why this cannot be a name; None where it can."""
    if not name:
        return "is empty"
    bad = "".join(dict.fromkeys(c for c in name if not _good(c)))
    if bad:
        words = {" ": "a space", "\t": "a tab"}
        shown = " ".join(words.get(c) or (c if c.isprintable() else f"U+{ord(c):04X}") for c in bad)
        also = " (a task name cannot hold =)" if "=" in bad else ""
        return f"may not hold {shown}{also}"
    if name[0] in ".-" or unicodedata.category(name[0])[0] == "M":
        return f"may not begin with {name[0]}"
    if name[-1] == ".":
        return "may not end with ."
    if len(name) > LENGTH:
        return f"has {len(name)} characters, more than {LENGTH}"
    if len(name.encode()) > BYTES:
        return f"has {len(name.encode())} bytes as UTF-8, more than {BYTES}"
    composed = unicodedata.normalize("NFC", name)
    if composed != name:
        return f"is not in the Unicode form NFC; write it with composed letters: {composed}"
    if folded(name) in RESERVED:
        return "is reserved for the report"
    if folded(name).partition(".")[0] in _DEVICES:
        return "is the name of a device on Windows"
    return None


def _good(char: str) -> bool:
    return char in "._-" or unicodedata.category(char) in (
        ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Mn", "Mc")
    )
