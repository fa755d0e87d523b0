"""Ranges by interval arithmetic: worked by hand, and never narrower than what samples show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k210tasks.compiler import executor, ops
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes.bounds import Bounds, Range
from k210tasks.compiler.pipeline import lowered
from tests.compiler.tflite_builder import Net

X = Tensor("x", (1, 2), range=(-1.0, 3.0))
Y = Tensor("y", (1, 2), range=(0.5, 2.0))
M = Tensor("m", (1, 2, 4, 4), range=(-1.0, 3.0))
W = np.array([[2.0, -1.0], [0.0, 1.0]], np.float32)
KERNELS = np.zeros((1, 2, 3, 3), np.float32)
KERNELS[0, 0, 1, 1], KERNELS[0, 1, 0, 0] = 2.0, -1.0


def bounds_of(op: Op, *before: Op) -> Range | None:
    producers = {t: o for o in (op, *before) for t in o.outputs}
    return Bounds(producers, lambda tensor: tensor.range).of(op.output)


def op(kind: Any, inputs: list[Tensor], shape: tuple[int, ...] = (1, 2), **fields: Any) -> Any:
    return kind(inputs, [Tensor("out", shape)], **fields)


CASES: list[tuple[Op, Range]] = [
    (op(ops.Binary, [X, Y], how="add"), (-0.5, 5.0)),
    (op(ops.Binary, [X, Y], how="sub"), (-3.0, 2.5)),
    (op(ops.Binary, [X, Y], how="mul"), (-2.0, 6.0)),
    (op(ops.Binary, [X, Y], how="div"), (-2.0, 6.0)),
    (op(ops.Binary, [X, Y], how="max"), (0.5, 3.0)),
    (op(ops.Binary, [X, Y], how="mul", fn=(("clamp", 0.0, 5.0),)), (0.0, 5.0)),
    (op(ops.Dense, [X], weights=W, bias=np.array([0.5, 0.0], np.float32)), (-4.5, 7.5)),
    (op(ops.Dequantize, [X], negated=True), (-3.0, 1.0)),
    (op(ops.Concat, [X, Y], (1, 4), axis=1), (-1.0, 3.0)),
    (op(ops.Reduce, [X], (1, 1), how="sum", axes=(1,)), (-2.0, 6.0)),
    (op(ops.Reduce, [X], (1, 1), how="mean", axes=(1,)), (-1.0, 3.0)),
    (op(ops.Pad, [Y], (1, 4), pads=((0, 0), (1, 1)), value=0.0), (0.0, 2.0)),
    (op(ops.Softmax, [Tensor("unknown", (1, 2))], beta=1.0, axis=1), (0.0, 1.0)),
    (
        op(ops.KpuConv, [M], (1, 1, 4, 4), weights=KERNELS, bias=np.array([1.0], np.float32),
           depthwise=False),
        (-4.0, 8.0),
    ),
    (
        op(ops.KpuConv, [M], (1, 2, 4, 4), weights=KERNELS.reshape(2, 1, 3, 3),
           bias=np.array([1.0, 0.0], np.float32), depthwise=True, fn=(("square",),)),
        (0.0, 49.0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "wanted"), CASES, ids=lambda a: getattr(a, "kind", None))
def test_of_one_op(made: Op, wanted: Range) -> None:
    assert bounds_of(made) == pytest.approx(wanted, abs=1e-3)


def test_of_what_follows_from_nothing() -> None:
    unknown = Tensor("unknown", (1, 2))
    assert bounds_of(op(ops.Binary, [X, unknown], how="add")) is None
    zero = op(ops.Binary, [Y, X], how="div")  # by what may be zero
    assert bounds_of(zero) is None


@pytest.mark.parametrize("kmodel", [3, 4])
def test_no_sample_shows_more(kmodel: int) -> None:
    net = Net((1, 8, 8, 3), seed=2)
    x = net.conv(net.input, 8)
    gate = net.unary("LOGISTIC", net.conv(net.input, 8, (1, 1)))
    y = net.conv(net.binary("MUL", x, gate), 4)
    tflite = net.build(net.dense(net.reduce("MEAN", y, [1, 2], False), 5, act="RELU6"))
    graph = lowered(tflite, kmodel)
    bounds = Bounds(graph.producers(), lambda t: (0.0, 1.0) if t is graph.input else None)
    rng = np.random.default_rng(1)
    for _ in range(3):
        fed = rng.uniform(0, 1, graph.input.shape).astype(np.float32)
        for tensor, value in executor.run(graph, fed, keep=True).items():
            found = bounds.of(tensor)
            assert found is not None, tensor
            assert found[0] - 1e-4 <= value.min() <= value.max() <= found[1] + 1e-4
