"""The reference executor against LiteRT, op by op."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from k210tasks.compiler import executor
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.reader import load
from k210tasks.reference.litert import FloatModel
from tests.compiler.helpers import fixture, pixels, scaled
from tests.compiler.tflite_builder import Net

Build = Callable[[Net], int]


def _two(name: str, act: str = "NONE") -> Build:
    return lambda n: n.binary(name, n.conv(n.input, 4), n.conv(n.input, 4, gain=2.0), act)


def _unary(name: str) -> Build:
    return lambda n: n.unary(name, n.input)


def _positive(name: str) -> Build:
    return lambda n: n.unary(name, n.unary("EXP", n.input))


OPS: dict[str, Build] = {
    "conv": lambda n: n.conv(n.input, 5, act="RELU6"),
    "conv s2": lambda n: n.conv(n.input, 5, stride=(2, 2)),
    "conv valid": lambda n: n.conv(n.input, 5, (3, 2), stride=(2, 1), padding="VALID"),
    "conv dilated": lambda n: n.conv(n.input, 5, dilation=(2, 2), act="RELU_N1_TO_1"),
    "conv 5x5": lambda n: n.conv(n.input, 2, (5, 5)),
    "depthwise": lambda n: n.depthwise(n.input, stride=(2, 2)),
    "depthwise x3": lambda n: n.depthwise(n.input, multiplier=3, act="RELU"),
    "transposed": lambda n: n.transpose_conv(n.input, 4, (3, 3), (2, 2)),
    "transposed valid": lambda n: n.transpose_conv(n.input, 4, (4, 3), (2, 2), "VALID"),
    "max": lambda n: n.pool(n.input, "MAX", (3, 3), stride=(2, 2), padding="SAME"),
    "average": lambda n: n.pool(n.input, "AVERAGE", (3, 2), stride=(2, 2), padding="SAME"),
    "mean": lambda n: n.reduce("MEAN", n.input, [1, 2], False),
    "sum kept": lambda n: n.reduce("SUM", n.input, [3], True),
    "max over width": lambda n: n.reduce("REDUCE_MAX", n.input, [2], False),
    "min": lambda n: n.reduce("REDUCE_MIN", n.input, [1, 2, 3], False),
    "pad": lambda n: n.pad(n.input, [(0, 0), (1, 2), (3, 0), (0, 1)]),
    "add": _two("ADD"),
    "sub": _two("SUB", "RELU"),
    "mul": _two("MUL"),
    "minimum": _two("MINIMUM"),
    "maximum": _two("MAXIMUM"),
    "squared difference": _two("SQUARED_DIFFERENCE"),
    "div": lambda n: n.binary("DIV", n.const(np.ones(3, np.float32)), n.unary("EXP", n.input)),
    "add channels": lambda n: n.binary(
        "ADD", n.input, n.const(np.array([1, -2, 3], np.float32)), "RELU6"
    ),
    "concat": lambda n: n.concat([n.input, n.conv(n.input, 2)], 3),
    "concat rows": lambda n: n.concat([n.input, n.input], 1),
    "reshape": lambda n: n.reshape(n.conv(n.input, 4), (1, 4, 8, 9)),
    "flatten, dense": lambda n: n.dense(n.reshape(n.input, (1, 8 * 9 * 3)), 5, act="RELU"),
    "dense of a map": lambda n: n.dense(n.conv(n.input, 2), 5, bias=False),
    "transpose": lambda n: n.transpose(n.conv(n.input, 4), (0, 3, 1, 2)),
    "slice": lambda n: n.strided_slice(n.input, [0, 1, 2, 0], [1, 8, 9, 3], [1, 2, 3, 2]),
    "softmax": lambda n: n.softmax(n.input, beta=0.7),
    "l2": _unary("L2_NORMALIZATION"),
    "nearest": lambda n: n.resize(n.input, (16, 18)),
    "nearest corners": lambda n: n.resize(n.input, (11, 5), align=True),
    "nearest half": lambda n: n.resize(n.input, (11, 20), half=True),
    "bilinear": lambda n: n.resize(n.input, (12, 21), "BILINEAR"),
    "bilinear corners": lambda n: n.resize(n.input, (12, 21), "BILINEAR", align=True),
    "bilinear half": lambda n: n.resize(n.input, (12, 5), "BILINEAR", half=True),
    "leaky": lambda n: n.unary("LEAKY_RELU", n.input, "LeakyReluOptions", Alpha=0.2),
    "gelu": lambda n: n.unary("GELU", n.input, "GeluOptions", Approximate=False),
    "gelu tanh": lambda n: n.unary("GELU", n.input, "GeluOptions", Approximate=True),
    "prelu": lambda n: n.op(
        "PRELU", [n.input, n.const(np.array([[[0.1, 0.5, -0.3]]], np.float32))], n.shape(n.input)
    ),
    "prelu of one": lambda n: n.op(
        "PRELU", [n.input, n.const(np.full((1, 1, 1), 0.3, np.float32))], n.shape(n.input)
    ),
    **{
        name.lower(): _unary(name)
        for name in (
            "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "ELU",
            "ABS", "NEG", "CEIL", "FLOOR", "ROUND", "EXP", "SIN", "COS", "SQUARE",
        )
    },
    **{name.lower(): _positive(name) for name in ("LOG", "SQRT", "RSQRT")},
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_every_op_computes_what_litert_does(name: str) -> None:
    net = Net((1, 8, 9, 3), seed=3)
    tflite = net.build(OPS[name](net))
    model = FloatModel(tflite)
    x = scaled(pixels((1, 8, 9, 3), 1)[0]) * 3
    reference = to_nchw(model.run(x)[0])
    for graph in (load(tflite), simplify(load(tflite))):
        got = executor.outputs(graph, to_nchw(x).reshape(graph.input.shape))[0]
        assert got.shape == reference.shape
        np.testing.assert_allclose(got, reference, rtol=2e-5, atol=2e-5)


def test_split_gives_all_its_parts() -> None:
    net = Net((1, 6, 8, 3))
    axis = net.const(2, "int32")
    parts = [net.tensor((1, 6, 4, 3)), net.tensor((1, 6, 4, 3))]
    net.ops.append(("SPLIT", [axis, net.input], parts, "SplitOptions", {"NumSplits": 2}, 1))
    tflite = net.build(*parts)
    x = scaled(pixels((1, 6, 8, 3), 1)[0])
    for reference, got in zip(
        FloatModel(tflite).run(x), executor.outputs(load(tflite), to_nchw(x)), strict=True
    ):
        np.testing.assert_array_equal(got, to_nchw(reference))


@pytest.mark.parametrize("name", ["vww_96_float", "ulffd_landmark"])
def test_real_models_compute_what_litert_does(name: str) -> None:
    tflite = fixture(f"{name}.tflite")
    model = FloatModel(tflite)
    x = scaled(pixels(model.input_shape, 1)[0])
    for graph in (load(tflite), simplify(load(tflite))):
        outputs = executor.outputs(graph, to_nchw(x))
        for reference, got in zip(model.run(x), outputs, strict=True):
            np.testing.assert_allclose(got, to_nchw(reference), rtol=1e-4, atol=1e-4)
