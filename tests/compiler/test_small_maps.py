"""No KPU layer puts out a map below 4x4 unless asked to, and what it computes is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k210tasks.compiler import forms
from k210tasks.compiler.checking import check
from k210tasks.compiler.options import SmallMaps
from k210tasks.compiler.passes.legalise import allowed
from k210tasks.compiler.pipeline import lowered
from k210tasks.compiler.problems import PassBroke, Unsupported
from k210tasks.kmodel import parse
from tests.compiler.helpers import Outcome, decibels, fixture, kinds, same_after_legalise
from tests.compiler.tflite_builder import Net

Draw = Callable[[Any], Any]
MODES: tuple[SmallMaps, ...] = ("padded", "kpu")
ACTS = st.sampled_from(["NONE", "RELU", "RELU6"])

# What ten 8-bit layers may lose; a map misplaced by one pixel loses all.
LEAST = 20.0


def smallest(outcome: Outcome) -> int:
    """The least height or width of what the KPU layers of the file put out."""
    layers = parse(outcome.compiled.kmodel).layers
    shapes = [layer.registers.out_shape for layer in layers if hasattr(layer, "registers")]
    return min((min(shape[1:]) for shape in shapes), default=4)


# -- blocks that bring a map down, or go on with a small one


def _conv(draw: Draw, net: Net, x: int) -> int:
    stride = draw(st.sampled_from([(1, 1), (2, 2), (2, 2), (2, 2), (4, 4), (3, 3), (1, 2)]))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (2, 2)]))
    return net.conv(x, draw(st.sampled_from([2, 4, 8, 12])), kernel, stride=stride, act=draw(ACTS))


def _valid(draw: Draw, net: Net, x: int) -> int:
    if min(net.shape(x)[1:3]) < 3:
        return x
    stride = draw(st.sampled_from([(1, 1), (2, 2)]))
    return net.conv(x, 4, (3, 3), stride=stride, padding="VALID", act=draw(ACTS))


def _separable(draw: Draw, net: Net, x: int) -> int:
    stride = draw(st.sampled_from([(1, 1), (2, 2), (2, 2)]))
    x = net.depthwise(x, stride=stride, act=draw(ACTS))
    return net.conv(x, draw(st.sampled_from([4, 8])), (1, 1), act=draw(ACTS))


def _pool(draw: Draw, net: Net, x: int) -> int:
    kind = draw(st.sampled_from(["MAX", "MAX", "MAX", "AVERAGE"]))
    k = draw(st.sampled_from([2, 2, 3, 4]))
    padding = draw(st.sampled_from(["SAME", "VALID"]))
    if padding == "VALID" and min(net.shape(x)[1:3]) < k:
        return x
    stride = draw(st.sampled_from([k, 2]))
    return net.pool(x, kind, (k, k), stride=(stride, stride), padding=padding)


def _residual(draw: Draw, net: Net, x: int) -> int:
    """Two ways at one stride: 3x3 and 1x1, or 1x1 twice of one map."""
    stride = draw(st.sampled_from([(1, 1), (2, 2)]))
    c = draw(st.sampled_from([4, 8]))
    near = net.depthwise(x, stride=stride) if draw(st.booleans()) else x
    left = stride if near == x else (1, 1)
    a = net.conv(near, c, draw(st.sampled_from([(3, 3), (1, 1)])), stride=left, act=draw(ACTS))
    b = net.conv(near, c, (1, 1), stride=left)
    return net.binary(draw(st.sampled_from(["ADD", "SUB"])), a, b, act=draw(ACTS))


def _branches(draw: Draw, net: Net, x: int) -> int:
    stride = draw(st.sampled_from([(1, 1), (2, 2)]))
    act = draw(ACTS)
    parts = [net.conv(x, 4, k, stride=stride, act=act) for k in ((1, 1), (3, 3))]
    if draw(st.booleans()):
        parts.append(net.conv(parts[0], 4, (1, 1), act=act))
    return net.conv(net.concat(parts, 3), 8, draw(st.sampled_from([(1, 1), (3, 3)])))


BLOCKS = [_conv, _conv, _valid, _separable, _separable, _pool, _pool, _residual, _branches]


@st.composite
def networks(draw: Draw) -> Net:
    """Three to five blocks on a map of 4 to 18 pixels a side: most end below 4x4."""
    side = st.integers(4, 18)
    net = Net((1, draw(side), draw(side), draw(st.sampled_from([1, 3, 4]))), seed=draw(side))
    x = net.input
    for _ in range(draw(st.integers(3, 5))):
        x = draw(st.sampled_from(BLOCKS))(draw, net, x)
    if x == net.input:
        x = net.conv(x, 4)
    head = draw(st.sampled_from(["map", "mean", "dense"]))
    if head == "mean":
        x = net.reduce("MEAN", x, [1, 2], draw(st.booleans()))
    elif head == "dense":
        x = net.dense(net.reshape(x, (1, int(np.prod(net.shape(x))))), 16, act="RELU")
        x = net.dense(x, 200)
    net.outputs = [x]
    return net


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
@pytest.mark.parametrize("kmodel", [3, 4])
def test_small_maps_are_computed_in_larger_ones(kmodel: int, net: Net) -> None:
    tflite = net.build(*net.outputs)
    try:
        lowered(tflite, kmodel, small_maps="kpu")
    except Unsupported:
        return
    made = {}
    for mode in MODES:
        same_after_legalise(tflite, kmodel, mode)
        made[mode] = Outcome(tflite, kmodel, small_maps=mode)
    assert smallest(made["padded"]) >= 4
    wanted = np.stack([r[0] for r in made["kpu"].reference])
    # Outputs that average to almost nothing are measured against the values they are made of.
    floor = 0.02
    results = [np.stack([g[0] for g in made[mode].got]) for mode in MODES]
    for a, b in ((wanted, results[0]), (wanted, results[1]), (results[1], results[0])):
        noise = float(np.sqrt(np.mean(np.square(a - b))))
        assert decibels(a, b) > LEAST or noise < floor, made["padded"].compiled.listing


# -- each kind by itself


def _separable_tail(net: Net, x: int) -> int:
    """The end of a MobileNet at 96 pixels: 6x6, then 3x3."""
    for stride in ((2, 2), (1, 1)):
        x = net.conv(net.depthwise(x, stride=stride, act="RELU6"), 16, (1, 1), act="RELU6")
    return net.reduce("MEAN", x, [1, 2], False)


def _sum(net: Net, x: int) -> int:
    near = net.depthwise(x, stride=(2, 2))
    a, b = (net.conv(near, 8, (1, 1), act="RELU") for _ in range(2))
    return net.conv(net.binary("ADD", a, b), 8, (1, 1))


def _joined(net: Net, x: int) -> int:
    near = net.depthwise(x, stride=(2, 2))
    parts = [net.conv(near, 8, (1, 1), act="RELU") for _ in range(3)]
    return net.conv(net.concat(parts, 3), 8, (1, 1))


def _residual_of_unlike(net: Net, x: int) -> int:
    y = net.conv(net.conv(x, 8, stride=(2, 2), act="RELU"), 8)
    return net.conv(net.binary("ADD", y, net.conv(x, 8, (1, 1), stride=(2, 2)), act="RELU"), 4)


#: input shape, network
NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[Net, int], int]]] = {
    "pointwise": ((1, 6, 6, 3), lambda n, x: n.conv(x, 8, (1, 1), stride=(2, 2))),
    "pointwise, wide": ((1, 6, 90, 3), lambda n, x: n.conv(x, 8, (1, 1), stride=(2, 2))),
    "wide, then pointwise": (
        (1, 6, 90, 3), lambda n, x: n.conv(n.conv(x, 8, (1, 1), stride=(2, 2)), 4, (1, 1)),
    ),
    "stride 4": ((1, 12, 12, 3), lambda n, x: n.conv(n.conv(x, 8, (1, 1), stride=(4, 4)), 4)),
    "3x3 VALID": (
        (1, 7, 7, 3), lambda n, x: n.conv(n.conv(x, 8, stride=(2, 2), padding="VALID"), 4, (1, 1)),
    ),
    "3x3 twice": (
        (1, 7, 7, 3), lambda n, x: n.conv(n.conv(n.pool(x, "MAX", (2, 2)), 8, act="RELU"), 4),
    ),
    "separable": ((1, 12, 12, 4), lambda n, x: _separable_tail(n, n.conv(x, 8, stride=(2, 2)))),
    "max 2x2": ((1, 6, 6, 3), lambda n, x: n.conv(n.pool(n.conv(x, 8), "MAX", (2, 2)), 4, (1, 1))),
    "max 2x2 of depthwise": (
        (1, 6, 6, 3), lambda n, x: n.conv(n.pool(n.depthwise(x), "MAX", (2, 2)), 4),
    ),
    "max 4x4": ((1, 12, 13, 3), lambda n, x: n.conv(n.pool(n.conv(x, 8), "MAX", (4, 4)), 4)),
    "max 4x4 of 5x6": ((1, 5, 6, 3), lambda n, x: n.conv(n.pool(n.conv(x, 8), "MAX", (4, 4)), 4)),
    "max of max": (
        (1, 14, 12, 3),
        lambda n, x: n.pool(n.pool(n.pool(n.conv(x, 8), "MAX", (2, 2)), "MAX", (2, 2)), "MAX",
                            (2, 2)),
    ),
    "sum": ((1, 6, 6, 4), _sum),
    "concatenation": ((1, 6, 6, 4), _joined),
    "sum of unlike maps": ((1, 6, 6, 4), _residual_of_unlike),
    "dense": (
        (1, 6, 6, 4),
        lambda n, x: n.dense(n.reshape(n.conv(x, 64, (1, 1), stride=(2, 2)), (1, 576)), 40),
    ),
}  # fmt: skip


def build(name: str, seed: int = 3) -> Net:
    shape, layers = NETWORKS[name]
    net = Net(shape, seed=seed)
    layers(net, net.input)
    return net


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_kind_of_small_map(name: str, kmodel: int) -> None:
    tflite = build(name).build()
    made = {mode: Outcome(tflite, kmodel, small_maps=mode) for mode in MODES}
    for mode in MODES:
        same_after_legalise(tflite, kmodel, mode)
        assert made[mode].decibels()[0] > 26, mode
    assert smallest(made["padded"]) >= 4
    assert smallest(made["kpu"]) < 4
    a, b = (np.stack([g[0] for g in made[mode].got]) for mode in MODES)
    assert decibels(b, a) > 26


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", ["separable", "max 2x2", "sum", "concatenation", "pointwise"])
def test_the_kpu_goes_on_with_strided_maps_where_it_can(name: str, kmodel: int) -> None:
    graph = lowered(build(name).build(), kmodel)
    trips = [k for k in kinds(graph) if k == "upload"]
    # A 3x3 kernel alone needs the pixels side by side.
    assert len(trips) == (1 if name == "separable" else 0)


def _reading_the_finer(net: Net, x: int) -> int:
    """A map of small values joined to one of large ones, of which nothing is read."""
    near = net.conv(x, 8, stride=(2, 2), act="RELU")
    fine = net.conv(near, 4, (1, 1), gain=0.05, bias=False)
    large = net.binary("MUL", net.conv(near, 4, (1, 1)), net.const(np.float32(20.0)))
    joined = net.concat([fine, large], 3)
    weights = np.zeros((4, 3, 3, 8), np.float32)
    weights[..., :4] = net.rng.normal(0, 0.2, (4, 3, 3, 4))
    given = [joined, net.const(weights), net.const(np.zeros(4, np.float32))]
    return net.op(
        "CONV_2D", given, (1, *net.shape(joined)[1:3], 4), "Conv2DOptions", Padding=0, StrideH=1,
        StrideW=1, DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=0,
    )  # fmt: skip


@pytest.mark.parametrize("size", [6, 12])
@pytest.mark.parametrize("kmodel", [3, 4])
def test_small_maps_of_unlike_ranges_keep_their_steps_when_joined(kmodel: int, size: int) -> None:
    net = Net((1, size, size, 4), seed=3)
    _reading_the_finer(net, net.input)
    assert Outcome(net.build(), kmodel).decibels()[0] > 26


@pytest.mark.parametrize(
    ("kmodel", "channels", "cpu"), [(3, 8, True), (4, 8, False), (4, 200, True)]
)
def test_pools_that_would_take_copies_are_left_to_the_cpu(
    kmodel: int, channels: int, cpu: bool
) -> None:
    net = Net((1, 8, 8, 3))
    x = net.pool(net.conv(net.input, channels, act="RELU"), "MAX", (4, 4))
    net.conv(x, 4, (1, 1))
    assert ("pool" in kinds(lowered(net.build(), kmodel))) is cpu


def test_a_map_whose_other_side_is_long_is_made_small_before_it_is_read() -> None:
    graph = lowered(build("wide, then pointwise").build(), 4)
    sides = [op.input.shape[2:] for op in graph.ops if op.kind == "kpu_conv"]
    assert sides == [(6, 90), (4, 45)]  # half the rows of 64 pixels that 6x90 takes


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_checker_refuses_small_outputs_unless_they_are_asked_for(kmodel: int) -> None:
    graph = lowered(build("pointwise").build(), kmodel, small_maps="kpu")
    forms.check(graph, "legalise", allowed(kmodel, "kpu"))
    with pytest.raises(PassBroke, match="a map of less than 4x4 in KPU RAM"):
        forms.check(graph, "legalise", allowed(kmodel))


@pytest.mark.parametrize("kmodel", [3, 4])
def test_padding_costs_a_mobilenet_next_to_nothing(kmodel: int) -> None:
    new, old = (check(fixture("vww_96_float.tflite"), kmodel, mode) for mode in MODES)
    assert new.estimated_kpu_ms
    assert old.estimated_kpu_ms
    assert new.estimated_kpu_ms < 1.01 * old.estimated_kpu_ms
    assert new.kpu_bytes == old.kpu_bytes
    assert (new.model_bytes or 0) < 1.02 * (old.model_bytes or 0)
