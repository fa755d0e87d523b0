"""Ops whose operands, shapes and settings do not belong together are refused by name, with the
fact, before anything is made of them; of every op, by one table each."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from k210tasks.compiler.checking import check
from k210tasks.compiler.constraints import RULES
from k210tasks.compiler.operands import NEEDS_SETTINGS, OPERANDS
from k210tasks.compiler.shape_laws import LAWS
from tests.compiler.tflite_builder import Net


def one(
    name: str, *more: Any, shape: Any = (1, 8, 8, 4), options: str | None = None, **fields: Any
) -> Callable[[], Net]:
    """A network of one op ``name`` on a map of 8x8 pixels and four channels."""

    def made() -> Net:
        net = Net((1, 8, 8, 4))
        consts = [net.const(v) for v in more]
        net.op(name, [net.input, *consts], shape, options, **fields)
        return net

    return made


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def conv(**fields: Any) -> Callable[[], Net]:
    weights = np.zeros((4, 3, 3, 4), np.float32)
    fields = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, **fields}
    return one("CONV_2D", weights, options="Conv2DOptions", **fields)


def pool(**fields: Any) -> Callable[[], Net]:
    fields = {"StrideH": 1, "StrideW": 1, "FilterHeight": 2, "FilterWidth": 2, **fields}
    return one("MAX_POOL_2D", options="Pool2DOptions", **fields)


FLOATS = np.zeros(4, np.float32)
CASES: dict[str, tuple[Callable[[], Net], str]] = {
    "no settings": (one("CONV_2D", np.zeros((4, 3, 3, 4), np.float32)), "settings are left out"),
    "stride": (conv(StrideH=0), "stride is [0, 1]"),
    "negative stride": (conv(StrideW=-1), "stride is [1, -1]"),
    "dilation": (conv(DilationHFactor=0), "dilation is [0, 1]"),
    "window": (
        conv(DilationHFactor=65536),
        "the window spans 131073 pixels, the KPU's maps have 1024 at most",
    ),
    "pool stride": (pool(StrideH=0), "stride is [0, 1]"),
    "pool filter": (pool(FilterWidth=0), "filter is [2, 0]"),
    "pool beyond": (pool(Padding=1, FilterWidth=9), "the window is larger than the map, 8x8"),
    "weights": (
        one("CONV_2D", FLOATS, options="Conv2DOptions", StrideH=1, StrideW=1, DilationHFactor=1,
            DilationWFactor=1),
        "(the weights have shape [4])",
    ),
    "no axes": (one("MEAN", ints(), options="ReducerOptions"), "tensor 't1' has shape [0]"),
    "axes left out": (one("MEAN"), "it has 1 input, not 2"),
    "axes that are floats": (
        one("MEAN", FLOATS), "holds FLOAT32 where whole numbers belong",
    ),
    "axis": (one("MEAN", ints(9)), "axis 9 of 4 dimensions"),
    "concat": (one("CONCATENATION", options="ConcatenationOptions", Axis=-5), "axis -5 of 4"),
    "order": (one("TRANSPOSE", ints(0, 1, 1, 3)), "the order [0, 1, 1, 3] of 4 dimensions"),
    "short order": (one("TRANSPOSE", ints(0, 1)), "the order [0, 1] of 4 dimensions"),
    "pads": (one("PAD", ints(0, 0, -1, 0, 0, 0, 0, 0)), "its pads are [[0, 0], [-1, 0]"),
    "few pads": (one("PAD", ints(1, 1)), "input 1 holds 2 numbers, not 8"),
    "mirrored": (
        one("MIRROR_PAD", ints(0, 0, 9, 0, 0, 0, 0, 0), options="MirrorPadOptions", Mode=1),
        "pads of [9, 0] beside 8 values",
    ),
    "reshape": (one("RESHAPE", ints(7, -1)), "[1, 8, 8, 4] does not become [7, -1]"),
    "slice": (one("SLICE", ints(0, 0, 0, 0), ints(1, 9, 8, 4)), "[1, 9, 8, 4] from [0, 0, 0, 0]"),
    "slice before": (one("SLICE", ints(0, -1, 0, 0), ints(1, 8, 8, 4)), "from [0, -1, 0, 0]"),
    "nothing": (
        one("STRIDED_SLICE", ints(0, 5), ints(1, 5), ints(1, 1), options="StridedSliceOptions"),
        "nothing is left along axis 1: 5 to 5 of 8",
    ),
    "gather": (one("GATHER", ints(8), options="GatherOptions", Axis=1), "place 8 of 8 along axis"),
    "tile": (one("TILE", ints(1, 0, 1, 1)), "[1, 0, 1, 1] times"),
    "tile much": (one("TILE", ints(1, 1, 1, 1 << 30)), "at most 1024"),
    "blocks": (
        one("SPACE_TO_DEPTH", options="SpaceToDepthOptions", BlockSize=0), "the block is [0]",
    ),
    "blocks beside": (
        one("DEPTH_TO_SPACE", options="DepthToSpaceOptions", BlockSize=3),
        "blocks of 3 from 4 channels",
    ),
    "size": (one("RESIZE_BILINEAR", ints(0, 8)), "the size is [0, 8]"),
    "shapes": (one("ADD", np.zeros((1, 3, 8, 4), np.float32)), "shapes [1, 8, 8, 4] and [1, 3, 8"),
    "slopes": (one("PRELU", np.zeros((2, 1, 1, 8, 4), np.float32)), "at most four dimensions"),
    "another shape": (one("RELU", shape=(1, 4, 4)), "has shape [1, 4, 4], from the inputs [1, 8"),
    "huge": (one("RESIZE_BILINEAR", ints(65535, 65535), shape=(1, 65535, 65535, 4)),
             "A tensor has at most 8388608 values"),
    "no number": (
        one("ADD", np.array([np.nan, 0, 0, 0], np.float32)),
        "holds infinity or values that are no number",
    ),
    "slope": (
        one("LEAKY_RELU", options="LeakyReluOptions", Alpha=float("inf")), "alpha is inf",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kmodel", [3, 4])
def test_refused_by_name(case: str, kmodel: int) -> None:
    made, what = CASES[case]
    data = made().build()
    began = time.perf_counter()
    tracemalloc.start()
    try:
        report = check(data, kmodel)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (reason,) = [reason for op in report.ops for reason in op.reasons]
    assert what in reason
    assert time.perf_counter() - began < 2
    assert peak < 50e6


def test_an_op_without_inputs_is_refused_whatever_it_is() -> None:
    for name in RULES:
        net = Net((1, 8, 8, 4))
        net.op(name, [], (1, 8, 8, 4))
        (op,) = check(net.build()).ops
        assert op.reasons, name


def test_every_op_has_operands_and_all_but_one_pair_a_law() -> None:
    assert set(OPERANDS) == set(RULES)
    assert set(RULES) - set(LAWS) == {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}
    assert set(RULES) >= NEEDS_SETTINGS


@pytest.mark.parametrize(
    ("name", "inputs", "options", "fields"),
    [
        ("CONV_2D", "x w b", "Conv2DOptions", {"StrideW": 1, "StrideH": 1}),
        ("DEPTHWISE_CONV_2D", "x d b", "DepthwiseConv2DOptions", {"StrideW": 1, "StrideH": 1}),
        ("FULLY_CONNECTED", "r m b", "FullyConnectedOptions", {}),
        ("TRANSPOSE_CONV", "s w x b", "TransposeConvOptions", {"StrideW": 1, "StrideH": 1}),
    ],
)
def test_a_computed_bias_is_refused(
    name: str, inputs: str, options: str, fields: dict[str, int]
) -> None:
    """Of every op that has one: nothing that is not there is read."""
    assert {op for op, words in OPERANDS.items() if "b?" in words} == {
        "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"
    }  # fmt: skip
    net = Net((1, 8, 8, 4))
    channels = net.reduce("MEAN", net.input, (1, 2), keep=False)
    given = {
        "x": net.input, "w": net.const(np.ones((4, 1, 1, 4), np.float32)),
        "d": net.const(np.ones((1, 1, 1, 4), np.float32)), "r": channels,
        "m": net.const(np.ones((4, 4), np.float32)),
        "s": net.const(np.array([1, 8, 8, 4], np.int32)), "b": net.reshape(channels, (4,)),
    }  # fmt: skip
    shape = (1, 4) if name == "FULLY_CONNECTED" else (1, 8, 8, 4)
    net.op(name, [given[word] for word in inputs.split()], shape, options, **fields)
    report = check(net.build(), 4)
    reasons = [reason for op in report.ops for reason in op.reasons]
    assert "The bias is a constant (the bias is computed)" in "\n".join(reasons)
