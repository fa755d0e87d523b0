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
    """A pool's windows along one axis, one an output: taps ``start`` to ``end`` (exclusive)
    of the window at ``origin`` are read. int64 arrays of the output's size."""

    origin: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @property
    def last(self) -> int:
        """The highest position read; -1 for none."""
        return int(np.max(np.where(self.start < self.end, self.origin + self.end - 1, -1)))


def windows(size: int, out: int, kernel: int, stride: int, pad: int) -> Windows:
    """As C's unsigned ``min(kernel, size - origin)`` clips them: a window whose origin lies
    beyond ``size`` is not clipped at all."""
    origin = np.arange(out, dtype=np.int64) * stride - pad
    end = np.where(origin > size, kernel, np.minimum(kernel, size - origin))
    return Windows(origin, np.maximum(0, -origin), end)


def pool_windows(body: Pool2d) -> tuple[Windows, Windows]:
    """The windows of a pool along height and width."""
    return (
        windows(
            body.in_shape.height, body.out_shape.height, body.kernel_h, body.stride_h, body.pad_h
        ),
        windows(
            body.in_shape.width, body.out_shape.width, body.kernel_w, body.stride_w, body.pad_w
        ),
    )


def beyond_map(body: Pool2d) -> bool:
    """Whether a pool has windows that lie beyond its map and so read what is not theirs."""
    return any(
        np.any((axis.origin > size) & (axis.start < axis.end))
        for axis, size in zip(
            pool_windows(body), (body.in_shape.height, body.in_shape.width), strict=True
        )
    )


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
