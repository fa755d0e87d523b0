"""Estimated run time of KPU layers (docs/kpu-and-kmodel.md, section 1.10).

A model fitted to one published measurement, not a datasheet: say "estimated" wherever its
numbers are shown. CPU layers, uploads and copies to main memory come on top.
"""

from __future__ import annotations

from k210tasks.kpu.layout import ROW_BYTES, layout

CLOCK_HZ = 400_000_000
WEIGHT_BYTES_PER_SECOND = 1_050_000_000


def pixel_rows(height: int, width: int) -> int:
    """64-pixel rows the KPU works through for one channel of an H x W map."""
    if width > 32:
        return layout(width).rows_per_line * height
    return -(-width * height // ROW_BYTES)


def layer_cycles(
    in_channels: int, out_channels: int, height: int, width: int, *, depthwise: bool = False
) -> int:
    """Clock cycles of the arithmetic of one layer, whatever its kernel size."""
    pairs = out_channels if depthwise else in_channels * out_channels
    return pairs * pixel_rows(height, width)


def layer_seconds(cycles: int, weight_bytes: int, clock_hz: int = CLOCK_HZ) -> float:
    """Estimated seconds of one layer: its arithmetic, then its weight load, not overlapped."""
    return cycles / clock_hz + weight_bytes / WEIGHT_BYTES_PER_SECOND
