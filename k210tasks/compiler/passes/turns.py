"""Turns of codes (see :meth:`Lowering.zeros_around`) where zero is code 0 already."""

from __future__ import annotations

import math

from k210tasks.compiler import agreement, functions
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.passes.ranges import Ranges


def drop_idle_turns(graph: Graph, ranges: Ranges) -> None:
    """Remove the turns that change nothing, whatever was measured; scales must have been
    chosen. Edits ``graph``.

    What no sample shows is not looked at: a layer that could put out less than zero, and
    never did, keeps its turns, so that a model has the layers that ``k210 check`` counts.
    """
    producers = graph.producers()
    for op in list(graph.ops):
        if op.kind == "turn" and _from_zero_on(op.input, graph, producers):
            graph.replace(op.output, op.input)
            graph.ops.remove(op)


def _from_zero_on(tensor: Tensor, graph: Graph, producers: dict[Tensor, Op]) -> bool:
    """Whether code 0 is zero because nothing below zero can be."""
    assert tensor.quant is not None
    if round(tensor.quant.zero_point):
        return False
    op = producers.get(tensor)
    while op is not None and agreement.moves(op):
        tensor = op.input
        op = producers.get(tensor)
    if op is None:
        return tensor is graph.input
    if op.kind == "kpu_concat":
        return all(_from_zero_on(part, graph, producers) for part in op.inputs)
    fn = functions.simplify(op.attrs.get("fn", ()))
    return bool(fn) and _least(fn[-1]) >= 0


def _least(step: functions.Step) -> float:
    """The least value that a step of a function can put out, as far as its kind tells."""
    if step[0] == "clamp":
        return float(step[1])
    return 0.0 if step[0] in ("logistic", "abs", "square", "exp", "sqrt") else -math.inf
