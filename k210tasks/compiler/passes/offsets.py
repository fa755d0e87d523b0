"""Reals of codes whose zero point is no whole code, in a format that only has whole ones."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph, Tensor
from k210tasks.compiler.ops import Binary, Dequantize
from k210tasks.compiler.passes.ranges import Ranges


def exact_offsets(graph: Graph, ranges: Ranges) -> None:
    """Add the missing part of a code after every ``dequantize`` that would drop it.

    With mean 0.5 the input's zero point is 127.5; kmodel 4 can say 128 only.
    """
    for op in list(graph.ops):
        quant = op.input.quant if isinstance(op, Dequantize) else None
        if quant is None or quant.zero_point == round(quant.zero_point):
            continue
        missing = (round(quant.zero_point) - quant.zero_point) * quant.scale
        const = Tensor("offset", (1,), value=np.array([missing], np.float32))
        out = op.output
        raw = Tensor(f"{out.name}/whole", out.shape, "float32")
        op.outputs = [raw]
        fix = Binary([raw, const], [out], op.origin, how="add")
        graph.ops.insert(graph.ops.index(op) + 1, fix)
