"""Numbers of the KPU layers: weights as codes, batch norm, activation table, offsets.

Layers are done in order, each on what the layers before it really put out, so that the
rounding of a layer can make up for theirs.
"""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph, Quant
from k210tasks.compiler.numerics import layer as solving
from k210tasks.compiler.ops import KpuConv, Numbers
from k210tasks.compiler.passes import equalise, kpu_binary
from k210tasks.compiler.passes.kpu_layer import Layer, finish, identity, prepare
from k210tasks.compiler.passes.optimise import EFFORTS, Optimiser
from k210tasks.compiler.passes.ranges import Assigner, Ranges
from k210tasks.kpu.blas import one_thread


def quantise(
    graph: Graph,
    ranges: Ranges,
    contract: Quant | None,
    *,
    bits: int = 8,
    effort: str = "normal",
) -> None:
    """Give every code tensor its scale and every KPU layer its ``numbers``.

    ``contract`` is what the codes of the input mean, None to use its measured range.
    Without calibration data weights go to their nearest codes.
    """
    assigner = Assigner(graph, ranges, contract)
    assigner.assign()
    equalise.assign_scales(graph, assigner, ranges)
    kpu_binary.whole_weights(graph)
    calibration = ranges.calibration
    optimiser = None
    if calibration is not None:
        optimiser = Optimiser(graph, calibration, EFFORTS[effort])
    with one_thread():
        for op in graph.ops:
            if isinstance(op, KpuConv):
                layer = prepare(op, assigner.producers)
                op.numbers = _numbers(layer, optimiser, ranges, bits)
            if optimiser is not None:
                optimiser.advance(op)


def _numbers(layer: Layer, optimiser: Optimiser | None, ranges: Ranges, bits: int) -> Numbers:
    op = layer.op
    if op.identity:
        return finish(layer, identity(op), np.zeros_like(layer.bias), None)
    if optimiser is not None:
        rounded, bias = optimiser.choose(layer, bits)
    else:
        inputs = solving.Inputs.unmeasured(layer.middles)
        rounded, bias = solving.round_layer(layer.weights, inputs, bits=bits), layer.bias
    return finish(layer, rounded, bias, ranges.before(op))
