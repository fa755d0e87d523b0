"""What each construct becomes, and that it stays on the KPU where it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from k210tasks.compiler.checking import check
from k210tasks.compiler.passes.kpu_large import moves_of
from k210tasks.compiler.pipeline import lowered
from k210tasks.compiler.problems import NeedsKmodel4, TooLarge, Unsupported
from tests.compiler.helpers import Outcome, fixture, kinds, proven, same_after_legalise
from tests.compiler.tflite_builder import Net

Build = Callable[[Any], int]
KPU = {"kpu_conv", "dequantize"}


def build(shape: tuple[int, ...], *layers: Build, seed: int = 0) -> Any:
    """A chain: each of ``layers`` maps the net, whose last output is ``net.last``."""
    net: Any = Net(shape, seed=seed)
    net.last = net.input
    for layer in layers:
        net.last = layer(net)
    net.outputs = [net.last]
    return net


def conv(channels: int, *args: object, **more: object) -> Build:
    return lambda n: n.conv(n.last, channels, *args, **more)


def depthwise(*args: object, **more: object) -> Build:
    return lambda n: n.depthwise(n.last, *args, **more)


def pool(kind: str, kernel: tuple[int, int], **more: object) -> Build:
    return lambda n: n.pool(n.last, kind, kernel, **more)


def pad(*pads: tuple[int, int]) -> Build:
    return lambda n: n.pad(n.last, [(0, 0), *pads, (0, 0)])


#: built so that the whole network runs on the KPU, whatever the format
ON_KPU: dict[str, tuple[tuple[int, ...], tuple[Build, ...]]] = {
    "stride 2, even": ((1, 16, 16, 3), (conv(8, stride=(2, 2)), conv(4, (1, 1)))),
    "stride 2, even, alone": ((1, 16, 16, 3), (conv(8, stride=(2, 2)),)),
    "stride 2, depthwise": ((1, 16, 16, 4), (depthwise(stride=(2, 2)), conv(8, (1, 1)))),
    "stride 2, depthwise twice": (
        (1, 32, 32, 4), (depthwise(stride=(2, 2)), depthwise(stride=(2, 2)), conv(4, (1, 1))),
    ),
    "stride 2, explicit pad": (
        (1, 16, 16, 3), (pad((1, 1), (1, 1)), conv(8, stride=(2, 2), padding="VALID")),
    ),
    "stride 2, pad after only": (
        (1, 16, 16, 3), (pad((0, 1), (0, 1)), conv(8, stride=(2, 2), padding="VALID")),
    ),
    "stride 4": ((1, 16, 16, 3), (conv(8, stride=(4, 4)),)),
    "stride 2, 1x1": ((1, 16, 16, 3), (conv(8, (1, 1), stride=(2, 2)),)),
    "stride 2, valid, odd": ((1, 17, 17, 3), (conv(8, stride=(2, 2), padding="VALID"),)),
    "2x2 stride 2": ((1, 16, 16, 3), (conv(8, (2, 2), stride=(2, 2), padding="VALID"),)),
    "1x3": ((1, 12, 9, 3), (conv(8, (1, 3)),)),
    "3x1": ((1, 12, 9, 3), (conv(8, (3, 1)),)),
    "2x2": ((1, 12, 10, 3), (conv(8, (2, 2)),)),
    "5x5": ((1, 12, 12, 3), (conv(8, (5, 5)),)),
    "7x7": ((1, 12, 12, 1), (conv(8, (7, 7)),)),
    "5x5 of 8 channels": ((1, 12, 12, 8), (conv(8, (5, 5)),)),
    "5x5 stride 2": ((1, 12, 12, 3), (conv(8, (5, 5), stride=(2, 2)), conv(4, (1, 1)))),
    "10x4 stride 2": ((1, 48, 10, 1), (conv(8, (10, 4), stride=(2, 2)), conv(4, (1, 1)))),
    "4x4": ((1, 12, 12, 3), (conv(8, (4, 4)),)),
    "7x7 valid stride 2": (
        (1, 17, 17, 3), (conv(8, (7, 7), stride=(2, 2), padding="VALID"), conv(4, (1, 1))),
    ),
    "5x5 depthwise": ((1, 12, 12, 24), (depthwise((5, 5)),)),
    "dilation 2": ((1, 12, 12, 3), (conv(8, dilation=(2, 2)),)),
    "dilation 3 of 8 channels": ((1, 12, 12, 8), (conv(8, dilation=(3, 3)),)),
    "depth multiplier": ((1, 12, 12, 3), (depthwise(multiplier=3),)),
    "max pool": ((1, 12, 12, 3), (conv(8, act="RELU"), pool("MAX", (2, 2)))),
    "max pool 4x4": ((1, 16, 16, 3), (conv(8), pool("MAX", (4, 4)))),
    "max pool of 1": ((1, 12, 12, 3), (conv(8), pool("MAX", (2, 2), stride=(1, 1),
                                                     padding="SAME"))),
    "max pool 3x3 stride 2": (
        (1, 16, 16, 3), (conv(8), pool("MAX", (3, 3), stride=(2, 2), padding="SAME"), conv(4)),
    ),
    "max pool 3x3 stride 1": (
        (1, 12, 12, 3), (conv(8), pool("MAX", (3, 3), stride=(1, 1), padding="SAME")),
    ),
    "mean pool": ((1, 12, 12, 3), (conv(8), pool("AVERAGE", (2, 2)), conv(4, (1, 1)))),
}  # fmt: skip


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", ON_KPU)
def test_it_runs_on_the_kpu_alone(name: str, kmodel: int) -> None:
    shape, layers = ON_KPU[name]
    net = build(shape, *layers)
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    left = [k for k in kinds(graph) if k not in KPU]
    # What is left over of a map wider than what is meant is cut off at the very end.
    assert left in ([], ["slice"]), left
    if left:
        assert graph.ops[-2].kind == "slice"
    proven(net, kmodel, 28.0, *net.outputs)


VALID = build(
    (1, 28, 28, 1),
    conv(8, padding="VALID", act="RELU"),
    pool("MAX", (2, 2)),
    conv(16, padding="VALID", act="RELU"),
    pool("MAX", (2, 2)),
    lambda n: n.dense(n.reshape(n.last, (1, 400)), 10),
)


@pytest.mark.parametrize("reach", range(2, 9))
def test_copies_of_a_map_are_moved_so_that_every_tap_is_reached_safely(reach: int) -> None:
    for low in range(-reach, 1):
        table = moves_of(low, reach)
        for offset in range(low, reach + 1):
            move, tap = table[offset]
            assert move + tap == offset
            assert tap in (-1, 0, 1)
            if move:  # never back towards the pixel
                assert tap * move >= 0
            assert abs(move) <= abs(offset)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_valid_network_crops_once_before_its_dense_layer(kmodel: int) -> None:
    graph = same_after_legalise(VALID.build(*VALID.outputs), kmodel)
    found = kinds(graph)
    assert found.count("slice") == (1 if kmodel == 3 else 2)  # and the vector's pixel in kmodel 4
    last_conv = max(i for i, k in enumerate(found[: found.index("slice")]) if k == "kpu_conv")
    assert set(found[: last_conv + 1]) == {"kpu_conv"}
    proven(VALID, kmodel, 28.0, *VALID.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_odd_maps_with_stride_2_take_one_trip_through_main_memory(kmodel: int) -> None:
    net = build((1, 15, 13, 4), depthwise(stride=(2, 2)), conv(8, (1, 1)), conv(8, (3, 3)))
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert [k for k in kinds(graph) if k not in KPU] == ["slice", "upload"]
    proven(net, kmodel, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_shift_recipe_costs_nine_bytes_a_channel(kmodel: int) -> None:
    net = build((1, 16, 16, 8), depthwise(stride=(2, 2)), conv(16, (1, 1)))
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    shift = graph.ops[1]
    assert shift.identity
    assert shift.depthwise
    assert shift.weights.size == 9 * 8
    assert np.array_equal(np.argwhere(shift.weights[0, 0]), [[2, 2]])
    assert graph.ops[2].pool == 5


@pytest.mark.parametrize("kmodel", [3, 4])
def test_maps_smaller_than_four_pixels_are_padded(kmodel: int) -> None:
    net = build((1, 6, 6, 4), conv(8, stride=(2, 2), act="RELU"), depthwise(), conv(4, (1, 1)))
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    left = [k for k in kinds(graph) if k not in {*KPU, "turn"}]
    assert left == ["slice", "pad", "upload", "slice"]
    outcome = Outcome(net.build(*net.outputs), kmodel)
    assert "Requantize" not in outcome.layers  # zero is code 0 after a ReLU
    assert all(min(op.input.shape[2:]) >= 4 for op in graph.ops if op.kind == "kpu_conv")
    proven(net, kmodel, 28.0, *net.outputs)


def test_kmodel_3_turns_codes_to_pad_values_below_zero() -> None:
    net = build((1, 6, 6, 4), conv(8, stride=(2, 2)), depthwise())
    outcome = proven(net, 3, 28.0, *net.outputs)
    at = outcome.layers.index("Requantize")
    assert outcome.layers[at : at + 4] == [
        "Requantize", "QuantizedMaxPool2d", "Requantize", "K210Upload",
    ]  # fmt: skip
    proven(net, 4, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("columns", [600, 1024, 1025, 3000, 9216])
def test_dense_layers_run_on_the_kpu_without_bias_too(columns: int, kmodel: int) -> None:
    sides = {600: (20, 30, 1), 1024: (32, 32, 1), 1025: (25, 41, 1), 3000: (30, 50, 2),
             9216: (48, 64, 3)}[columns]  # fmt: skip
    net = build(
        (1, *sides),
        lambda n: n.dense(n.reshape(n.last, (1, columns)), 12, bias=False, act="RELU"),
        lambda n: n.dense(n.last, 5, bias=False),
    )
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    # Kmodel 3 starts with a copy; in 4 a small last layer puts out exact floats.
    assert kinds(graph).count("kpu_conv") == (3 if kmodel == 3 else 1)
    assert kinds(graph).count("dense") == (0 if kmodel == 3 else 1)
    proven(net, kmodel, 25.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_more_outputs_than_one_load_sequence_holds_are_split(kmodel: int) -> None:
    net = build((1, 4, 4, 512), conv(400))
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    sizes = [op.weights.shape[0] for op in graph.ops if op.kind == "kpu_conv"]
    assert sizes[:2] == [384, 16]
    proven(net, kmodel, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", ["ADD", "SUB"])
def test_residual_sums_stay_on_the_kpu(name: str, kmodel: int) -> None:
    net = build(
        (1, 12, 12, 4),
        conv(8, act="RELU"),
        lambda n: n.binary(name, n.last, n.conv(n.last, 8), "RELU"),
        conv(4, (1, 1)),
    )
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert set(kinds(graph)) == KPU
    proven(net, kmodel, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("size", [16, 32])
def test_joined_branches_of_stride_2_stay_on_the_kpu(size: int, kmodel: int) -> None:
    net = Net((1, size, size, 4), seed=3)
    branches = [net.conv(net.input, 8, stride=(2, 2), act=act) for act in ("RELU", "NONE")]
    net.conv(net.concat(branches, 3), 8)
    assert "upload" not in kinds(lowered(net.build(), kmodel))


@pytest.mark.parametrize("kmodel", [3, 4])
def test_joined_branches_stay_on_the_kpu_and_take_their_activation_along(kmodel: int) -> None:
    net = build(
        (1, 12, 12, 3),
        lambda n: n.concat([n.conv(n.last, 8), n.conv(n.last, 4, (1, 1), gain=3.0)], 3),
        lambda n: n.unary("RELU", n.last),
        conv(4),
    )
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert set(kinds(graph)) == KPU
    proven(net, kmodel, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize(
    "name", ["LOGISTIC", "TANH", "HARD_SWISH", "ELU", "GELU", "LEAKY_RELU", "ABS", "EXP", "NEG"]
)
def test_functions_go_into_the_activation_table(name: str, kmodel: int) -> None:
    tables = {"LEAKY_RELU": ("LeakyReluOptions", {"Alpha": 0.1}), "GELU": ("GeluOptions", {})}
    table, fields = tables.get(name, (None, {}))
    net = build(
        (1, 12, 12, 3),
        conv(8),
        lambda n: n.unary(name, n.last, table, **fields),
        conv(4, (1, 1)),
    )
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert set(kinds(graph)) == KPU
    assert kinds(graph).count("kpu_conv") == 2
    proven(net, kmodel, 28.0, *net.outputs)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_batch_norm_around_a_convolution_is_folded(kmodel: int) -> None:
    def factor(n: Any) -> int:
        scale = np.linspace(0.5, 2, n.shape(n.last)[-1]).astype(np.float32)
        return n.binary("MUL", n.last, n.const(scale))

    def offset(n: Any) -> int:
        shift = np.linspace(-0.5, 0.5, n.shape(n.last)[-1]).astype(np.float32)
        return n.binary("ADD", n.last, n.const(shift), "RELU6")

    net = build((1, 12, 12, 3), factor, conv(8), factor, offset, conv(4, (1, 1)))
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert kinds(graph) == ["kpu_conv", "kpu_conv", "dequantize"]
    proven(net, kmodel, 28.0, *net.outputs)


def test_vww_goes_to_main_memory_once_between_its_convolutions() -> None:
    for kmodel in (3, 4):
        graph = same_after_legalise(fixture("vww_96_float.tflite"), kmodel)
        found = kinds(graph)
        inner = found[: max(i for i, k in enumerate(found) if k == "kpu_conv")]
        assert [k for k in inner if k not in ("kpu_conv", "turn")] == ["slice", "pad", "upload"]


@pytest.mark.parametrize(
    ("kind", "size", "how"),
    [
        ("NEAREST_NEIGHBOR", (11, 5), {"align": True}),
        ("NEAREST_NEIGHBOR", (11, 13), {"half": True}),
        ("BILINEAR", (16, 16), {"half": True}),
        ("BILINEAR", (5, 12), {"half": True}),
        ("BILINEAR", (15, 11), {"align": True}),
    ],
)
def test_resizing_picks_the_pixels_tensorflow_picks(
    kind: str, size: tuple[int, int], how: dict[str, bool]
) -> None:
    net = build((1, 8, 8, 3), conv(4), lambda n: n.resize(n.last, size, kind, **how), conv(4))
    proven(net, 4, 28.0, *net.outputs)
    with pytest.raises(NeedsKmodel4, match="resizing"):
        same_after_legalise(net.build(*net.outputs), 3)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            lambda n: n.conv(n.conv(n.last, 1025, (1, 1)), 2, (1, 1)),
            "CONV_2D #1: 1025 channels; the KPU takes at most 1024; needs kmodel 4",
        ),
        (
            lambda n: n.transpose_conv(n.last, 2, (3, 3), (2, 2)),
            "TRANSPOSE_CONV #0: a transposed convolution; needs kmodel 4",
        ),
        (
            lambda n: n.binary("MUL", n.last, n.conv(n.last, 3)),
            "MUL #1: mul of [1, 3, 8, 8] and [1, 3, 8, 8] on the CPU; needs kmodel 4",
        ),
        (
            lambda n: n.softmax(n.last),
            "SOFTMAX #0: softmax of 64 vectors; needs kmodel 4",
        ),
    ],
)  # fmt: skip
def test_what_kmodel_3_cannot_carry_is_refused_by_name(layer: Build, reason: str) -> None:
    net = build((1, 8, 8, 3), layer)
    with pytest.raises(NeedsKmodel4) as caught:
        same_after_legalise(net.build(*net.outputs), 3)
    assert str(caught.value) == reason
    assert Outcome(net.build(*net.outputs), 4).decibels()[0] > 28


def test_large_maps_are_refused_with_their_size() -> None:
    net = build((1, 300, 40, 1), conv(2))
    with pytest.raises(Unsupported) as caught:
        same_after_legalise(net.build(*net.outputs), 3)
    assert str(caught.value) == (
        "CONV_2D #0: a map of 40x300 pixels; the KPU takes at most 512x256; needs kmodel 4"
    )


def test_inputs_that_no_map_can_hold_are_refused_in_kmodel_3() -> None:
    net = Net((1, 131073, 3))
    net.unary("RELU", net.input)
    with pytest.raises(Unsupported) as caught:
        same_after_legalise(net.build(), 3)
    assert str(caught.value) == (
        "input 'input' of shape [1, 131073, 3]: a kmodel 3 starts with a convolution on a map of "
        "4x4 to 512x256 pixels and at most 1024 channels, which 393219 values cannot make; needs "
        "kmodel 4"
    )


@pytest.mark.parametrize("kmodel", [3, 4])
def test_strided_layers_larger_than_the_memory_are_computed_in_chunks(kmodel: int) -> None:
    net = build(
        (1, 200, 224, 3),
        conv(32, stride=(2, 2), act="RELU6"),
        conv(80, (1, 1), act="RELU6"),
        depthwise(stride=(2, 2), act="RELU6"),
        conv(16, (1, 1)),
    )
    graph = same_after_legalise(net.build(*net.outputs), kmodel)
    assert set(kinds(graph)) <= {*KPU, "kpu_part"}
    assert kinds(graph).count("kpu_part") > 1
    outcome = proven(net, kmodel, 28.0, *net.outputs)
    assert outcome.compiled.kpu_bytes <= 2 * 1024 * 1024


def test_what_no_chunk_makes_fit_is_refused_with_its_bytes() -> None:
    net = build((1, 224, 224, 3), conv(32), conv(32))
    with pytest.raises(TooLarge) as caught:
        Outcome(net.build(*net.outputs), 4)
    assert caught.value.layer == "CONV_2D #1"
    assert caught.value.needed == 2 * 64 * 4 * 224 * 32
    assert caught.value.limit == 2 * 1024 * 1024


LOWEST = float(np.finfo(np.float32).min)
AROUND = ((0, 0), (1, 1), (1, 1), (0, 0))


def padded_pool(value: float, act: str, pads: Any = AROUND, **more: Any) -> Any:
    """A max pool of stride 2 behind a pad, as converters write PyTorch's with padding."""
    return build(
        (1, 16, 14, 3),
        conv(8, act=act),
        lambda n: n.pad(n.last, pads, value),
        pool("MAX", (3, 3), stride=(2, 2), padding="VALID"),
        conv(4),
        **more,
    )


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("pads", [AROUND, ((0, 0), (0, 2), (2, 0), (0, 0))])
@pytest.mark.parametrize(
    ("value", "act"),
    [(LOWEST, "NONE"), (-np.inf, "NONE"), (-1e9, "NONE"), (0.0, "RELU"), (-1.0, "RELU_N1_TO_1")],
)
def test_what_is_padded_for_a_max_pool_belongs_to_it(
    value: float, act: str, pads: Any, kmodel: int
) -> None:
    tflite = padded_pool(value, act, pads).build()
    same_after_legalise(tflite, kmodel)
    assert Outcome(tflite, kmodel).decibels()[0] > 30


@pytest.mark.parametrize("value", [-0.25, 0.0, 0.5])
def test_a_pad_that_may_be_the_largest_counts(value: float) -> None:
    """Values of both signs, or more than the least: the pool must see what was padded."""
    tflite = padded_pool(value, "NONE").build()
    same_after_legalise(tflite, 4)
    assert Outcome(tflite, 4).decibels()[0] > 30


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_pad_far_below_all_values_is_refused_where_anything_else_reads_it(kmodel: int) -> None:
    net = padded_pool(LOWEST, "NONE")
    beside = build((1, 8, 8, 3), conv(4), lambda n: n.pad(n.last, AROUND, -np.inf), conv(4))
    empty = padded_pool(LOWEST, "NONE", ((0, 0), (3, 0), (0, 0), (0, 0)))
    for bad in (beside, empty):
        with pytest.raises(
            Unsupported, match=r"PADV2 #1: it pads with -.*only a max pool may read"
        ):
            lowered(bad.build(), kmodel)
        assert not check(bad.build(), kmodel).supported
    assert check(net.build(), kmodel).supported
