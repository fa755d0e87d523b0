"""Which kind of file this is, and what made it: only the first bytes are looked at."""

from __future__ import annotations

import struct
from typing import NamedTuple

from k210tasks.kmodel.errors import NotAKmodel, Truncated
from k210tasks.kmodel.v4 import IDENTIFIER

#: kmodel version -> what writes it.
PRODUCERS: dict[int, str] = {
    3: "nncase 0.1",
    4: "nncase 0.2",
    5: "nncase 1.x",
    6: "nncase 2.0",
    7: "nncase 2.1 or later",
}
#: First bytes of files that are given for a kmodel by mistake.
OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", "a TFLite model"),
    (0, b"PK\x03\x04", "a zip file, such as a kfpkg"),
    (0, b"\x89HDF\r\n", "an HDF5 file, such as a Keras model"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x7fELF", "a program"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\xfd7zXZ", "an xz archive"),
)


class Detected(NamedTuple):
    version: int
    producer: str

    @property
    def readable(self) -> bool:
        """Whether this package can parse, list and run it."""
        return self.version in (3, 4)


def detect(data: bytes | memoryview, base: int = 0) -> Detected:
    """Version and producer of the kmodel at ``base``; raises :class:`NotAKmodel`.

    Versions 5 and later are told from their header and not read any further.
    """
    head = bytes(memoryview(data)[base : base + 8])
    if len(head) < 8:
        raise Truncated(0, "header", 8, len(head))
    for at, magic, what in OTHERS:
        if head[at:].startswith(magic):
            raise NotAKmodel(0, "identifier", f"this is {what}, not a kmodel")
    first, second = struct.unpack("<2I", head)
    if first == IDENTIFIER and second >= 4:
        if second > 99:
            raise NotAKmodel(4, "version", f"{second} after the kmodel identifier; it is damaged")
        return Detected(second, PRODUCERS.get(second, "a later nncase"))
    if first == 3:
        return Detected(3, PRODUCERS[3])
    raise NotAKmodel(
        0,
        "identifier",
        f"0x{first:08x} begins no kmodel (version 3 begins with 3, later ones with LDMK)",
    )
