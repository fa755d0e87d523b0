"""The base of every error a user is meant to read.

An error names what went wrong, where, the value, the limit and the remedy. Each
package keeps small subclasses, named after what went wrong, whose constructors
build the sentence; callers pass facts, not prose.
"""

from __future__ import annotations

import re

#: What a terminal obeys or what turns the order of letters round: names of tensors and files,
#: a vendor's words and YAML may hold them. Ends of lines and tabs are ours.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """``text`` with control characters as escapes, ``\\x1b`` for one."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class K210Error(Exception):
    """A failure with a message for the user: ``str(error)`` is the whole text to show."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(visible(arg) if isinstance(arg, str) else arg for arg in args))
