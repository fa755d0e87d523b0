"""A clamp and then a curve in one layer: as good as either alone.

What the layer's sums could reach is of no use as the range of its table: it is many times
what any sample reaches, and what the clamp lets through is all that the curve sees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.ops import KpuConv, Quantize
from k210tasks.compiler.pipeline import lowered
from tests.compiler.helpers import Outcome
from tests.compiler.tflite_builder import Net

ACTS = ("RELU", "RELU6", "RELU_N1_TO_1")
CURVES = ("HARD_SWISH", "TANH", "LOGISTIC")


def conv(net: Net, act: str) -> int:
    return net.conv(net.conv(net.input, 64, act="RELU"), 8, act=act, gain=4.0)


def depthwise(net: Net, act: str) -> int:
    return net.depthwise(net.conv(net.input, 8, gain=4.0), act=act)


def dense(net: Net, act: str) -> int:
    x = net.conv(net.input, 8, act="RELU")
    return net.dense(net.reshape(x, (1, 512)), 16, act=act)


def shifted(net: Net, act: str) -> int:
    """A constant goes into the weights, and what was measured before it is of no layer."""
    x = net.conv(net.conv(net.input, 64, act="RELU"), 8)
    return net.binary("ADD", x, net.const(np.float32(0.5)), act=act)


LAYERS: tuple[Callable[[Net, str], int], ...] = (conv, depthwise, dense, shifted)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_curve_after_a_clamp_loses_nothing(
    layer: Callable[[Net, str], int], act: str, curve: str, kmodel: int
) -> None:
    net = Net((1, 8, 8, 3), seed=4)
    y = net.unary(curve, layer(net, act))
    outcome = Outcome(net.build(y), kmodel)
    reference = np.stack([r[0] for r in outcome.reference])
    noise = np.stack([g[0] for g in outcome.got]) - reference
    # A few steps of eight bits, whose codes hold zero: three layers, rounded each.
    span = max(reference.max(), 0.0) - min(reference.min(), 0.0)
    assert np.sqrt(np.square(noise).mean()) < 2.5 * span / 255


@pytest.mark.parametrize("rest", ["", "fused"])
def test_layers_know_the_last_measured_tensor_within_them(rest: str) -> None:
    """By hand: of convolution, clamp and curve in three ops it is the sums, of a clamp fused into
    the convolution what it clamped, and after a factor for each channel what that gave."""
    net = Net((1, 8, 8, 3))
    sums = net.conv(net.input, 4, act="RELU6" if rest else "NONE")
    clamped = sums if rest else net.unary("RELU6", sums)
    tflite = net.build(net.unary("TANH", clamped))
    (layer,) = [op for op in lowered(tflite, 4).ops if isinstance(op, KpuConv)]
    assert layer.pre is not None
    assert layer.pre.tensor.source == sums
    assert layer.pre[1:] == ((0.0, 6.0) if rest else (-np.inf, np.inf))


def test_a_curve_on_floats_of_kmodel_3_sees_codes_of_what_the_clamp_lets_through() -> None:
    net = Net((1, 4))
    x = net.dense(net.input, 24, act="RELU6")
    net.dense(net.unary("TANH", x), 1)
    graph = lowered(net.build(), 3)

    def writer(tensor: Tensor) -> Op:
        return next(op for op in graph.ops if tensor in op.outputs)

    (table,) = [op for op in graph.ops if op.kind == "requantize"]
    first = writer(table.input)
    assert isinstance(first, Quantize)
    assert first.clamp == (0.0, 6.0)
    assert table.input.source == x


def _clamped(net: Net, gain: float) -> int:
    return net.conv(net.conv(net.input, 8, act="RELU6", gain=gain), 4)


def _curved(net: Net, gain: float) -> int:
    return net.unary("LOGISTIC", net.conv(net.input, 8, gain=gain))


def _beside_its_input(net: Net, gain: float) -> int:
    both = net.concat([net.conv(net.input, 8, act="RELU6", gain=gain), net.input], 3)
    return net.conv(both, 4, act="RELU6", gain=gain)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("build", [_clamped, _curved, _beside_its_input])
def test_sums_far_beyond_a_bound_cost_none_of_its_steps(
    build: Callable[[Net, float], int], kmodel: int
) -> None:
    """As of pressures in pascals before a clamp at six: they fill the registers of the KPU."""
    found = []
    for gain in (1e5, 3e7):
        net = Net((1, 8, 8, 3), seed=3)
        found.append(Outcome(net.build(build(net, gain)), kmodel).decibels()[0])
    assert found[1] > found[0] - 3
