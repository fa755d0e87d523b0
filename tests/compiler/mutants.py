"""Networks with one fault put in on purpose, to see whether the random tests would find it.

A mutant is compiled as it is and measured against the network it was made of. Sites where the
fault changes nothing, a clamp that nothing reaches, say, are passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.problems import CompileError
from k210tasks.reference.litert import FloatModel
from tests.compiler import quantiser
from tests.compiler.judging import (
    EXACT,
    LOST,
    Network,
    Outputs,
    all_decibels,
    below,
    bounds,
    compile_network,
    least_before,
    missed,
    network,
    outputs_of,
    simulate,
)  # fmt: skip
from tests.compiler.tflite_builder import Net

Edit = Callable[[Net, int, quantiser.Ranges], "bool"]  # False: not at this op

LAYERS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # and axis of outputs
CODES = 8  # by how much a zero point is wrong
WIDE = 8


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
    name, inputs, outputs, _, fields, version = net.ops[number]
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
    in it are left out, and so is everything where the network itself is an int8 file, refused or
    wrong."""
    made = network(seed)
    net = made.drawn.net
    if made.drawn.source != "float":
        return {}
    try:
        compiled = compile_network(made, made.tflite, kmodel)
    except CompileError:
        return {}
    trial = _Trial(made, kmodel, bounds(made, compiled))
    right = simulate(made, compiled)
    if trial.misses(right):
        return {}
    rng = np.random.default_rng(seed)
    found = {}
    for name, edit in EDITS.items():
        for number in rng.permutation(len(net.ops)):
            mutant = copy.deepcopy(net)
            if not edit(mutant, int(number), made.ranges):
                continue
            if (seen := trial.finds(mutant.build(*net.outputs))) is not None:
                found[name] = seen
                break
    held = [row.tensor for row in compiled.layers if row.tensor in made.ranges]
    if held:
        seen = trial.coarse(right, held[int(rng.integers(len(held)))])
        if seen is not None:
            found["steps too wide"] = seen
    return found


@dataclass(frozen=True, slots=True)
class _Trial:
    made: Network
    kmodel: int
    bounds: list[float]

    def misses(self, got: Outputs) -> bool:
        reference = self.made.reference
        return missed(reference, got, self.bounds) or below(
            all_decibels(reference, got), least_before(self.made.seed, self.kmodel)
        )

    def finds(self, mutant: bytes) -> bool | None:
        """Whether the bounds are missed; None where nothing is changed or the file refused."""
        changed = outputs_of(FloatModel(mutant), self.made.drawn.inputs)
        if min(all_decibels(self.made.reference, changed)) > EXACT:
            return None
        try:
            compiled = compile_network(self.made, mutant, self.kmodel)
        except CompileError:
            return None
        return self.misses(simulate(self.made, compiled))

    def coarse(self, right: Outputs, tensor: int) -> bool | None:
        """Whether it is found that the codes of ``tensor`` are :data:`WIDE` times too far apart;
        None where that loses no output :data:`LOST` dB."""

        def change(calibration: Calibration) -> None:
            stats = calibration.tensors[tensor]
            stats.channel_low = stats.channel_low * WIDE
            stats.channel_high = stats.channel_high * WIDE

        compiled = compile_network(self.made, self.made.tflite, self.kmodel, change)
        got = simulate(self.made, compiled)
        before, after = (all_decibels(self.made.reference, y) for y in (right, got))
        lost = max(a - b for a, b in zip(before, after, strict=True))
        return None if lost < LOST else self.misses(got)
