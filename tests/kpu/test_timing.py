from __future__ import annotations

import pytest

from k210tasks.kpu.timing import layer_cycles, layer_seconds

#: Published for 3x3, 128 -> 128 channels, 16-bit weights, at 300 MHz: size, milliseconds.
MEASURED = [(4, 0.339), (16, 0.417), (32, 1.138), (64, 3.891), (128, 14.778), (256, 57.756)]


@pytest.mark.parametrize(("size", "milliseconds"), MEASURED)
def test_the_published_measurement_is_met_within_a_fifth(size: int, milliseconds: float) -> None:
    cycles = layer_cycles(128, 128, size, size)
    seconds = layer_seconds(cycles, 128 * 128 * 9 * 2, clock_hz=300_000_000)
    assert 1000 * seconds == pytest.approx(milliseconds, rel=0.2)


def test_cycles() -> None:
    assert layer_cycles(3, 16, 240, 320) == 3 * 16 * 5 * 240
    assert layer_cycles(64, 64, 30, 40, depthwise=True) == 64 * 30
    assert layer_cycles(128, 128, 4, 4) == 128 * 128
