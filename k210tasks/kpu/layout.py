"""How feature maps lie in the 2 MiB of KPU RAM (docs/kpu-and-kmodel.md, section 1.3).

A row is 64 bytes. Narrow maps put several channels side by side in one row, wide ones
give every line of a channel its own rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

ROW_BYTES = 64
KPU_RAM_ROWS = 32768
KPU_RAM_BYTES = KPU_RAM_ROWS * ROW_BYTES


class Layout(NamedTuple):
    """How maps of one width are laid out."""

    channels_per_group: int  # channels that share a row
    rows_per_line: int
    pitch: int  # bytes between the channels inside a row


def layout(width: int) -> Layout:
    """The layout of maps ``width`` pixels wide; it depends on nothing else."""
    if width <= 16:
        return Layout(4, 1, 16)
    if width <= 32:
        return Layout(2, 1, 32)
    return Layout(1, -(-width // ROW_BYTES), ROW_BYTES)


def map_rows(channels: int, height: int, width: int) -> int:
    """KPU RAM rows one C,H,W map takes."""
    group, lines, _ = layout(width)
    return lines * height * -(-channels // min(channels, group))


def map_bytes(channels: int, height: int, width: int) -> int:
    """Bytes of KPU RAM one C,H,W map takes, unused tails of rows included."""
    return map_rows(channels, height, width) * ROW_BYTES


def map_view(
    ram: NDArray[np.uint8], row: int, channels: int, height: int, width: int
) -> NDArray[np.uint8]:
    """A view of the map that starts at ``row`` of ``ram``: uint8 (groups, g, H, W).

    ``groups * g`` may exceed ``channels``: the surplus is the unused part of the last
    group's rows. The caller has checked that the map lies inside ``ram``.
    """
    group, lines, pitch = layout(width)
    if channels < group:  # the map's only group, cut to the channels there are
        group = channels
    groups = -(-channels // group)
    line = lines * ROW_BYTES
    start = ram[row * ROW_BYTES :]
    return as_strided(start, (groups, group, height, width), (line * height, pitch, line, 1))


def read_map(
    ram: NDArray[np.uint8], row: int, channels: int, height: int, width: int
) -> NDArray[np.uint8]:
    """The uint8 C,H,W map that starts at ``row``: a view where the layout allows, else a copy."""
    view = map_view(ram, row, channels, height, width)
    groups, group = view.shape[:2]
    if group == 1:
        return view[:, 0]
    return view.reshape(groups * group, height, width)[:channels]


def write_map(ram: NDArray[np.uint8], row: int, x: NDArray[np.uint8]) -> None:
    """Store the uint8 C,H,W map ``x`` at ``row``; unused bytes of its rows stay as they were."""
    channels, height, width = x.shape
    view = map_view(ram, row, channels, height, width)
    groups, group = view.shape[:2]
    whole = channels // group
    view[:whole] = x[: whole * group].reshape(whole, group, height, width)
    if whole < groups:
        view[whole, : channels - whole * group] = x[whole * group :]


def pack(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A uint8 C,H,W map as the bytes of its KPU RAM rows, unused bytes zero."""
    ram = np.zeros(map_bytes(*x.shape), np.uint8)
    write_map(ram, 0, x)
    return ram
