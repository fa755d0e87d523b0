"""Networks with one fault put in on purpose, to see whether the random tests would find it.

A mutant is compiled as it is and measured against the network it was made of. Sites where the
fault changes nothing, a clamp that nothing reaches, say, are passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from k210tasks.compiler.problems import CompileError
from k210tasks.reference.litert import FloatModel
from tests.compiler import quantiser
from tests.compiler.judging import (
    EXACT, Network, compile_network, decibels, network, outputs_of, simulate,
)  # fmt: skip
from tests.compiler.tflite_builder import Net

Edit = Callable[[Net, int, quantiser.Ranges], "bool"]  # False: not at this op

LAYERS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # and axis of outputs
CODES = 8  # by how much a zero point is wrong
LOST = 10.0  # dB


def _weights(net: Net, number: int) -> tuple[list[int], int] | None:
    """Weights and bias of a layer, and the axis of its output channels."""
    name, inputs = net.ops[number][:2]
    return (inputs[1:], LAYERS[name]) if name in LAYERS else None


def shift(net: Net, number: int, ranges: quantiser.Ranges) -> bool:
    """A layer sees its map one pixel to the left."""
    name, inputs, outputs, *rest = net.ops[number]
    x = inputs[0]
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return False
    _, h, w, c = net.shape(x)
    if w < 4:
        return False
    before = len(net.ops)
    cut = net.strided_slice(x, [0, 0, 1, 0], [1, h, w, c], [1] * 4)
    moved = net.pad(cut, [(0, 0), (0, 0), (0, 1), (0, 0)])
    added = net.ops[before:]
    del net.ops[before:]
    net.ops[number : number + 1] = [*added, (name, [moved, *inputs[1:]], outputs, *rest)]
    return True


def drop(net: Net, number: int, ranges: quantiser.Ranges) -> bool:
    """An activation is forgotten."""
    name, inputs, outputs, options, fields, version = net.ops[number]
    if fields.get("FusedActivationFunction"):
        fields["FusedActivationFunction"] = 0
        return True
    if name not in ("RELU", "RELU6", "LOGISTIC", "TANH", "ELU", "HARD_SWISH"):
        return False
    shape = net.const(np.array(net.shape(inputs[0]), np.int32))
    net.ops[number] = ("RESHAPE", [inputs[0], shape], outputs, "ReshapeOptions", {}, version)
    return True


def swap(net: Net, number: int, ranges: quantiser.Ranges) -> bool:
    """Two output channels of a layer change places."""
    found = _weights(net, number)
    if found is None:
        return False
    (weights, *bias), axis = found
    count = net.shape(weights)[axis]
    if count < 2:
        return False
    order = np.arange(count)
    order[[0, 1]] = 1, 0
    _set(net, weights, lambda w: np.take(w, order, axis))
    for b in bias:
        _set(net, b, lambda v: v[order])
    return True


def zero_point(net: Net, number: int, ranges: quantiser.Ranges) -> bool:
    """What a layer puts out is :data:`CODES` codes too high."""
    found = _weights(net, number)
    if found is None or len(found[0]) < 2:
        return False
    low, high = ranges[net.ops[number][2][0]]
    _set(net, found[0][1], lambda v: v + np.float32(CODES * (high - low) / 255))
    return True


def double(net: Net, number: int, ranges: quantiser.Ranges) -> bool:
    """What a layer puts out is taken for twice as much."""
    found = _weights(net, number)
    if found is None:
        return False
    for tensor in found[0]:
        _set(net, tensor, lambda v: 2 * v)
    return True


def _set(net: Net, tensor: int, change: Callable[[Any], Any]) -> None:
    value = net.tensors[tensor]["value"]
    net.tensors[tensor]["value"] = np.ascontiguousarray(change(value), value.dtype)


EDITS: dict[str, Edit] = {
    "one pixel off": shift,
    "activation dropped": drop,
    "channels swapped": swap,
    "zero point wrong": zero_point,
    "scale doubled": double,
}


def killed(seed: int, kmodel: int) -> dict[str, bool]:
    """Fault -> whether the bound of float network ``seed`` finds it; faults that have no site
    in it are left out."""
    made = network(seed)
    drawn = made.drawn
    model = FloatModel(drawn.net.build(*drawn.net.outputs), keep_all=True)
    ranges = quantiser.measured(model, drawn.inputs)
    rng = np.random.default_rng(seed)
    found = {}
    for name, edit in EDITS.items():
        for number in rng.permutation(len(drawn.net.ops)):
            mutant = copy.deepcopy(drawn.net)
            if not edit(mutant, int(number), ranges):
                continue
            if (seen := _seen(made, mutant.build(*drawn.net.outputs), kmodel)) is not None:
                found[name] = seen
                break
    return {**found, **_noisy(made, kmodel)}


def _seen(made: Network, mutant: bytes, kmodel: int) -> bool | None:
    """Whether the bounds are missed; None where nothing is changed or the file is refused."""
    changed = outputs_of(FloatModel(mutant), made.drawn.inputs)
    if all(decibels(r, y) > EXACT for r, y in zip(made.reference, changed, strict=True)):
        return None
    try:
        got = simulate(made, compile_network(made, mutant, kmodel), None)
    except CompileError:
        return None
    return _misses(made, got)


def _misses(made: Network, got: Any) -> bool:
    reached = [decibels(r, y) for r, y in zip(made.reference, got, strict=True)]
    return any(r < b for r, b in zip(reached, made.bounds, strict=True))


def _noisy(made: Network, kmodel: int) -> dict[str, bool]:
    """Outputs with so much noise more that they lose :data:`LOST` dB."""
    try:
        got = simulate(made, compile_network(made, made.tflite, kmodel), None)
    except CompileError:
        return {}
    rng = np.random.default_rng(made.seed)
    worse = []
    for r, y in zip(made.reference, got, strict=True):
        noise = max(float(np.square(r - y).sum()), 1e-6 * float(np.square(r - r.mean(0)).sum()))
        more = rng.normal(0, 1, y.shape)
        worse.append(y + more * np.sqrt(noise * (10 ** (LOST / 10) - 1) / np.square(more).sum()))
    return {"10 dB lost": _misses(made, worse)}
