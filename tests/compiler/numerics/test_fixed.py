"""Multipliers as integers: nearest, inside their bit fields, refused by name where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.compiler.numerics.fixed import (
    NORM_ADD_LIMIT,
    VALUE_LIMIT,
    FixedPointError,
    batch_norm,
    fixed,
)


@pytest.mark.parametrize(
    ("value", "bits", "max_shift", "mul", "shift"),
    [
        (0.0, 22, 15, 0, 0),
        (1.0, 22, 15, 32768, 15),
        (-1.0, 22, 15, -32768, 15),
        (0.3, 22, 15, 9830, 15),
        (100.0, 22, 15, 1638400, 14),
        (2097151.0, 22, 15, 2097151, 0),
        (1 / 1024, 16, 20, 1024, 20),
        (63.99999, 22, 15, 2097152 // 2, 14),
        (1e-9, 22, 15, 0, 15),
    ],
)
def test_fixed_against_a_table(value, bits: int, max_shift, mul, shift):
    assert tuple(int(a) for a in fixed(value, bits, max_shift)) == (mul, shift)


@settings(deadline=None, max_examples=60)
@given(st.floats(-2e6, 2e6), st.integers(10, 24), st.integers(0, 31))
def test_fixed_is_nearest_and_fits(value, bits: int, max_shift):
    top = 2 ** (bits - 1) - 1
    if abs(value) > top:
        return
    mul, shift = (int(a) for a in fixed(value, bits, max_shift))
    assert abs(mul) <= top
    assert 0 <= shift <= max_shift
    # Half a digit, or one where rounding up would have needed another bit.
    assert abs(mul * 2.0**-shift - value) <= 2.0**-shift * (1 if abs(mul) == top else 0.5)


@pytest.mark.parametrize("value", [2.0**21, float("inf"), float("nan")])
def test_what_does_not_fit_is_refused(value):
    with pytest.raises(FixedPointError) as error:
        fixed(value, 22, 15, "the multiplier of CONV_2D #3")
    shown = "inf" if not np.isfinite(value) else "2.09715e+06"
    assert str(error.value) == (
        f"the multiplier of CONV_2D #3 is {shown}, the hardware's limit is 2.09715e+06: "
        "use a larger scale on the output"
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(1e-7, 0.5), min_size=1, max_size=8),
    st.floats(-3000, 3000),
    st.floats(1e2, 1e7),
)
def test_batch_norm_computes_what_was_asked(multipliers, offset, acc_limit):
    m, b = np.array(multipliers), np.full(len(multipliers), offset)
    made = batch_norm(m, b, acc_limit=acc_limit)
    assert np.abs(made.mul).max() < 2**21
    assert np.abs(made.add).max() <= NORM_ADD_LIMIT
    assert made.shift.min() >= 0
    assert made.shift.max() <= 15
    for acc in (-acc_limit, -17.0, 0.0, 5.0, acc_limit):
        acc = round(acc)
        v = ((acc * made.mul) >> made.shift) + made.add
        assert np.abs(v).max() < VALUE_LIMIT
        exact = acc * m + b
        step = 2.0**-made.fraction
        # The multiplier's own rounding, then the floor and the offset's rounding.
        allowed = abs(acc) * 2.0**-16 * step + 1.6 * step + np.abs(exact) * 2.0**-19
        assert (np.abs(v * step - exact) <= allowed).all()


def test_batch_norm_refuses_what_no_fraction_fits() -> None:
    with pytest.raises(FixedPointError, match="the bias of DENSE #1 in output codes is 3e"):
        batch_norm(np.ones(1), np.array([3e9]), what="DENSE #1")
    with pytest.raises(FixedPointError, match="the largest value of DENSE #1 before its"):
        batch_norm(np.array([20.0]), np.zeros(1), acc_limit=2.0**31, what="DENSE #1")
    for bad in (np.inf, np.nan):
        with pytest.raises(FixedPointError, match=r"sum of DENSE #1 is inf.* are larger than a tr"):
            batch_norm(np.array([bad]), np.zeros(1), what="DENSE #1")
