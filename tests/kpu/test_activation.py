from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kpu.activation import Epilogue, activate_exact, live_segments, round_shift
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm
from tests.kpu import slow

PARKED = [(1 << 35) - 20 + i for i in range(14)]


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 50), 1 << 50), st.integers(0, 80))
def test_round_shift_equals_the_definition(a: int, shift: int) -> None:
    expected = slow.round_shift(a, shift)
    if shift > 62:  # beyond the width of the value: its sign, or nothing, is left
        expected = -2 if a < 0 else 0
    assert int(round_shift(np.array([a], np.int64), np.array([shift], np.int64))[0]) == expected


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-(1 << 27), 1 << 27), min_size=1, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_the_fast_way_equals_the_exact_one(acc: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    bn = BatchNorm.of(
        [int(rng.integers(-(1 << 21), 1 << 21))], [15], [int(rng.integers(-999, 999))]
    )
    start = np.sort(np.r_[LOWEST_START, rng.integers(-(1 << 33), 1 << 33, 15)])
    mul = rng.integers(-3000, 3000, 16)
    table = Activation.of(start, mul, rng.integers(0, 30, 16), rng.integers(0, 256, 16))
    values = np.array([acc], np.int64)
    low, high = values.min(1), values.max(1)
    fast = Epilogue(bn, table, low, high, np.array([5]))
    expected = activate_exact(values + 5, bn, table)
    assert fast.exact_in_float
    np.testing.assert_array_equal(fast(values.astype(np.float64)), expected)
    for value, code in zip(values[0] + 5, expected[0], strict=True):
        v = ((int(value) * int(bn.mul[0])) >> 15) + int(bn.add[0])
        assert slow.activate(v, table) == code


def line(start: int, bias: int) -> Activation:
    return Activation.of(
        [LOWEST_START, start, *PARKED], [0, 9, *[0] * 14], [4] * 16, [0, bias, *[255] * 14]
    )


@pytest.mark.parametrize(
    ("table", "live"),
    [
        (line(0, 0), [1]),  # the zero segment is the rising one carried on and clamped
        (line(0, 1), [0, 1]),  # here it is not
        (line(1000, 0), [0]),  # out of reach
    ],
)
def test_segments_that_matter(table: Activation, live: list[int]) -> None:
    assert live_segments(table, -500, 500) == live


def test_of_equal_starts_the_last_is_meant() -> None:
    table = Activation.of(
        [LOWEST_START, 0, 0, *[*PARKED][:13]], [0, 5, 7, *[0] * 13], [0] * 16, [0, 9, 3, *[0] * 13]
    )
    assert live_segments(table, 1, 10) == [2]


def test_values_float64_cannot_hold_go_the_exact_way() -> None:
    bn = BatchNorm.of([(1 << 23) - 1], [15], [0])
    reach = np.array([1 << 31])
    assert not Epilogue(bn, line(0, 0), -reach, reach, np.array([0])).exact_in_float
    small = np.array([1 << 20])
    assert Epilogue(bn, line(0, 0), -small, small, np.array([0])).exact_in_float
