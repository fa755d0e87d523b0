"""What the logits in front of a softmax may lose, and what v3 runtimes need of them."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.passes.ranges import Ranges

MARGIN = 2.0  # logits beyond the measured range, as a factor
UNSEEN = 1.25  # the same where fewer samples tell, and the loss is a little precision
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
