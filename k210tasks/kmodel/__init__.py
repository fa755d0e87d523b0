"""The kmodel file formats 3 and 4: parse, write, list.

``parse(data)`` gives a :class:`~k210tasks.kmodel.v3.KmodelV3` or
:class:`~k210tasks.kmodel.v4.KmodelV4` of plain dataclasses; ``write(model)`` gives the bytes
back. Reference: docs/kpu-and-kmodel.md, sections 2 and 3.
"""

from __future__ import annotations

from k210tasks.kmodel import v3, v4
from k210tasks.kmodel.detect import Detected, detect
from k210tasks.kmodel.errors import KmodelError, NotAKmodel, TooMuch, Truncated
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4

__all__ = [
    "Detected",
    "KmodelError",
    "KmodelV3",
    "KmodelV4",
    "NotAKmodel",
    "TooMuch",
    "Truncated",
    "detect",
    "parse",
    "write",
]


def parse(data: bytes | memoryview, base: int = 0) -> KmodelV3 | KmodelV4:
    """The model that starts at byte ``base`` of ``data``.

    Arrays of the result are read-only views of ``data``. A missing final padding (up to 7
    bytes) and trailing bytes are accepted and counted. Raises :class:`KmodelError` naming
    offset (from ``base``) and field.
    """
    if not 0 <= base <= len(data):
        raise KmodelError(base, "base offset", f"outside the file's {len(data)} bytes")
    found = detect(data, base)
    view = memoryview(data)[base:]
    if found.version == 3:
        return v3.parse(view)
    if found.version == 4:
        return v4.parse(view)
    raise NotAKmodel(
        4,
        "version",
        f"{found.version}, written by {found.producer}; only versions 3 and 4 can be read here",
    )


def write(model: KmodelV3 | KmodelV4) -> bytes:
    """The bytes of a model; ``write(parse(data))`` is ``data`` but for undefined bits."""
    return model.to_bytes()
