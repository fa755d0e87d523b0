"""Softmax on a runtime that takes the largest logit for at least zero (reference, section 2.4)."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph
from k210tasks.compiler.passes.ranges import Ranges

MARGIN = 2.0  # logits beyond the measured range, as a factor


def lift_logits(graph: Graph, ranges: Ranges) -> None:
    """Raise the logits of float dense layers in front of a softmax above zero.

    Their sizes are known from calibration; the softmax of lifted logits is the same. Edits
    the biases of ``graph``.
    """
    producers, consumers = graph.producers(), graph.consumers()
    for op in graph.ops:
        dense = producers.get(op.input) if op.kind == "softmax" else None
        if dense is None or dense.kind != "dense" or dense.attrs["fn"]:
            continue
        if len(consumers[op.input]) > 1 or op.input in graph.outputs:
            continue
        measured = ranges.of(op.input)
        if measured is not None and measured[0] < 0:
            lift = np.float32(-MARGIN * measured[0])
            dense.attrs["bias"] = (dense.attrs["bias"] + lift).astype(np.float32)
