"""Makes nncase's kmodel 5 depend on nothing but its inputs.

nncase 1.9 leaves the four reserved bits of each batch-norm and activation entry of the KPU
as its stack happened to be, so that two runs differ by a few bits that no hardware reads.
Here they become 0, as they are in kmodel 3 and 4.

A kmodel 5, as far as it matters (all little endian): a header of 32 bytes, then modules:
type (16 bytes), version, header size, size, … ; in them sections: name (16 bytes), flags,
start of the body after this header, size of the body, reserved. In ``.text`` of the module
``k210`` each KPU convolution names three ranges of ``.rdata``, one after the other: weights
(bytes), batch norm (8 bytes an output channel), activation (16 entries of 8 bytes and 16
bytes of bias). A range is: place (2 = .rdata), type (4 = u8, 7 = u64), 0, start, size.
"""

from __future__ import annotations

import re
import struct

_MODULE = re.compile(rb"k210\0{12}")
_CONVOLUTION = re.compile(
    rb"\x02\x04\0\0(?:.{8})\x02\x07\0\0(?P<bn>.{8})\x02\x04\0\0(?P<act>.{4}\x90\0\0\0)", re.DOTALL
)
_ENTRY = 8
_ACTIVATION_ENTRIES = 16 * _ENTRY


def tidy(kmodel: bytes) -> bytes:
    """The same kmodel with its reserved bits 0; unchanged where it is not understood."""
    result = bytearray(kmodel)
    if len(kmodel) < 32 or kmodel[:8] != b"LDMK\x05\0\0\0":
        return kmodel
    start = struct.unpack_from("<I", kmodel, 8)[0]
    for _ in range(struct.unpack_from("<I", kmodel, 20)[0]):
        if start + 28 > len(kmodel):
            return kmodel
        size = struct.unpack_from("<I", kmodel, start + 24)[0]
        if size < 28 or start + size > len(kmodel):
            return kmodel
        if _MODULE.match(kmodel, start):
            _tidy_module(kmodel, start, start + size, result)
        start += size
    return bytes(result)


def _tidy_module(kmodel: bytes, start: int, end: int, result: bytearray) -> None:
    data = _section(kmodel, b".rdata", start, end)
    text = _section(kmodel, b".text", start, end)
    if data is None or text is None:
        return
    for found in _CONVOLUTION.finditer(kmodel, text[0], text[1]):
        if (found.start() - text[0]) % 4:
            continue
        for name, entries in (("bn", None), ("act", _ACTIVATION_ENTRIES)):
            offset, size = struct.unpack("<II", found.group(name))
            size = size if entries is None else entries
            if size % _ENTRY or data[0] + offset + size > data[1]:
                continue
            for last in range(data[0] + offset + _ENTRY - 1, data[0] + offset + size, _ENTRY):
                result[last] &= 0x0F


def _section(kmodel: bytes, name: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the body of a section begins and ends."""
    header = kmodel.find(name.ljust(16, b"\0"), start, end)
    if header < 0 or header + 32 > end:
        return None
    skip, size = struct.unpack_from("<II", kmodel, header + 20)
    body = header + 32 + skip
    return (body, body + size) if body + size <= end else None
