"""Rounding of layers that no sample shows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from k210tasks.compiler.numerics import layer, weights


@pytest.mark.parametrize("taps", [36, 800])
@pytest.mark.parametrize("depthwise", [False, True])
def test_what_is_rounded_off_adds_up_to_nothing_where_inputs_have_one_sign(
    taps: int, depthwise: bool
) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, (8, 9 if depthwise else taps))
    shape = w.shape if depthwise else w.shape[1:]
    inputs = layer.Inputs.unmeasured(np.full(shape, 127.5))
    nearest = weights.round_nearest(w, *weights.grid(w))
    ours = layer.round_layer(w, inputs)
    off, plain = (np.abs((r.real() - w).sum(1)).mean() for r in (ours, nearest))
    assert off < 0.5 * plain
    assert np.abs(ours.real() - w).max() < 4 * ours.scale.max()


def test_weights_that_are_codes_already_stay_what_they_are() -> None:
    codes = np.random.default_rng(1).integers(-127, 128, (4, 18))
    codes[:, 0] = 127
    w = codes * np.array([[0.1], [0.2], [0.3], [0.4]])
    ours = layer.round_layer(w, layer.Inputs.unmeasured(np.full(18, 127.5)))
    np.testing.assert_allclose(ours.real(), w, atol=1e-9)


def test_a_bound_that_float32_just_misses_is_a_bound() -> None:
    """A ReLU6 and a factor after it: float32 makes 6 * 1.746454 of it, a little less than the bound
    that float64 arithmetic has. Samples beyond it must not be pulled down to it."""
    high = 6 * 1.746454
    shown = np.float32(6) * np.float32(1.746454)
    for value in (shown, np.nextafter(shown, np.float32(0)), np.nextafter(shown, np.float32(99))):
        target = layer.Target(np.array([[float(value)]]), 0.0, high)
        assert target.residual(np.array([[15.0]])) == 0.0
        assert target.residual(np.array([[9.0]])) == pytest.approx(high - 9)
    below = layer.Target(np.array([[-float(shown)]]), -high, math.inf)
    assert below.residual(np.array([[-15.0]])) == 0.0
