"""ReLU and its like beside the KPU of kmodel 3: exact at both ends, 16 bits between."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks.compiler import encode_v3
from k210tasks.compiler.ir import Graph, Quant, Tensor
from k210tasks.compiler.ops import Dense, Quantize
from k210tasks.compiler.passes import clamps
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import Value
from k210tasks.compiler.passes.place import allocate
from k210tasks.compiler.passes.ranges import Assigner, Ranges
from k210tasks.kmodel import parse
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.simulator import Simulator

CLAMPS = [(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (0.5, 2.0), (-3.0, -1.0), (-math.inf, 1.5)]
MEASURED = (-4.0, 7.0)  # of the values that the clamp was seen to give, where it is open


def _graph(clamp: tuple[float, float], n: int) -> Graph:
    """A dense layer that changes nothing, and the clamp."""
    dev = Lowering(3)
    start = Tensor("x", (1, n))
    same = Dense([start], weights=np.eye(n, dtype=np.float32), bias=np.zeros(n, np.float32))
    x = dev.emit(same, (1, n), dtype="float32")
    seen = tuple(float(np.clip(end, *clamp)) for end in MEASURED)
    v = Value((1, n), "y", range=(seen[0], seen[1]), unclamped=(x, ("clamp", *clamp)))
    graph = Graph([start], [dev.as_floats(v)], dev.ops)
    graph.sort()
    Assigner(graph, Ranges(None, "minmax"), None).assign()
    clamps.hold_clamps(graph)
    return graph


def _run(clamp: tuple[float, float], x: NDArray[Any], runtime: str) -> NDArray[Any]:
    graph = _graph(clamp, x.size)
    model, _ = encode_v3.encode(graph, allocate(graph), runtime=RUNTIMES[runtime])
    return np.array(Simulator(parse(model.to_bytes()), runtime=runtime).run(x)[0]).ravel()


@pytest.mark.parametrize("runtime", ["host", "maixpy", "sdk_develop"])
@pytest.mark.parametrize("clamp", CLAMPS)
def test_a_clamp_of_floats_is_exact_at_its_ends_and_16_bits_between(
    clamp: tuple[float, float], runtime: str
) -> None:
    x = np.concatenate([np.linspace(-5, 7, 481), [-1e30, -100, 0, 1e-6]]).astype(np.float32)
    y = _run(clamp, x, runtime)
    wanted = np.clip(x, *clamp)
    low, high = (math.isfinite(end) for end in clamp)
    span = clamps.MARGIN * 11 if not (low and high) else clamp[1] - clamp[0]
    fine = span / clamps.STEPS * clamps.FINE.scale  # a step of the fine code
    inside = wanted > -100
    assert np.abs(y - wanted)[inside].max() < 0.6 * fine
    ulp = 1e-6 * max(abs(end) for end in clamp if math.isfinite(end)) + 1e-7
    if low:
        assert np.abs(y[x <= clamp[0]] - clamp[0]).max() <= ulp
    if high:
        assert np.abs(y[x >= clamp[1]] - clamp[1]).max() <= ulp


def test_relu_gives_zero_itself() -> None:
    x = -np.geomspace(1e-3, 1e3, 50).astype(np.float32)
    for high in (6.0, math.inf):
        assert not _run((0.0, high), x, "maixpy").any()


def test_a_runtime_that_cuts_off_where_others_round_loses_a_fine_step_at_most() -> None:
    """Of a graph that was not written for it: SDK V0.5.4 and V0.5.5 cut off too."""
    x = np.linspace(-3, 9, 500).astype(np.float32)
    graph = _graph((0.0, 6.0), x.size)
    codes = {op.output.name: op.output.quant for op in graph.ops if op.kind == "quantize"}
    coarse, fine = (q for q in codes.values() if q is not None)

    def cut(v: NDArray[Any], quant: Quant) -> NDArray[Any]:
        code = np.clip(np.trunc((v - quant.low) / quant.scale), 0, 255)
        return quant.low + code * quant.scale

    first = cut(x.astype(np.float64), coarse)
    y = first + cut(x - first, fine)
    assert np.abs(y - np.clip(x, 0, 6)).max() < 1.01 * fine.scale


def test_a_range_that_others_widened_does_not_undo_the_clamp() -> None:
    x, code = Tensor("x", (1, 4)), Tensor("code", (1, 4), "uint8", quant=Quant(8 / 255, 128))
    graph = Graph([x], [code], [Quantize([x], [code], clamp=(0.0, math.inf))])
    assert not clamps.holds(graph.ops[0])
    clamps.hold_clamps(graph)
    assert [op.kind for op in graph.ops] == ["quantize", "dequantize", "quantize"]
    assert all(clamps.holds(op) for op in graph.ops)
    first = graph.ops[0].output.quant
    assert first is not None
    assert first.low == 0
    assert first.high == pytest.approx((255 - 128) * 8 / 255)
