"""Steps of single channels: as fine as what was seen allows, with room for what was not."""

from __future__ import annotations

import numpy as np
import pytest

from k210tasks.compiler.numerics.channel_scales import (
    CHANNEL_MARGIN,
    FINEST,
    TELLING,
    channel_scales,
    margin,
    telling_pixels,
)

HIGH = np.array([1.0, 0.5, 0.001], np.float32)


def test_a_channel_covers_what_was_seen_and_a_margin() -> None:
    pixels = 10_000
    scales = channel_scales(0 * HIGH, HIGH, (0.0, 1.0), 0, pixels, balance=1.0)
    assert scales[0] * 255 == pytest.approx(1.0)  # no channel gets more than the map
    assert scales[1] * 255 == pytest.approx(0.5 * margin(CHANNEL_MARGIN, pixels))
    assert scales[2] == pytest.approx(FINEST * scales[0])  # what hardly ever fired may fire yet


def test_the_margin_falls_with_what_was_seen_and_large_maps_tell_no_more() -> None:
    assert margin(CHANNEL_MARGIN, 100) > margin(CHANNEL_MARGIN, 1000) > 1
    assert telling_pixels(36, 20) == 720
    assert telling_pixels(320 * 240, 20) == 20 * TELLING


def test_both_signs_share_one_zero_point() -> None:
    low, high = np.array([-1.0, -0.2], np.float32), np.array([0.5, 0.5], np.float32)
    zero = 170
    scales = channel_scales(low, high, (-1.0, 0.5), zero, 10_000, balance=1.0)
    assert (-zero * scales <= low + 1e-6).all()
    assert ((255 - zero) * scales >= high - 1e-6).all()


def test_balance_lies_between_one_step_for_all_and_each_its_finest() -> None:
    def found(balance: float) -> float:
        return float(channel_scales(0 * HIGH, HIGH, (0.0, 1.0), 0, 10_000, balance=balance)[1])

    assert found(1.0) < found(0.7) < found(0.0) == pytest.approx(1 / 255)
