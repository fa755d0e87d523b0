from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kpu.errors import FieldOutOfRange, IllegalLayer
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(
    st.integers(-(1 << 23), (1 << 23) - 1),
    st.integers(0, 15),
    st.integers(-(1 << 31), (1 << 31) - 1),
), min_size=1, max_size=9))  # fmt: skip
def test_batch_norm_round_trips(entries: list[tuple[int, int, int]]) -> None:
    mul, shift, add = zip(*entries, strict=True)
    bn = BatchNorm.of(mul, shift, add)
    data = bn.encode()
    assert len(data) == 8 * len(entries)
    back = BatchNorm.decode(data)
    assert (back.mul.tolist(), back.shift.tolist(), back.add.tolist()) == (
        list(mul), list(shift), list(add)
    )  # fmt: skip


def test_batch_norm_bits() -> None:
    word = int.from_bytes(BatchNorm.of([-2], [15], [-3]).encode(), "little")
    assert word == ((1 << 24) - 2) | ((1 << 32) - 3) << 24 | 15 << 56


SEGMENT = st.tuples(
    st.integers(LOWEST_START, (1 << 35) - 1),
    st.integers(-(1 << 15), (1 << 15) - 1),
    st.integers(0, 255),
    st.integers(0, 255),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(SEGMENT, min_size=16, max_size=16))
def test_activation_round_trips(segments: list[tuple[int, int, int, int]]) -> None:
    start, mul, shift, bias = (list(column) for column in zip(*segments, strict=True))
    table = Activation.of(sorted(start), mul, shift, bias)
    data = table.encode()
    assert len(data) == 144
    back = Activation.decode(data)
    assert back.start.tolist() == sorted(start)
    assert (back.mul.tolist(), back.shift.tolist(), back.bias.tolist()) == (mul, shift, bias)


def test_the_four_unused_bits_are_ignored() -> None:
    table = Activation.of([LOWEST_START, *range(15)], [3] * 16, [20] * 16, [9] * 16)
    dirty = bytearray(table.encode())
    for i in range(16):
        dirty[8 * i + 7] |= 0xF0
    assert Activation.decode(bytes(dirty)).encode() == table.encode()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchNorm.of([1 << 23], [0], [0]),
         "norm_mul is 8388608; the register holds -8388608..8388607"),
        (lambda: BatchNorm.of([1], [16], [0]), "norm_shift is 16; the register holds 0..15"),
        (lambda: BatchNorm.of([1, 2], [0], [0]),
         "batch norm is 2, 1 and 1 values; allowed: one length for all three"),
        (lambda: BatchNorm.of([0.5], [0], [0]), "norm_mul is of type float64; allowed: integers"),
        (lambda: Activation.of([0] * 15, [0] * 16, [0] * 16, [0] * 16),
         "x_start is 15 values; allowed: 16, one per segment"),
        (lambda: Activation.of([1, *[0] * 15], [0] * 16, [0] * 16, [0] * 16),
         "allowed: non-decreasing starts"),
    ],
)  # fmt: skip
def test_refusals(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((FieldOutOfRange, IllegalLayer)) as error:
        build()
    assert message in str(error.value)


def test_arrays_of_numpy_integers_are_taken() -> None:
    bn = BatchNorm.of(np.array([1, 2], np.int32), np.array([0, 1], np.uint8), np.array([5, 6]))
    assert len(bn) == 2
