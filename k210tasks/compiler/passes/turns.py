"""Turns of codes (see :meth:`Lowering.zeros_around`) where zero is code 0 already."""

from __future__ import annotations

from k210tasks.compiler.ir import Graph


def drop_idle_turns(graph: Graph) -> None:
    """Remove the turns that change nothing; scales must have been chosen. Edits ``graph``."""
    for op in list(graph.ops):
        if (
            op.kind == "turn"
            and op.input.quant is not None
            and not round(op.input.quant.zero_point)
        ):
            graph.replace(op.output, op.input)
            graph.ops.remove(op)
