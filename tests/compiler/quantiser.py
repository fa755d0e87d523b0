"""Eight bits by definition, apart from the compiler: how good a quantised network can be.

``fake_quantised`` is a network in floats whose tensors are rounded to 256 codes over their
measured range; ``quantised`` is the int8 file TensorFlow's converter would make of it (TFLite's
8-bit specification: https://ai.google.dev/edge/litert/models/quantization_spec). LiteRT runs
both. Ranges are of the tensors as LiteRT measured them in float.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.reference.litert import FloatModel
from tests.compiler.tflite_builder import Net

Ranges = dict[int, tuple[float, float]]
Codes = tuple[float, int]  # scale and zero point of int8
Shifts = dict[int, NDArray[np.float32]]  # output of a layer -> one value a channel

#: op -> which input holds weights, and the axis of their output channels
_WEIGHTS = {
    "CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3), "FULLY_CONNECTED": (1, 0),
    "TRANSPOSE_CONV": (1, 0),
}  # fmt: skip
_BIAS = dict.fromkeys(_WEIGHTS, 2) | {"TRANSPOSE_CONV": 3}
#: ops whose output has its input's scale: they move, select or average codes
_SAME = {
    "RESHAPE", "TRANSPOSE", "PAD", "MIRROR_PAD", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE",
    "GATHER", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR",
    "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "REDUCE_MAX",
}  # fmt: skip
#: of those the ones that make no values of their own
_MOVE = _SAME - {"AVERAGE_POOL_2D", "RESIZE_BILINEAR"}
_JOIN = {"CONCATENATION", "PACK"}
#: ops that the KPU computes of maps joined into one
_MEET = {*_JOIN, "ADD", "SUB"}
#: ops whose output has a scale laid down by the specification
_FIXED: dict[str, Codes] = {
    "SOFTMAX": (1 / 256, -128),
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}


def measured(model: FloatModel, inputs: list[NDArray[np.float32]]) -> Ranges:
    """Extremes of every float tensor over ``inputs``; ``model`` keeps all its tensors."""
    found: Ranges = {}
    for values in model.values(inputs, list(model.tensors)):
        for index, view in values.items():
            low, high = float(view.min()), float(view.max())
            del view
            old = found.get(index, (0.0, 0.0))
            found[index] = min(old[0], low), max(old[1], high)
    return found


def codes_of(low: float, high: float) -> Codes:
    """int8 codes that reach from ``low`` to ``high`` and hold zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0  # LiteRT's int8 layers end the process with a tiny one
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _per_channel(weights: NDArray[Any], axis: int) -> NDArray[np.float64]:
    others = tuple(i for i in range(weights.ndim) if i != axis)
    return np.maximum(np.abs(weights).max(others), 1e-9).astype(np.float64) / 127


def _along(scales: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])


def _moving(name: str, inputs: list[int], net: Net) -> int:
    """Which of the inputs of a mover is the one that is moved."""
    return next(i for i in inputs if net.tensors[i]["value"] is None)


def of_joined(net: Net, ranges: Ranges) -> Ranges:
    """``ranges`` as a KPU tensor joined from maps has them: a step for each, one zero point."""
    found, writers = dict(ranges), {t: op for op in net.ops for t in op[2]}

    def source(tensor: int) -> int:
        """The tensor whose codes ``tensor`` has, moved."""
        while (op := writers.get(tensor)) is not None and op[0] in _MOVE:
            tensor = _moving(op[0], op[1], net)
        return tensor

    for name, inputs, *_ in net.ops:
        parts = {source(t) for t in inputs if net.tensors[t]["value"] is None} & found.keys()
        if name not in _MEET or len(parts) < 2:
            continue
        low = min(found[t][0] for t in parts)
        below = low / min(low - max(found[t][1] for t in parts), -1e-9)  # share below zero
        for t in parts - {net.input}:
            span = max(
                (end / share for end, share in zip(found[t], (-below, 1 - below), strict=True)
                 if end and share), default=0.0,
            )  # fmt: skip
            found[t] = -below * span, (1 - below) * span
    return found


def _rounded_weights(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    steps = _along(_per_channel(weights, axis), axis, weights.ndim)
    return (np.rint(weights / steps) * steps).astype(np.float32)


def bias_shifts(net: Net, inputs: list[NDArray[np.float32]]) -> Shifts:
    """By how much rounded weights shift the mean over ``inputs`` of each channel of a layer:
    what its bias takes up (bias correction: Nagel et al., Data-Free Quantization, 2019)."""
    twin, pairs = copy.deepcopy(net), []
    for name, taken, outputs, options, fields, version in net.ops:
        if name not in _WEIGHTS:
            continue
        which, axis = _WEIGHTS[name]
        rounded = list(taken)
        rounded[which] = twin.const(_rounded_weights(net.tensors[taken[which]]["value"], axis))
        sums = []  # before the activation, with the weights as they are and rounded
        for of in (taken, rounded):
            sums.append(twin.tensor(net.shape(outputs[0])))
            plain = {**fields, "FusedActivationFunction": 0}
            twin.ops.append((name, of, [sums[-1]], options, plain, version))
        pairs.append((outputs[0], *sums))
    if not pairs:
        return {}
    model = FloatModel(twin.build(*(t for _, *sums in pairs for t in sums)))
    means = np.array(
        [[y.reshape(-1, y.shape[-1]).mean(0) for y in model.run(x)] for x in inputs], object
    ).mean(0)
    return {
        tensor: np.asarray(means[2 * k] - means[2 * k + 1], np.float32)
        for k, (tensor, *_) in enumerate(pairs)
    }


def fake_quantised(
    net: Net, ranges: Ranges, shifts: Shifts, sixteen: dict[int, float] | None = None
) -> bytes:
    """The float network with every tensor that is in ``ranges`` rounded, and the weights of
    the layers that compute one, whose bias takes up its of ``shifts``; tensors that are in
    ``sixteen`` instead are rounded to that step, and the weights before them are left alone."""
    twin, sixteen = copy.deepcopy(net), sixteen or {}
    twin.ops = []
    now: dict[int, int] = {}  # tensor -> the one that holds it rounded

    def scaled(tensor: int, by: Any) -> int:
        return twin.binary("MUL", tensor, twin.const(np.asarray(by, np.float32)))

    def rounded(tensor: int) -> None:
        if tensor in sixteen and tensor not in ranges:
            whole = twin.unary("ROUND", scaled(tensor, 1 / sixteen[tensor]))
            now[tensor] = scaled(whole, sixteen[tensor])
        if tensor not in ranges:
            return
        low, high = ranges[tensor]
        shares = (high - low) / max(float(np.max(high - low)), 1e-30) if np.ndim(low) else None
        scale, zero = codes_of(float(np.min(low)), float(np.max(high)))
        shape = twin.shape(tensor)
        codes = twin.tensor(shape, dtype="int8", scale=scale, zero_point=zero)
        now[tensor] = twin.tensor(shape)
        even = tensor if shares is None else scaled(tensor, 1 / shares)
        twin.ops.append(("QUANTIZE", [even], [codes], None, {}, 1))
        twin.ops.append(("DEQUANTIZE", [codes], [now[tensor]], None, {}, 1))
        if shares is not None:
            now[tensor] = scaled(now[tensor], shares)

    rounded(net.input)
    for name, inputs, outputs, *rest in net.ops:
        taken = [now.get(i, i) for i in inputs]
        if name in _WEIGHTS and outputs[0] in ranges:
            which, axis = _WEIGHTS[name]
            taken[which] = twin.const(_rounded_weights(net.tensors[inputs[which]]["value"], axis))
            at = _BIAS[name]
            bias = net.tensors[inputs[at]]["value"] if len(inputs) > at else np.float32(0)
            taken[at:] = [twin.const(bias + shifts[outputs[0]])]
        twin.ops.append((name, taken, outputs, *rest))
        already = name in _MOVE and _moving(name, inputs, net) in ranges
        for tensor in outputs if not already else ():
            rounded(tensor)
    return twin.build(*(now.get(t, t) for t in net.outputs))


class _Int8:
    """The int8 file under construction."""

    def __init__(self, net: Net, ranges: Ranges):
        self.old, self.ranges = net, ranges
        self.new = copy.deepcopy(net)
        self.new.ops = []
        self.codes: dict[int, Codes] = {}

    def mark(self, tensor: int, codes: Codes) -> None:
        self.codes[tensor] = codes
        self.new.tensors[tensor].update(dtype=np.dtype("int8"), scale=codes[0], zero_point=codes[1])

    def const(self, values: NDArray[Any], dtype: str, scale: Any, zero: int, axis: int = 0) -> int:
        limits = np.iinfo(dtype)
        steps = _along(np.atleast_1d(scale), axis, values.ndim) if np.ndim(scale) else scale
        codes = np.clip(np.rint(values / steps) + zero, limits.min, limits.max).astype(dtype)
        return self.new.const(codes, scale=scale, zero_point=zero, axis=axis)

    def with_codes(self, tensor: int, codes: Codes) -> int:
        """``tensor`` in the codes asked for: itself, or requantised."""
        if self.codes[tensor] == codes:
            return tensor
        out = self.new.tensor(self.new.shape(tensor))
        self.mark(out, codes)
        self.new.ops.append(("QUANTIZE", [tensor], [out], None, {}, 1))
        return out

    def op(self, op: tuple[Any, ...]) -> None:
        name, inputs, outputs, *rest = op
        taken = list(inputs)
        if name in _JOIN:
            codes = codes_of(*self.ranges[outputs[0]])
            taken = [self.with_codes(i, codes) for i in inputs]
        elif name in _SAME:
            codes = self.codes[_moving(name, inputs, self.old)]
        else:
            codes = _FIXED.get(name) or codes_of(*self.ranges[outputs[0]])
        for tensor in outputs:
            self.mark(tensor, codes)
        if name in _WEIGHTS:
            self._weighted(name, inputs, taken)
        elif name not in _SAME:
            for k, tensor in enumerate(inputs):
                value = self.old.tensors[tensor]["value"]
                if value is not None and value.dtype == np.float32:
                    scale, zero = codes_of(float(value.min()), float(value.max()))
                    taken[k] = self.const(value, "int8", scale, zero)
        self.new.ops.append((name, taken, outputs, *rest))

    def _weighted(self, name: str, inputs: list[int], taken: list[int]) -> None:
        which, axis = _WEIGHTS[name]
        weights = self.old.tensors[inputs[which]]["value"]
        steps = _per_channel(weights, axis)
        taken[which] = self.const(weights, "int8", steps, 0, axis)
        x, bias = 2 if name == "TRANSPOSE_CONV" else 0, _BIAS[name]
        if len(inputs) > bias:
            value = self.old.tensors[inputs[bias]]["value"]
            taken[bias] = self.const(value, "int32", self.codes[inputs[x]][0] * steps, 0)


def quantised(net: Net, ranges: Ranges, *outputs: int, io: str = "int8") -> bytes:
    """The int8 file; ``io``: "int8", "uint8" or "float32", of what type its input and outputs
    are. Without ``outputs`` those of ``net``, or what its last op puts out."""
    made = _Int8(net, ranges)
    made.mark(net.input, codes_of(*ranges[net.input]))
    new = made.new

    def end(tensor: int, name: str | None = None) -> int:
        """What stands for ``tensor`` outside."""
        scale, zero = made.codes[tensor]
        of_codes = {} if io == "float32" else {"scale": scale, "zero_point": zero + 128}
        return new.tensor(net.shape(tensor), name, dtype=io, **of_codes)

    if io != "int8":
        fed = new.inputs[0] = new.input = end(net.input, "fed")
        new.ops.append(("QUANTIZE", [fed], [net.input], None, {}, 1))
    for op in net.ops:
        made.op(op)
    ends = _ends(net, outputs)
    if io != "int8":
        name = "DEQUANTIZE" if io == "float32" else "QUANTIZE"
        for k, tensor in enumerate(ends):
            ends[k] = end(tensor)
            new.ops.append((name, [tensor], [ends[k]], None, {}, 1))
    return new.build(*ends)


def as_filed(net: Net, ranges: Ranges) -> Net:
    """The float network with the constants that its int8 file has."""
    made, twin = _Int8(net, ranges), copy.deepcopy(net)
    made.mark(net.input, codes_of(*ranges[net.input]))
    for op in net.ops:
        made.op(op)
        for old, new in zip(op[1], made.new.ops[-1][1], strict=True):
            filed = made.new.tensors[new]
            if new == old or filed["value"] is None:
                continue
            value, scale = filed["value"].astype(np.float64), filed["scale"]
            if np.ndim(scale):
                scale = _along(np.atleast_1d(scale), filed["axis"], value.ndim)
            real = (value - filed["zero_point"]) * scale
            twin.tensors[old]["value"] = real.astype(np.float32)
    return twin


def padded_beside_zero(net: Net, value: float) -> Net:
    """The network with ``value`` instead of zeros where it pads its input, moved or not."""
    twin, moved = copy.deepcopy(net), {net.input}
    for k, (name, inputs, outputs, *_) in enumerate(net.ops):
        if name in _MOVE and _moving(name, inputs, net) in moved:
            moved.update(outputs)
            if name == "PAD":
                around = twin.const(np.float32(value))
                twin.ops[k] = ("PADV2", [*inputs, around], outputs, "PadV2Options", {}, 2)
    return twin


def stretched(ranges: Ranges, number: int) -> Ranges:
    """Ranges wider by up to a fifth, each by another share, none in choice 0: other codes, no less
    fine to speak of. Of two steps it is the ratio that decides how what is rounded adds up."""
    shares = 1 + np.random.default_rng(number).uniform(0, 0.2 if number else 0, len(ranges))
    return {
        t: (low * by, high * by)
        for (t, (low, high)), by in zip(ranges.items(), shares, strict=True)
    }


def _ends(net: Net, outputs: tuple[int, ...]) -> list[int]:
    return list(outputs) or list(net.outputs) or [net.ops[-1][2][0]]


def quantised_by(
    net: Net, samples: list[NDArray[np.float32]], *outputs: int, io: str = "int8"
) -> bytes:
    """The int8 file with the ranges that ``samples``, of the input's shape, show."""
    model = FloatModel(net.build(*_ends(net, outputs)), keep_all=True)
    return quantised(net, measured(model, samples), *outputs, io=io)
