"""Maps in main memory that every runtime of kmodel 3 writes whole.

The layer that computes a map writes it to main memory too. MaixPy, without ``dma=``, makes
that copy with its CPU where a map is made of whole rows of KPU RAM (a width that is a multiple
of 64), and copies a byte too few. Such a layer puts out one channel more, the spare one, of no
meaning: nobody reads what is lost. A depthwise layer reads one more for it.
"""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.ops import Concat, KpuConcat, KpuConv, KpuPart, copy_of
from k210tasks.compiler.passes.maps import LOAD_BYTES, MAX_CHANNELS, MAX_LOADS
from k210tasks.kpu.layout import ROW_BYTES

FEW = 16  # channels up to which a copy may as well be a normal layer


def spare_channels(graph: Graph) -> None:
    """Give every layer that needs it a spare channel, or a copy of its map that can have one.
    Edits ``graph``."""
    producers = graph.producers()
    joined = {t for op in graph.ops if isinstance(op, KpuConcat) for t in op.inputs}
    for op in list(graph.ops):
        if not isinstance(op, KpuConv) or len(op.outputs) < 2 or op.output.shape[3] % ROW_BYTES:
            continue
        # After a joined map's part come another's channels; the board feeds no spare one.
        fed = op.depthwise and op.input not in producers
        if fed and op.identity and len(op.weights) <= FEW:
            op.weights = np.eye(len(op.weights), dtype=np.float32)[:, :, None, None] * op.weights
            op.depthwise = fed = False
        if op.output not in joined and not fed and _fits(op):
            op.spare = 1
        else:
            at = graph.ops.index(op) + 1
            graph.ops[at:at] = _copies(op)
            del op.outputs[1:]


def _fits(op: KpuConv) -> bool:
    """Whether the registers can say one channel more."""
    channels = op.output.shape[1] + 1
    _, inner, k, _ = op.weights.shape
    loads = 1 if op.depthwise else -(-channels // (LOAD_BYTES // (k * k * inner)))
    return channels <= MAX_CHANNELS and loads <= MAX_LOADS


def _copies(op: KpuConv) -> list[Op]:
    """Ops that bring the map of ``op`` to where its second output is."""
    x, main = op.outputs
    channels = x.shape[1]
    if channels < MAX_CHANNELS:
        return [_copy(x, main, op)]
    made: list[Op] = []
    parts: list[Tensor] = []
    for first in (0, channels // 2):
        shape = (1, channels // 2, *x.shape[2:])
        part = Tensor(f"{x.name}/part", shape, "uint8", place="kpu")
        parts.append(Tensor(f"{part.name}/main", shape, "uint8"))
        made.append(KpuPart([x], [part], op.origin, first=first))
        made.append(_copy(part, parts[-1], op))
    return [*made, Concat(parts, [main], op.origin, axis=1)]


def _copy(x: Tensor, main: Tensor, op: Op) -> KpuConv:
    """A layer that changes nothing, with a spare channel."""
    same = Tensor(f"{x.name}/same", x.shape, "uint8", place="kpu")
    layer = copy_of(x, same, op.origin)
    layer.outputs.append(main)
    layer.spare = 1
    return layer
