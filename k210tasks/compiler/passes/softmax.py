"""What the logits in front of a softmax may lose, and what v3 runtimes need of them."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.passes.ranges import Ranges

MARGIN = 2.0  # logits beyond the measured range, as a factor
UNSEEN = 1.25  # the same where fewer samples tell, and the loss is a little precision
HARMLESS = 60.0  # logits this far below zero do not vanish yet
LOWEST = -1000.0  # logits that were not measured
NOTHING = 12.0  # a class that far behind the first has e**-12 of its share: none
#: kinds that hand logits on as they are, one by one
_CARRIERS = {"dequantize", "slice", "reshape", "transpose", "remove_padding"}


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
        if softmax.kind != "softmax":
            continue
        path: list[Tensor] = []
        layer, tensor = producers.get(softmax.input), softmax.input
        while layer is not None and tensor not in graph.outputs and len(consumers[tensor]) == 1:
            path.append(tensor)
            if layer.kind not in _CARRIERS:
                others = [t for t in layer.outputs if t is not tensor]
                if not any(t in graph.outputs or consumers.get(t) for t in others):
                    _centre(layer, path + others, calibration, NOTHING / softmax.attrs["beta"])
                break
            tensor = layer.input
            layer = producers.get(tensor)


def _centre(layer: Op, path: list[Tensor], calibration: Calibration, nothing: float) -> None:
    a = layer.attrs
    if layer.kind != "kpu_conv" or a["identity"] or a["fn"]:
        return
    values = _measured(layer, calibration)
    if values is None:
        return
    centred = values - values.mean(axis=-1, keepdims=True)
    low = max(-nothing, UNSEEN * float(centred.min()))
    high = UNSEEN * float(centred.max())
    if values.shape[-1] == 2:
        high = min(high, nothing)
    a["weights"] = (a["weights"] - a["weights"].mean(0, dtype=np.float64)).astype(np.float32)
    a["bias"] = (a["bias"] - a["bias"].mean(dtype=np.float64)).astype(np.float32)
    a["fn"] = (("clamp", low, high),)
    a["centred"] = True
    for tensor in path:
        tensor.source, tensor.range = None, (low, high)


def _measured(layer: Op, calibration: Calibration) -> np.ndarray | None:
    """[samples, classes] of a layer that computes one vector of logits."""
    computes = layer.attrs.get("computes")
    if not computes:
        return None
    stats = calibration.tensors.get(computes[0])
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
    for op in [op for op in graph.ops if op.kind == "softmax"]:
        before = producers.get(op.input)
        if before is None or before.attrs.get("from_zero"):
            continue
        measured = ranges.of(op.input) or (LOWEST, 0.0)
        lift = -MARGIN * measured[0]
        alone = len(consumers[op.input]) == 1 and op.input not in graph.outputs
        if before.kind == "dense" and alone and lift > 0:
            bias = before.attrs["bias"] + np.float32(lift)
            before.attrs["bias"] = bias.astype(np.float32)
        elif lift > HARMLESS:
            _add(graph, op, lift)


def _add(graph: Graph, softmax: Op, lift: float) -> None:
    """Add a constant to all logits: codes of anything in steps of zero."""
    x = softmax.input
    code = Tensor(f"{x.name}/any", x.shape, "uint8", quant=Quant(1.0, 0))
    constant, lifted = (Tensor(f"{x.name}/{what}", x.shape) for what in ("lift", "lifted"))
    at = graph.ops.index(softmax)
    graph.ops[at:at] = [
        Op("quantize", [x], [code], {}, softmax.origin),
        Op("dequantize", [code], [constant], {"constant": lift}, softmax.origin),
        Op("binary", [x, constant], [lifted], {"op": "add", "fn": ()}, softmax.origin),
    ]
    softmax.inputs = [lifted]
