"""What the logits in front of a softmax may lose, and what v3 runtimes need of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.passes.ranges import Ranges

MARGIN = 2.0  # logits beyond the measured range, as a factor
UNSEEN = 1.25  # the same where fewer samples tell, and the loss is a little precision
HARMLESS = 60.0  # logits this far below zero do not vanish yet
LOWEST = -1000.0  # logits that were not measured
NOTHING = 12.0  # a class that far behind the first has e**-12 of its share: none
#: kinds that hand logits on as they are, one by one
_CARRIERS = (ops.Dequantize, ops.Slice, ops.Reshape, ops.Transpose, ops.RemovePadding)


def centre_logits(graph: Graph, ranges: Ranges) -> None:
    """Let the 256 codes of KPU logits in front of a softmax cover only what it can tell apart.

    A softmax does not mind an offset, so logits may be made to sum to zero. The largest is
    then at least zero, and what is :data:`NOTHING` below it may be cut off; of two classes
    the upper side too. Edits weights, bias and function of the layer; no tensor from there to
    the softmax holds what the source file's does any longer.
    """
    calibration = ranges.calibration
    if calibration is None:
        return
    producers, consumers = graph.producers(), graph.consumers()
    for softmax in graph.ops:
        if not isinstance(softmax, ops.Softmax):
            continue
        path: list[Tensor] = []
        layer, tensor = producers.get(softmax.input), softmax.input
        while layer is not None and tensor not in graph.outputs and len(consumers[tensor]) == 1:
            path.append(tensor)
            if not isinstance(layer, _CARRIERS):
                others = [t for t in layer.outputs if t is not tensor]
                if not any(t in graph.outputs or consumers.get(t) for t in others):
                    _centre(layer, path + others, calibration, NOTHING / softmax.beta)
                break
            tensor = layer.input
            layer = producers.get(tensor)


def _centre(layer: Op, path: list[Tensor], calibration: Calibration, nothing: float) -> None:
    if not isinstance(layer, ops.KpuConv) or layer.identity or layer.fn:
        return
    values = _measured(layer, calibration)
    if values is None:
        return
    centred = values - values.mean(axis=-1, keepdims=True)
    low = max(-nothing, UNSEEN * float(centred.min()))
    high = UNSEEN * float(centred.max())
    if values.shape[-1] == 2:
        high = min(high, nothing)
    weights, bias = layer.weights, layer.bias
    layer.weights = (weights - weights.mean(0, dtype=np.float64)).astype(np.float32)
    layer.bias = (bias - bias.mean(dtype=np.float64)).astype(np.float32)
    layer.fn = (("clamp", low, high),)
    layer.centred = True
    for tensor in path:
        tensor.source, tensor.range = None, (low, high)


def _measured(layer: ops.KpuConv, calibration: Calibration) -> NDArray[np.float64] | None:
    """[samples, classes] of a layer that computes one vector of logits."""
    if layer.computes is None:
        return None
    stats = calibration.tensors.get(layer.computes.source)
    classes = layer.output.shape[1]
    if stats is None or stats.values is None or stats.pixel_count != 1 or classes < 2:
        return None
    values = stats.values.reshape(len(stats.values), -1)
    return values.astype(np.float64) if values.shape[1] == classes else None


def lift_logits(graph: Graph, ranges: Ranges) -> None:
    """Raise float logits in front of a softmax above zero, which the runtimes of kmodel 3 take
    the largest logit for at least: far below it all of them vanish.

    Their sizes are known from calibration; the softmax of lifted logits is the same. Edits
    the bias of the layer before, or adds a constant where there is none.
    """
    producers, consumers = graph.producers(), graph.consumers()
    for op in [op for op in graph.ops if isinstance(op, ops.Softmax)]:
        before = producers.get(op.input)
        if before is None or (isinstance(before, ops.Dequantize) and before.from_zero):
            continue
        measured = ranges.of(op.input) or (LOWEST, 0.0)
        lift = -MARGIN * measured[0]
        alone = len(consumers[op.input]) == 1 and op.input not in graph.outputs
        if isinstance(before, ops.Dense) and alone and lift > 0:
            before.bias = (before.bias + np.float32(lift)).astype(np.float32)
        elif lift > HARMLESS:
            _add(graph, op, lift)


def _add(graph: Graph, softmax: Op, lift: float) -> None:
    """Add a constant to all logits: codes of anything in steps of zero."""
    x = softmax.input
    code = Tensor(f"{x.name}/any", x.shape, "uint8", quant=Quant(1.0, 0))
    constant, lifted = (Tensor(f"{x.name}/{what}", x.shape) for what in ("lift", "lifted"))
    at = graph.ops.index(softmax)
    graph.ops[at:at] = [
        ops.Quantize([x], [code], softmax.origin),
        ops.Dequantize([code], [constant], softmax.origin, constant=lift),
        ops.Binary([x, constant], [lifted], softmax.origin, how="add"),
    ]
    softmax.inputs = [lifted]
