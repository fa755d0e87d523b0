"""JSON files of our own with their checksum: what a disk or a person changed is not taken for it.

    {"sum":"…","format":2,…}

The checksum guards against accidents. It is no signature: who may write the file can write
another one, so what is read is still checked for what it says.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

_FIRST = b'{"sum":"'
_LENGTH = 32  # hex digits
#: bytes before whatever comes first in the object
HEAD = len(_FIRST) + _LENGTH + len(b'",')


def checked(value: dict[str, Any]) -> bytes:
    """A JSON object of at least one key, with the checksum of its text before it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    rest = text.encode("utf-8", "surrogatepass")[1:]
    return b'%b%b",%b' % (_FIRST, _sum(rest), rest)


def unchecked(data: bytes) -> bytes:
    """The JSON text of what :func:`checked` made. Raises ValueError for anything else."""
    head, rest = data[:HEAD], data[HEAD:]
    if head != b'%b%b",' % (_FIRST, _sum(rest)):
        raise ValueError("it is not what was written")
    return b"{" + rest


def _sum(rest: bytes) -> bytes:
    return blake2b(rest, digest_size=_LENGTH // 2).hexdigest().encode("ascii")
