"""Damaged or foreign files pass through; only reserved bits ever change."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.toolchains.workers.tidy import tidy


def kmodel(data: bytes, ranges: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> bytes:
    """One module k210 whose .text holds one convolution with these ranges of .rdata."""
    (w, ws), (b, bs), (a, size) = ranges
    text = b"\x02\0\0\0" + b"\x02\x04\0\0" + struct.pack("<II", w, ws)
    text += b"\x02\x07\0\0" + struct.pack("<II", b, bs)
    text += b"\x02\x04\0\0" + struct.pack("<II", a, size)
    module = b""
    for name, body in ((b".rdata", data), (b".text", text)):
        module += struct.pack("<16sIIII", name, 0, 8, len(body), 0) + bytes(8) + body
    header = struct.pack("<16sIIII", b"k210", 1, 48, 48 + len(module), 0).ljust(48, b"\0")
    return struct.pack("<4s7I", b"LDMK", 5, 32, 0, 256, 1, 0, 0) + header + module


def test_reserved_bits_become_zero() -> None:
    data = bytes([0xFF] * 400)
    weights, norm, activation = (0, 40), (40, 80), (256, 144)
    before = kmodel(data, (weights, norm, activation))
    after = tidy(before)
    body = before.index(data)
    changed = {k - body: after[k] for k in range(len(before)) if after[k] != before[k]}
    entries = [40 + 8 * n + 7 for n in range(10)] + [256 + 8 * n + 7 for n in range(16)]
    assert changed == dict.fromkeys(entries, 0x0F)
    assert tidy(after) == after


def test_ranges_outside_their_section_are_left_alone() -> None:
    data = bytes([0xFF] * 100)
    before = kmodel(data, ((0, 40), (96, 80), (256, 144)))
    assert tidy(before) == before


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 700), st.binary(max_size=8))
def test_any_damage_passes_through(tail: bytes, at: int, patch: bytes) -> None:
    whole = kmodel(bytes([0xFF] * 400), ((0, 40), (40, 80), (256, 144)))
    damaged = whole[:at] + patch + whole[at + len(patch) :]
    for data in (damaged, whole[:at], whole + tail, b"LDMK\x05\0\0\0" + tail, tail):
        result = tidy(data)
        assert len(result) == len(data)
        assert all(x == y or x & 0x0F == y for x, y in zip(data, result, strict=True))
