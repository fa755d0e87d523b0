"""Turns of codes (see :meth:`Lowering.zeros_around`) where zero is code 0 already."""

from __future__ import annotations

import math
from collections.abc import Iterator

from k210tasks.compiler import agreement, functions
from k210tasks.compiler.ir import Graph, Tensor
from k210tasks.compiler.ops import Activated, KpuConcat, Quantize, Turn
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


def _below_zero(graph: Graph) -> Iterator[Tensor]:
    """The tensors of codes that could hold less than zero, as far as their layers tell."""
    start = graph.input
    if start.quant is not None and _zero(start):
        yield start
    for op in graph.ops:
        if op.output.dtype != "uint8" or isinstance(op, KpuConcat) or agreement.moves(op):
            continue
        fn = functions.simplify(op.fn) if isinstance(op, Activated) else ()
        if isinstance(op, Quantize) and op.clamp is not None:
            fn = (("clamp", *op.clamp),)
        if not fn or _least(fn[-1]) < 0:
            yield op.output


def _least(last: functions.Primitive) -> float:
    """The least value that a function can put out, as far as its last primitive tells."""
    if last[0] == "clamp":
        return float(last[1])
    return 0.0 if last[0] in ("logistic", "abs", "square", "exp", "sqrt") else -math.inf
