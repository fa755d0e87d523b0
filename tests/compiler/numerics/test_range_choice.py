"""From histograms to ranges, and channel steps."""

import numpy as np
import pytest

from k210tasks.compiler.numerics import channel_scales, range_choice
from k210tasks.compiler.numerics.histogram import Histogram


def histogram_of(values):
    h = Histogram()
    h.add(values.astype(np.float32), float(np.abs(values).max()))
    return h


def quantisation_error(values, low, high):
    scale, zero = range_choice.quantisation(low, high)
    q = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(np.mean(((q - zero) * scale - values) ** 2))


@pytest.fixture(scope="module")
def outliers():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50000)
    values[:3] = [40.0, -35.0, 50.0]
    return values


@pytest.mark.parametrize("method", range_choice.METHODS)
@pytest.mark.parametrize("kind", ["two sides", "relu", "negative", "constant", "zero"])
def test_every_method_gives_a_range_inside_the_extremes_with_zero(method: str, kind):
    x = np.random.default_rng(1).normal(size=20000)
    x = {"two sides": x, "relu": np.maximum(x, 0), "negative": -np.abs(x),
         "constant": np.full(10, 2.5), "zero": np.zeros(10)}[kind]  # fmt: skip
    h = histogram_of(x)
    low, high = range_choice.choose(method, h.counts, h.width, float(x.min()), float(x.max()))
    assert min(x.min(), 0) <= low <= 0 <= high <= max(x.max(), 0) + 1e-6
    assert high > low


def test_clipping_methods_drop_outliers_and_mse_has_the_least_error(outliers):
    h = histogram_of(outliers)
    ends = float(outliers.min()), float(outliers.max())
    found = {m: range_choice.choose(m, h.counts, h.width, *ends) for m in range_choice.METHODS}
    assert found["minmax"] == ends
    assert found["percentile"][1] < 6
    error = {m: quantisation_error(outliers, *found[m]) for m in range_choice.METHODS}
    assert error["mse"] == min(error.values())
    assert found["kl"][1] < ends[1]


def test_quantisation_has_an_exact_zero_and_covers_both_ends() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        low, high = -rng.uniform(0, 10), rng.uniform(0, 10)
        scale, zero = range_choice.quantisation(low, high)
        assert 0 <= zero <= 255
        assert -zero * scale <= low + 1e-9
        assert (255 - zero) * scale >= high - 1e-9
    assert range_choice.quantisation(0.0, 2.55) == (pytest.approx(0.01), 0)
    assert range_choice.quantisation(-2.55, 0.0) == (pytest.approx(0.01), 255)


def test_channel_scales_cover_what_was_seen_and_no_more_than_the_map() -> None:
    high = np.array([6.0, 3.0, 0.001, 0.0], np.float32)
    low = np.zeros(4, np.float32)
    step = channel_scales.channel_scales(low, high, (0.0, 6.0), 0, pixels=10**6)
    assert step[0] == pytest.approx(6 / 255)
    assert (step * 255 >= high - 1e-6).all()
    assert (step * 255 <= 6 + 1e-9).all()
    assert step[0] > step[1] > step[2] == step[3]


def test_two_sided_channels_share_the_zero_point() -> None:
    low, high = np.array([-1.0, -0.1], np.float32), np.array([3.0, 0.4], np.float32)
    step = channel_scales.channel_scales(low, high, (-1.0, 3.0), 64, pixels=10**6)
    assert ((255 - 64) * step >= high).all()
    assert (64 * step >= -low * 0.99).all()


def test_few_pixels_get_more_margin() -> None:
    assert channel_scales.margin(16, 100) == 2.6
    assert channel_scales.margin(16, 10000) == 1.16
