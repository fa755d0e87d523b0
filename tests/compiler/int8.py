"""Float test networks as fully quantised ones, in the way TFLite's converter writes them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from k210tasks.reference.litert import FloatModel
from tests.compiler.tflite_builder import Net

#: ops whose output has the scale of an input, and of which
MOVING = {
    "RESHAPE": 0,
    "TRANSPOSE": 0,
    "PAD": 0,
    "STRIDED_SLICE": 0,
    "SPLIT": 1,
    "MAX_POOL_2D": 0,
    "AVERAGE_POOL_2D": 0,
    "RESIZE_NEAREST_NEIGHBOR": 0,
    "SLICE": 0,
}
#: ops whose output has a scale that the format fixes: scale and int8 zero point
FIXED = {"SOFTMAX": (1 / 256, -128), "LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def quantised(net: Net, samples: list[np.ndarray], *outputs: int, io: str = "int8") -> bytes:
    """The network with int8 tensors inside, input and outputs of type ``io``: "int8", "uint8"
    or "float32". ``samples`` float32, of the input's shape."""
    net = copy.deepcopy(net)
    ends = list(outputs) or net.outputs or [net.ops[-1][2][0]]
    ranges = _ranges(net.build(*ends), samples, net)
    for name, inputs, outs, *_ in net.ops:  # in order: one scale where codes only move
        if name == "CONCATENATION":
            low, high = zip(*(ranges[t] for t in inputs), strict=True)
            ranges.update(dict.fromkeys([*inputs, *outs], (min(low), max(high))))
        elif name in MOVING:
            ranges.update(dict.fromkeys(outs, ranges[inputs[MOVING[name]]]))
    fixed = {outs[0]: FIXED[name] for name, _, outs, *_ in net.ops if name in FIXED}
    for t, (low, high) in ranges.items():
        scale = max(high - low, 1e-6) / 255
        zero = int(np.clip(round(-128 - low / scale), -128, 127))
        scale, zero = fixed.get(t, (scale, zero))
        net.tensors[t].update(dtype=np.dtype("int8"), scale=scale, zero_point=zero)
    for name, inputs, *_ in net.ops:
        _constants(net, name, inputs)
    if io != "int8":
        ends = _ends(net, ends, io)
    return net.build(*ends)


def _ranges(tflite: bytes, samples: list[np.ndarray], net: Net) -> dict[int, tuple[float, float]]:
    model = FloatModel(tflite, keep_all=True)
    found: dict[int, tuple[float, float]] = {}
    computed = [net.input, *(t for _, _, outs, *_ in net.ops for t in outs)]
    for x in samples:
        model.run(x)
        for t in computed:
            y = model.tensor(t)
            low, high = found.get(t, (0.0, 0.0))
            found[t] = min(low, float(y.min())), max(high, float(y.max()))
    return found


def _constants(net: Net, name: str, inputs: list[int]) -> None:
    for i, t in enumerate(inputs):
        value = net.tensors[t]["value"]
        if value is None or value.dtype.kind != "f":
            continue
        if name in _WEIGHTED and i == 2:
            scale = net.tensors[inputs[0]]["scale"] * np.asarray(net.tensors[inputs[1]]["scale"])
            made = {"value": np.rint(value / scale).astype(np.int32), "scale": scale}
        else:
            axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
            others = tuple(k for k in range(value.ndim) if k != axis)
            whole = name not in _WEIGHTED or name == "FULLY_CONNECTED"
            size = np.abs(value).max(None if whole else others)
            scale = np.maximum(size, 1e-9) / 127
            shaped = scale if whole else scale.reshape([-1 if k == axis else 1 for k in range(4)])
            made = {"value": np.rint(value / shaped).astype(np.int8), "scale": scale, "axis": axis}
        net.tensors[t].update(made, dtype=made["value"].dtype, zero_point=0)


def _ends(net: Net, ends: list[int], io: str) -> list[int]:
    """QUANTIZE and DEQUANTIZE around the network, or a QUANTIZE to another integer."""
    inner = net.tensors[net.input]
    fed = net.tensor(inner["shape"], "fed", dtype=io, **_as(inner, io))
    net.ops.insert(0, ("QUANTIZE", [fed], [net.input], None, {}, 1))
    net.inputs = [fed]
    made = []
    for end in ends:
        t = net.tensors[end]
        name = "DEQUANTIZE" if io == "float32" else "QUANTIZE"
        made.append(net.op(name, [end], t["shape"]))
        net.tensors[made[-1]].update(dtype=np.dtype(io), **_as(t, io))
    return made


def _as(t: dict[str, Any], io: str) -> dict[str, Any]:
    if io == "float32":
        return {}
    return {"scale": t["scale"], "zero_point": t["zero_point"] + 128}
