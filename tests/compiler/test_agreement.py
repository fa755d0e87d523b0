"""Codes mean the same to all who handle them: structures that broke it, and the checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler import encode_v3, encode_v4, forms, ops
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics import range_choice as choosing
from k210tasks.compiler.options import Options
from k210tasks.compiler.passes.legalise import allowed
from k210tasks.compiler.passes.place import Memory
from k210tasks.compiler.passes.quantise import quantise
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.pipeline import prepared
from k210tasks.compiler.problems import PassBroke
from k210tasks.compiler.source import Source
from k210tasks.reference.litert import measurable
from tests.compiler.helpers import Outcome, pixels, same_after_legalise, scaled
from tests.compiler.tflite_builder import Net

# -- structures with shared producers and parts of unlike ranges


def halves(net: Net, x: int) -> list[int]:
    shape = [*net.shape(x)[:3], net.shape(x)[3] // 2]
    outs = [net.tensor(shape) for _ in range(2)]
    at = net.const(np.array(3, np.int32))
    net.ops.append(("SPLIT", [at, x], outs, "SplitOptions", {"NumSplits": 2}, 1))
    return outs


def cross_stage(net: Net) -> int:
    """conv, split, [conv, as it is], concat, conv: CSP networks, ShuffleNet v2."""
    a, b = halves(net, net.conv(net.input, 16, gain=3.0))
    return net.conv(net.concat([net.conv(a, 8, gain=0.3), b], 3), 4)


def crossed(net: Net) -> int:
    """Both halves read twice, joined the other way round, the joined map read by a 1x1 too."""
    a, b = halves(net, net.conv(net.input, 16, act="RELU"))
    joined = net.concat([b, net.depthwise(a)], 3)
    return net.binary("ADD", net.conv(joined, 8), net.conv(net.concat([a, joined], 3), 8, (1, 1)))


def skip(net: Net) -> int:
    """A ReLU6 map and a signed one in front of a padded layer: U-Nets."""
    x = net.conv(net.input, 8, act="RELU6", gain=6.0)
    return net.conv(net.concat([x, net.conv(x, 8, gain=0.4)], 3), 4)


def unlike(net: Net) -> int:
    """Parts fifty times larger than their neighbours, of either sign."""
    x = net.conv(net.input, 8, act="RELU", gain=8.0)
    parts = [x, net.conv(x, 8, (1, 1), gain=0.02), net.unary("NEG", x)]
    return net.conv(net.concat(parts, 3), 4)


def with_input(net: Net) -> int:
    """The model's input itself as a part, whose codes are given."""
    return net.conv(net.concat([net.conv(net.input, 8, gain=9.0), net.input], 3), 4)


def pooled(net: Net) -> int:
    """A map, its pool and its resize: movers of one set of codes, and one joined with others."""
    x = net.conv(net.input, 8, gain=2.0)
    y = net.resize(net.pool(x, "MAX", (2, 2)), (12, 12))
    return net.conv(net.concat([net.conv(y, 8, act="RELU"), y, x], 3), 4)


def residual(net: Net) -> int:
    x = net.conv(net.input, 8, act="RELU6", gain=4.0)
    y = net.binary("ADD", x, net.conv(x, 8, gain=0.5))
    return net.conv(net.concat([y, x], 3), 4, stride=(2, 2))


def pooled_parts(net: Net) -> int:
    """A joined map that is pooled: a pool cannot tell its parts apart."""
    x = net.conv(net.input, 8, act="RELU6", gain=6.0)
    y = net.pool(net.concat([x, net.conv(x, 8, gain=0.5)], 3), "MAX", (2, 2))
    return net.conv(y, 4)


STRUCTURES = (
    cross_stage, crossed, skip, unlike, with_input, pooled, residual, pooled_parts,
)  # fmt: skip


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("build", STRUCTURES)
def test_a_map_read_in_several_ways_means_one_thing(
    build: Callable[[Net], int], seed: int, kmodel: int
) -> None:
    net = Net((1, 12, 12, 3), seed=seed)
    tflite = net.build(build(net))
    same_after_legalise(tflite, kmodel)
    outcome = Outcome(tflite, kmodel, effort="normal")
    wanted = np.stack([r[0] for r in outcome.reference]).astype(np.float64)
    noise = np.square(wanted - np.stack([g[0] for g in outcome.got])).sum()
    signal = np.square(wanted - wanted.mean(0)).sum()
    assert 10 * np.log10(signal / noise) > 27, outcome.compiled.listing


# -- one zero point for several ranges


def test_one_range_gets_the_zero_point_it_would_have_alone() -> None:
    assert choosing.shared_zero_point([(-1.0, 3.0)]) == choosing.quantisation(-1.0, 3.0)[1] == 64
    assert choosing.shared_zero_point([(-1.0, 3.0)] * 3) == 64
    assert choosing.shared_zero_point([(0.0, 6.0), (0.0, 0.1)]) == 0
    assert choosing.shared_zero_point([(-6.0, 0.0), (-1.0, 0.0)]) == 255


@pytest.mark.parametrize("ranges", [[(0.0, 6.0), (-3.0, 3.0)], [(-5.0, 0.1), (0.0, 1.0)],
                                    [(-1e-5, 6.0), (-50.0, 60.0)]])  # fmt: skip
def test_a_shared_zero_point_serves_every_range(ranges: list[tuple[float, float]]) -> None:
    zero = choosing.shared_zero_point(ranges)
    for low, high in ranges:
        scale = choosing.scale_with(low, high, zero)
        assert -zero * scale <= low + scale / 2
        assert (255 - zero) * scale >= high - scale / 2
        assert scale <= 4 * (high - low) / 255  # two bits at most


# -- the checker finds what is broken by hand


def quantised(build: Callable[[Net], int], kmodel: int = 4) -> tuple[Graph, Callable[[], None]]:
    """A device graph with all its numbers, and the check after a pass."""
    net = Net((1, 12, 12, 3))
    tflite = net.build(build(net))
    calibration = compiler.calibrate(
        tflite, [scaled(p) for p in pixels((1, 12, 12, 3))], measurable
    )
    graph, contract = prepared(Source(tflite), calibration, Options(kmodel=kmodel, mean=0.5))
    quantise(graph, Ranges(calibration, "minmax"), contract, effort="fast")
    check = lambda: forms.check(graph, "a pass", allowed(kmodel), placed=True)  # noqa: E731
    check()
    return graph, check


def of_kind(graph: Graph, *kinds: str) -> list[Op]:
    return [op for op in graph.ops if op.kind in kinds]


def wider(tensor: Tensor) -> Quant:
    assert tensor.quant is not None
    return Quant(tensor.quant.scale * 1.5, tensor.quant.zero_point)


def test_what_moves_codes_may_not_change_what_they_mean() -> None:
    graph, check = quantised(cross_stage)
    (_, sibling) = of_kind(graph, "slice")
    sibling.output.quant = wider(sibling.output)  # as if its producer had been widened alone
    with pytest.raises(PassBroke, match="what moves codes has one quantisation"):
        check()


def test_a_map_and_its_copy_in_main_memory_mean_the_same() -> None:
    graph, check = quantised(cross_stage)
    layer = next(op for op in of_kind(graph, "kpu_conv") if len(op.outputs) > 1)
    layer.output.quant = wider(layer.output)
    layer.output.scales = None
    with pytest.raises(PassBroke, match="one quantisation"):
        check()


def test_parts_of_a_padded_map_share_their_zero_point() -> None:
    graph, check = quantised(skip)
    (joined,) = of_kind(graph, "kpu_concat")
    part = joined.inputs[0]
    assert part.quant is not None
    assert part.quant.zero_point > 0
    part.quant, part.scales = Quant(part.quant.scale, 0), None
    for layer in of_kind(graph, "kpu_conv"):
        layer.numbers = None  # which would tell sooner
    with pytest.raises(PassBroke, match="have one zero point"):
        check()


def test_parts_that_nobody_tells_apart_share_their_scale() -> None:
    graph, check = quantised(pooled_parts)
    joined = next(op for op in of_kind(graph, "kpu_concat"))
    assert len({part.quant for part in joined.inputs}) == 1
    joined.inputs[0].quant = wider(joined.inputs[0])
    with pytest.raises(PassBroke, match="one quantisation"):
        check()


@pytest.mark.parametrize("field", ["pad_value", "arg_w"])
def test_the_code_around_a_map_and_what_is_subtracted_are_its_zero_point(field: str) -> None:
    from dataclasses import replace

    graph, check = quantised(skip)
    layer = of_kind(graph, "kpu_conv")[-1]
    numbers: Any = layer.numbers
    layer.numbers = replace(numbers, **{field: getattr(numbers, field) + 1})
    with pytest.raises(PassBroke, match=r"zero point is|around the map is"):
        check()


def test_scales_by_channel_are_for_those_who_fold_them() -> None:
    graph, check = quantised(lambda net: net.conv(net.conv(net.input, 8, act="RELU"), 4))
    first, last = of_kind(graph, "kpu_conv")
    assert first.output.scales is not None
    assert last.outputs[-1].quant is not None
    for tensor in last.outputs:
        tensor.scales = np.full(4, last.outputs[-1].quant.scale)
    with pytest.raises(PassBroke, match="for maps that KPU layers read"):
        check()
    for tensor in last.outputs:
        tensor.scales = None
    first.fn = (("tanh",),)
    with pytest.raises(PassBroke, match="a function that keeps factors"):
        check()


# -- encoders refuse what they do not write


def one(kind: Any, shape: tuple[int, ...], out: tuple[int, ...], **fields: Any) -> Any:
    return kind([Tensor("x", shape)], [Tensor("y", out)], ("TRIED #0",), **fields)


@pytest.mark.parametrize(
    ("op", "kmodels"),
    [
        (one(ops.Softmax, (1, 4, 2, 2), (1, 4, 2, 2), axis=1, beta=1.0), (3, 4)),
        (one(ops.Softmax, (1, 8), (1, 8), axis=1, beta=2.0), (3,)),
        (one(ops.Softmax, (3, 8), (3, 8), axis=1, beta=1.0), (3,)),
        (one(ops.L2Norm, (1, 4, 2, 2), (1, 4, 2, 2), axis=1), (3,)),
        (one(ops.Reduce, (1, 4, 2, 2), (1, 4, 1, 2), how="mean", axes=(2,)), (3,)),
        (one(ops.Reduce, (1, 4, 2, 2), (1, 4, 1, 1), how="max", axes=(2, 3)), (3,)),
        (one(ops.Binary, (1, 8), (1, 8), how="mul", fn=()), (3,)),
        (one(ops.Binary, (1, 8), (1, 8), how="add", fn=(("tanh",),)), (3, 4)),
        (one(ops.Transpose, (1, 4, 2, 2), (1, 2, 4, 2), perm=(0, 2, 1, 3)), (3,)),
        (one(ops.Resize, (1, 4, 2, 2), (1, 4, 4, 4), mode="nearest", align_corners=True,
             half_pixel=False), (3, 4)),
        (one(ops.Resize, (1, 4, 2, 2), (1, 4, 4, 4), mode="bilinear", align_corners=False,
             half_pixel=True), (3, 4)),
        (one(ops.Pad, (1, 4, 2, 2), (1, 5, 2, 2), pads=((0, 0), (0, 1), (0, 0), (0, 0)),
             value=0.0), (3,)),
        (one(ops.Pad, (1, 4, 2, 2), (1, 4, 3, 2), pads=((0, 0), (0, 0), (0, 1), (0, 0)),
             value=1.0), (3,)),
        (one(ops.Slice, (1, 4, 4, 4), (1, 2, 2, 4), begin=(0, 1, 1, 0),
             strides=(1, 1, 1, 1)), (3,)),
        (one(ops.Map, (1, 8), (1, 8), fn=(("tanh",),)), (3,)),
        (one(ops.Concat, (2, 8), (2, 8), axis=1), (3,)),
        (one(ops.Dense, (2, 8), (2, 4), weights=np.zeros((4, 8)), bias=np.zeros(4), fn=()), (3,)),
        (one(ops.Dense, (1, 8), (1, 4), weights=np.zeros((4, 8)), bias=np.zeros(4),
             fn=(("clamp", -1.0, 1.0),)), (3,)),
        (one(ops.Pool, (1, 4, 4, 4), (1, 4, 2, 2), how="mean", kernel=(2, 2), stride=(2, 2),
             pads=(0, 0, 0, 0), fn=(("clamp", 0.0, 6.0),)), (3,)),
    ],
)  # fmt: skip
def test_an_encoder_refuses_an_attribute_that_it_does_not_write(
    op: Op, kmodels: tuple[int, ...]
) -> None:
    if isinstance(op, ops.Binary):
        op.inputs.append(Tensor("z", op.input.shape))
    memory = Memory(bytes=dict.fromkeys((*op.inputs, *op.outputs), 0))
    graph = Graph([op.input], [op.output], [op])
    for kmodel in kmodels:
        encoder = encode_v3 if kmodel == 3 else encode_v4
        with pytest.raises(PassBroke, match=r"internal error after pass encode: "):
            encoder.encode(graph, memory)  # type: ignore[attr-defined]
