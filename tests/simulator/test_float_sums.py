"""Fused multiply-add against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.simulator.float_sums import dot, fused_multiply_add, to_codes

F = np.float32


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to an exact value, ties to even."""
    guess = F(float(value))
    around = [np.nextafter(guess, F(-np.inf)), guess, np.nextafter(guess, F(np.inf))]
    finite = [x for x in around if np.isfinite(x)]
    return min(finite, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.int32)) & 1))


def exact(a: F, b: F, c: F) -> np.float32:
    return nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def awkward(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Floats of few and of many bits, large and subnormal ones among them."""
    mantissa = rng.integers(1, 1 << 24, count)
    mantissa = np.where(rng.random(count) < 0.5, mantissa & 0xFFF, mantissa)
    exponent = rng.integers(-150, 40, count)
    exponent = np.where(rng.random(count) < 0.6, rng.integers(-30, 10, count), exponent)
    return (np.ldexp(mantissa.astype(np.float64), exponent) * rng.choice([-1, 1], count)).astype(F)


def test_a_fused_multiply_add_is_rounded_once() -> None:
    rng = np.random.default_rng(5)
    a, b, c = (awkward(rng, 4000) for _ in range(3))
    got = fused_multiply_add(a, b, c)
    for x, y, z, r in zip(a, b, c, got, strict=True):
        assert r == exact(x, y, z), (x, y, z)


def test_sums_that_a_float64_rounds_to_a_tie_are_rounded_right() -> None:
    """(1 + 2**-12)**2 lies midway between two float32; what float64 does not see decides."""
    up = fused_multiply_add(F(1) + F(2.0**-12), F(1) + F(2.0**-12), F(2.0**-80))
    down = fused_multiply_add(F(1) + F(2.0**-12), F(1) + F(2.0**-12), F(-(2.0**-80)))
    assert up == F(1) + F(2.0**-11) + F(2.0**-23)
    assert down == F(1) + F(2.0**-11)


def test_infinities_and_nan_pass() -> None:
    inf, nan = F(np.inf), F(np.nan)
    with np.errstate(all="ignore"):
        assert fused_multiply_add(inf, F(2), F(1)) == inf
        assert fused_multiply_add(F(3e38), F(3e38), F(-1)) == inf
        assert np.isnan(fused_multiply_add(inf, F(0), F(1)))
        assert np.isnan(fused_multiply_add(F(1), F(1), nan))


def test_dense_sums_go_in_order_and_in_eights() -> None:
    rng = np.random.default_rng(6)
    rows, x = awkward(rng, 5 * 16).reshape(5, 16), awkward(rng, 16)
    in_order = dot(RUNTIMES["sdk_develop"], rows, x)
    in_eights = dot(RUNTIMES["maixpy"], rows, x, pairs=True)
    apart = dot(RUNTIMES["sdk_master"], rows, x)
    for row, a, b, c in zip(rows, in_order, in_eights, apart, strict=True):
        chain = eights = separate = F(0)
        for i, (w, v) in enumerate(zip(row, x, strict=True)):
            chain = exact(w, v, chain)
            separate = F(separate + F(w * v))
            if i % 8 == 1:
                eights = F(eights + exact(row[i - 1], x[i - 1], F(w * v)))
            elif i % 8:
                eights = exact(w, v, eights)
        assert (a, b, c) == (chain, eights, separate)


def test_what_no_integer_holds() -> None:
    x = np.array([np.nan, 3e9, -3e9, 255.5, -0.4], np.float32)
    with np.errstate(all="ignore"):
        assert to_codes(x, RUNTIMES["host"]).tolist() == [0, 255, 0, 255, 0]
        assert to_codes(x, RUNTIMES["maixpy"]).tolist() == [255, 255, 0, 255, 0]
        assert to_codes(x, RUNTIMES["sdk_master"]).tolist() == [0, 0, 0, 255, 0]
