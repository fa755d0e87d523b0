"""What the differences between runtimes mean for one layer of kmodel 3 (docs, section 8.2).

Arithmetic of addresses only, for the simulator, which does the same, and for the lint, which
tells of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.runtimes import Runtime
from k210tasks.kmodel.v3_layers import K210Conv, Pool2d, QuantizedMaxPool2d
from k210tasks.kpu.layout import ROW_BYTES, layout


class Windows(NamedTuple):
    """A pool's windows along one axis of ``size`` values, at ``stride`` from ``-pad`` on."""

    size: int
    out: int  # windows
    kernel: int
    stride: int
    pad: int

    @property
    def beyond(self) -> bool:
        """Whether the last window begins beyond the axis. C's unsigned ``min(kernel, size -
        origin)`` clips no such window, and so it reads what is not the map's."""
        return (self.out - 1) * self.stride - self.pad > self.size and self.kernel > 0

    @property
    def last(self) -> int:
        """The highest position that is read; -1 for none."""
        if self.beyond:
            return (self.out - 1) * self.stride - self.pad + self.kernel - 1
        inside = min(self.out - 1, (self.size - 1 + self.pad) // max(1, self.stride))
        return max(0, min(inside * self.stride - self.pad + self.kernel, self.size)) - 1

    def taps(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Origin of every window, and which of its taps are read: from, to (exclusive)."""
        origin = np.arange(self.out, dtype=np.int64) * self.stride - self.pad
        clipped = np.minimum(self.kernel, self.size - origin)
        return origin, np.maximum(0, -origin), np.where(origin > self.size, self.kernel, clipped)


def pool_windows(body: Pool2d) -> tuple[Windows, Windows]:
    """The windows of a pool along height and width."""
    i, o = body.in_shape, body.out_shape
    return (
        Windows(i.height, o.height, body.kernel_h, body.stride_h, body.pad_h),
        Windows(i.width, o.width, body.kernel_w, body.stride_w, body.pad_w),
    )


def beyond_map(body: Pool2d) -> bool:
    """Whether a pool has windows that lie beyond its map and so read what is not theirs."""
    return any(axis.beyond for axis in pool_windows(body))


def read_end(body: Pool2d) -> int:
    """The byte of main memory behind the last one that a pool's windows read."""
    rows, columns = pool_windows(body)
    width, height, channels = body.in_shape
    if rows.last < 0 or columns.last < 0:
        return body.in_mem
    last = (channels - 1) * width * height + rows.last * width + columns.last
    return body.in_mem + (last + 1) * (1 if isinstance(body, QuantizedMaxPool2d) else 4)


def loses_last_byte(runtime: Runtime, body: K210Conv) -> bool:
    """Whether the copy of a map to main memory is one byte short."""
    return runtime.loses_last_byte and body.to_main and body.registers.out_shape[2] % 64 == 0


def misplaces_upload(runtime: Runtime, start: int, height: int, width: int) -> bool:
    """Whether an upload from main memory at ``start`` puts lines where none are looked for."""
    return runtime.upload_stride > 1 and height > 1 and start % 8 == 0 and width % 8 == 0


def misplaced_end(runtime: Runtime, row: int, channels: int, height: int, width: int) -> int:
    """The byte of KPU RAM behind the last one that a misplaced upload writes."""
    group, lines, pitch = layout(width)
    last = channels - 1
    channel = last // group * lines * height * ROW_BYTES + (group - 1 if last else 0) * pitch
    return (row + runtime.upload_stride * lines * (height - 1)) * ROW_BYTES + channel + width


def requantized(runtime: Runtime, count: int) -> int:
    """How many of ``count`` bytes Requantize translates: all, or an eighth in words of eight."""
    if not runtime.requantizes_part:
        return count
    eighth = -(-count // 8)
    return min(count, -(-eighth // 8) * 8)
