"""Shapes that a converter left open though they follow from those before."""

from __future__ import annotations

from contextlib import suppress

from k210tasks.compiler.operands import OPERANDS, misfit
from k210tasks.compiler.shape_laws import Misfit, follows
from k210tasks.compiler.source_ops import SourceOp


def close(op: SourceOp) -> None:
    """Give the output of ``op`` the shape that follows from its inputs, where it was left open.

    What a file says of a tensor with an open batch holds for a first dimension of one; rows of
    a sequence or a map that were put into it are more.
    """
    out = op.outputs[0] if op.outputs else None
    if out is None or not (out.dynamic or out.open):
        return
    shapes = None
    if op.name in OPERANDS and not misfit(op):
        if any(t is not None and t.dynamic for t in op.inputs):
            return
        with suppress(Misfit, ArithmeticError, LookupError, TypeError, ValueError):
            shapes = follows(op)  # malformed: refused as what it is
    if shapes is None:
        for other in op.outputs:  # not to be believed where the input's was not
            other.dynamic |= other.open and any(t and t.grown for t in op.inputs)
        return
    for other, shape in zip(op.outputs, shapes, strict=False):
        if min(shape, default=1) > 0:
            other.grown = other.shape[:1] != shape[:1]
            other.shape, other.dynamic = shape, False
