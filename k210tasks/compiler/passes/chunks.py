"""Strided layers on maps too large for the KPU's memory, some channels at a time.

The KPU computes a strided layer at full size and drops pixels afterwards, so a layer whose
input and result fit may have a full-size map between them that does not. Computed for a
few channels, brought to its final size, and so on, the pieces lie behind each other as if
the whole had been computed at once.
"""

from __future__ import annotations

from dataclasses import replace

from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import KpuConv, Pair
from k210tasks.compiler.passes.device import Device
from k210tasks.compiler.passes.maps import Pixels
from k210tasks.kpu.layout import KPU_RAM_ROWS, layout, map_rows

SPARE = KPU_RAM_ROWS // 16  # rows left to whatever else is alive
MOST = 32  # channels at a time: the pooling copy of c channels has c * c kernels


def _rows(tensor: Tensor) -> int:
    _, c, h, w = tensor.shape
    return map_rows(c, h, w)


def writer(dev: Device, m: Pixels) -> KpuConv | None:
    """The layer that writes the map, where it can be computed in chunks."""
    op = dev.producers.get(m.tensor)
    fine = isinstance(op, KpuConv) and not op.pool and m.tensor not in dev.joined
    return op if isinstance(op, KpuConv) and fine else None


def too_large(dev: Device, m: Pixels, *, copies: int) -> bool:
    """Whether the full-size map, with ``copies`` of its size or its layer's input, is more
    than the KPU's memory holds."""
    op = writer(dev, m)
    if op is None:
        return False
    full = _rows(m.tensor)
    return full + max(_rows(op.input), copies * full) > KPU_RAM_ROWS - SPARE


def pooled(dev: Device, m: Pixels, kind: int, shift: Pair) -> Tensor | None:
    """The map's strided pixels, chunk by chunk; None where chunks do not help either.

    ``kind`` is the left-top pool, ``shift`` what has to be shifted before it.
    """
    op = writer(dev, m)
    if op is None or max(shift) > 1:
        return None
    stride = m.stride[0]
    _, channels, h, w = m.tensor.shape
    small = map_rows(channels, h // stride, w // stride)
    unit = max(layout(n).channels_per_group for n in (w, w // stride, op.input.shape[3]))
    room = KPU_RAM_ROWS - SPARE - _rows(op.input) - small
    count = min(room // map_rows(unit, h, w) * unit, MOST, channels)
    if count < min(unit, channels):
        return None
    parts = []
    for first in range(0, channels, count):
        rows = slice(first, min(first + count, channels))
        x = op.input
        if op.depthwise:
            x = dev.part(x, first, rows.stop - first)
        full = dev.conv(
            x,
            op.weights[rows],
            op.bias[rows],
            like=m.tensor,
            depthwise=op.depthwise,
            fn=op.fn,
            computes=op.computes and replace(op.computes, first=op.computes.first + first),
            identity=op.identity,
            pre=op.pre,
        )
        layer = dev.producers[full]
        assert isinstance(layer, KpuConv), "a few channels are one layer"
        layer.shown = op.shown if op.computes else None
        parts.append(dev.copy(full, pool=kind, tap=shift))
    return parts[0] if len(parts) == 1 else dev.concat(parts)
