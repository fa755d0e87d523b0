"""Strided layers on maps too large for the KPU's memory, some channels at a time.

The KPU computes a strided layer at full size and drops pixels afterwards, so a layer whose
input and result fit may have a full-size map between them that does not. Computed for a
few channels, brought to its final size, and so on, the pieces lie behind each other as if
the whole had been computed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k210tasks.compiler.ir import Op, Tensor
from k210tasks.kpu.layout import KPU_RAM_ROWS, layout, map_rows

if TYPE_CHECKING:
    from k210tasks.compiler.passes.lowering import Lowering, Map

SPARE = KPU_RAM_ROWS // 16  # rows left to whatever else is alive
MOST = 32  # channels at a time: the pooling copy of c channels has c * c kernels


def _rows(tensor: Tensor) -> int:
    _, c, h, w = tensor.shape
    return map_rows(c, h, w)


def writer(dev: Lowering, m: Map) -> Op | None:
    """The layer that writes the map, where it can be computed in chunks."""
    op = dev.producers.get(m.tensor)
    fine = op is not None and op.kind == "kpu_conv" and not op.attrs["pool"]
    return op if fine and m.tensor not in dev.joined else None


def too_large(dev: Lowering, m: Map, *, copies: int) -> bool:
    """Whether the full-size map, with ``copies`` of its size or its layer's input, is more
    than the KPU's memory holds."""
    op = writer(dev, m)
    if op is None:
        return False
    full = _rows(m.tensor)
    return full + max(_rows(op.input), copies * full) > KPU_RAM_ROWS - SPARE


def pooled(dev: Lowering, m: Map, kind: int, shift: tuple[int, int]) -> Tensor | None:
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
    depthwise, computes = op.attrs["depthwise"], op.attrs["computes"]
    for first in range(0, channels, count):
        rows = slice(first, min(first + count, channels))
        x = op.input
        if depthwise:
            x = dev.part(x, first, rows.stop - first)
        full = dev.conv(
            x,
            op.attrs["weights"][rows],
            op.attrs["bias"][rows],
            like=m.tensor,
            depthwise=depthwise,
            fn=op.attrs["fn"],
            computes=computes[:5] if computes else None,
            first=first + (computes[5] if computes else 0),
            identity=op.attrs["identity"],
        )
        dev.producers[full].attrs.update(
            {k: op.attrs[k] for k in ("pre", "pre_range", "pre_clamp")}
        )
        dev.producers[full].attrs["shows"] = op.attrs.get("shows") if computes else None
        parts.append(dev.copy(full, pool=kind, tap=shift))
    return parts[0] if len(parts) == 1 else dev.concat(parts)
