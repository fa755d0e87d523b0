"""Batch-norm entries and the activation table (docs/kpu-and-kmodel.md, sections 1.7, 1.8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from k210tasks.kpu.errors import FieldOutOfRange, IllegalLayer

BN_ENTRY_BYTES = 8
ACTIVATION_BYTES = 144
SEGMENTS = 16
#: Where segment 0 of every activation table starts: the lowest 36-bit value.
LOWEST_START = -(1 << 35)


def _signed(words: NDArray[np.uint64], lsb: int, width: int) -> NDArray[np.int64]:
    """A signed bit field of 64-bit words."""
    up = np.uint64(64 - lsb - width)
    return (words << up).view(np.int64) >> np.int64(64 - width)


def _column(name: str, values: ArrayLike, low: int, high: int) -> NDArray[np.int64]:
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "iub":
        raise IllegalLayer(name, f"of type {array.dtype}", "integers")
    array = array.astype(np.int64)
    for extreme in (array.min(initial=low), array.max(initial=low)):
        if not low <= extreme <= high:
            raise FieldOutOfRange(name, int(extreme), low, high)
    return array


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Per output channel: ``v = ((acc * mul) >> shift) + add``; three int64 arrays (OC,)."""

    mul: NDArray[np.int64]  # signed 24 bit
    shift: NDArray[np.int64]  # 0..15
    add: NDArray[np.int64]  # signed 32 bit

    @classmethod
    def of(cls, mul: ArrayLike, shift: ArrayLike, add: ArrayLike) -> BatchNorm:
        """From three sequences of one length, checked against their bit fields."""
        m = _column("norm_mul", mul, -(1 << 23), (1 << 23) - 1)
        s = _column("norm_shift", shift, 0, 15)
        a = _column("norm_add", add, -(1 << 31), (1 << 31) - 1)
        if not len(m) == len(s) == len(a):
            raise IllegalLayer(
                "batch norm", f"{len(m)}, {len(s)} and {len(a)} values", "one length for all three"
            )
        return cls(m, s, a)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> BatchNorm:
        """From 8 bytes per output channel."""
        words = np.frombuffer(data, "<u8").astype(np.uint64)
        shift = ((words >> np.uint64(56)) & np.uint64(15)).astype(np.int64)
        return cls(_signed(words, 0, 24), shift, _signed(words, 24, 32))

    def encode(self) -> bytes:
        """As 8 bytes per output channel, reserved bits zero."""
        word = (self.mul & 0xFFFFFF) | ((self.add & 0xFFFFFFFF) << 24) | (self.shift << 56)
        return word.astype("<i8").tobytes()

    def __len__(self) -> int:
        return len(self.mul)


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of the batch-normed value as 16 straight segments; four int64 arrays (16,).

    Segment ``i`` holds for values above ``start[i]``:
    ``clamp(round((v - start) * mul / 2**shift) + bias, 0, 255)``.
    """

    start: NDArray[np.int64]  # signed 36 bit, non-decreasing
    mul: NDArray[np.int64]  # signed 16 bit
    shift: NDArray[np.int64]  # 0..255
    bias: NDArray[np.int64]  # 0..255

    @classmethod
    def of(cls, start: ArrayLike, mul: ArrayLike, shift: ArrayLike, bias: ArrayLike) -> Activation:
        """From four sequences of 16 values, checked against their bit fields."""
        columns = (
            _column("x_start", start, LOWEST_START, (1 << 35) - 1),
            _column("y_mul", mul, -(1 << 15), (1 << 15) - 1),
            _column("shift_number", shift, 0, 255),
            _column("result_bias", bias, 0, 255),
        )
        names = ("x_start", "y_mul", "shift_number", "result_bias")
        for name, column in zip(names, columns, strict=True):
            if len(column) != SEGMENTS:
                raise IllegalLayer(name, f"{len(column)} values", f"{SEGMENTS}, one per segment")
        if np.any(np.diff(columns[0]) < 0):
            raise IllegalLayer("x_start", columns[0].tolist(), "non-decreasing starts")
        return cls(*columns)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Activation:
        """From 144 bytes; the four unused top bits of each word are ignored."""
        words = np.frombuffer(data, "<u8", SEGMENTS).astype(np.uint64)
        return cls(
            start=_signed(words, 24, 36),
            mul=_signed(words, 8, 16),
            shift=(words & np.uint64(0xFF)).astype(np.int64),
            bias=np.frombuffer(data, np.uint8, SEGMENTS, 8 * SEGMENTS).astype(np.int64),
        )

    def encode(self) -> bytes:
        """As 144 bytes, unused bits zero."""
        word = self.shift | ((self.mul & 0xFFFF) << 8) | ((self.start & 0xFFFFFFFFF) << 24)
        return word.astype("<i8").tobytes() + self.bias.astype(np.uint8).tobytes()
