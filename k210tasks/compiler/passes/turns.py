"""Turns of codes (see :meth:`Lowering.zeros_around`) where zero is code 0 already."""

from __future__ import annotations

import math

from k210tasks.compiler import agreement, functions
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.ops import Activated, KpuConcat, KpuConv, Quantize, Turn
from k210tasks.compiler.passes.ranges import Ranges


def drop_idle_turns(graph: Graph, ranges: Ranges) -> None:
    """Remove the turns that change nothing, whatever was measured; scales must have been
    chosen. Edits ``graph``.

    What no sample shows is not looked at: a layer that could put out less than zero, and
    never did, keeps its turns, so that a model has the layers that ``k210 check`` counts.
    """
    _, zeros = agreement.classes(graph)
    below = {zeros.of(tensor) for tensor in _below_zero(graph)}
    for op in list(graph.ops):
        if isinstance(op, Turn) and zeros.of(op.input) not in below and not _zero(op.input):
            graph.replace(op.output, op.input)
            graph.ops.remove(op)


def _zero(tensor: Tensor) -> int:
    """The code of zero."""
    assert tensor.quant is not None
    return round(tensor.quant.zero_point)


def _below_zero(graph: Graph) -> set[Tensor]:
    """The tensors of codes that could hold less than zero, as far as their layers tell. Whether
    the copy of a map for a joined one changes the scale depends on what was measured, and is not
    asked."""
    joined = {part for op in graph.ops if isinstance(op, KpuConcat) for part in op.inputs}
    start = graph.input
    found = {start} if start.quant is not None and _zero(start) else set()
    for op in graph.ops:
        if op.output.dtype != "uint8":
            continue
        if (
            agreement.moves(op)
            or isinstance(op, KpuConcat)
            or (op.output in joined and _copies(op))
        ):
            could = not found.isdisjoint(op.inputs)
        else:
            could = _least(op) < 0
        if could:
            found.update(op.outputs)
    return found


def _least(op: Op) -> float:
    """What no value that an op makes is below, as far as its function tells."""
    if isinstance(op, Quantize) and op.clamp is not None:
        return op.clamp[0]
    return functions.least(functions.simplify(op.fn)) if isinstance(op, Activated) else -math.inf


def _copies(op: Op) -> bool:
    """Whether a layer passes its map on, at the same scale or another (``ops.copy_of``)."""
    return (
        isinstance(op, KpuConv)
        and op.depthwise
        and not op.fn
        and not op.bias.any()
        and op.weights.shape[2:] == (1, 1)
        and bool((op.weights == 1).all())
    )
