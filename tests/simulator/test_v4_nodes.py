"""The v4 nodes no golden output covers, against loops that follow section 3.4's wording."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks.kmodel import parse, write
from k210tasks.kmodel import v4_ops as ops
from k210tasks.kmodel.codec import (
    CONST,
    MAIN,
    UINT8,
    MemoryRange,
    Pad,
    QuantParam,
    Range,
    Scalar,
    Shape,
)
from k210tasks.kmodel.nnil import Instruction, encode
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.simulator import Simulator
from tests.simulator.models import single_v4


def floats(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, count).astype(np.float32)


def codes(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, count).astype(np.uint8)


WINDOWS = [
    # filter, stride, dilation, pad before, pad after
    (1, 1, 1, 0, 0),
    (3, 1, 1, 1, 1),
    (3, 2, 1, 0, 1),
    (2, 3, 2, 1, 0),
    (2, 1, 1, -1, 0),
    (3, 1, 2, 2, 1),
]


def out_size(size: int, window: tuple[int, ...]) -> int:
    taps, stride, dilation, before, after = window
    return (size + before + after - ((taps - 1) * dilation + 1)) // stride + 1


def fields(window: tuple[int, ...]) -> dict[str, Any]:
    taps, stride, dilation, before, after = window
    return {
        "filter_h": taps, "filter_w": taps, "stride_h": stride, "stride_w": stride,
        "dilation_h": dilation, "dilation_w": dilation, "pad_h": Pad(before, after),
        "pad_w": Pad(before, after),
    }  # fmt: skip


def reached(o: int, size: int, window: tuple[int, ...]) -> list[tuple[int, int]]:
    """(tap, input) pairs of one output along one axis."""
    taps, stride, dilation, before, _ = window
    pairs = [(k, o * stride - before + k * dilation) for k in range(taps)]
    return [(k, i) for k, i in pairs if 0 <= i < size]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("channels", "out_channels", "groups"), [(2, 3, 1), (4, 4, 4), (4, 2, 2)])
def test_conv2d_transpose(
    window: tuple[int, ...], channels: int, out_channels: int, groups: int
) -> None:
    h, w, n = 6, 5, 2
    taps, stride, dilation, before, _ = window
    oh, ow = out_size(h, window), out_size(w, window)  # the input of the transposed one
    x = floats(n * channels * oh * ow, 1).reshape(n, channels, oh, ow)
    inner = channels // groups
    weights = floats(out_channels * inner * taps * taps, 2).reshape(out_channels, inner, taps, taps)
    got = single_v4(
        ops.Conv2dTranspose, x, np.float32, n * out_channels * h * w,
        shape=Shape(*x.shape), shape_out=Shape(n, out_channels, h, w), groups=groups,
        act=Range(-4.0, 4.0), weights=weights, bias=floats(out_channels, 3) + 100,
        **fields(window),
    ).reshape(n, out_channels, h, w)  # fmt: skip
    expected = np.zeros((n, out_channels, h, w))
    per = out_channels // groups
    for b, o, y, z in itertools.product(range(n), range(out_channels), range(oh), range(ow)):
        for c, ky, kx in itertools.product(range(inner), range(taps), range(taps)):
            ty = y * stride - before + ky * dilation
            tx = z * stride - before + kx * dilation
            if 0 <= ty < h and 0 <= tx < w:
                value = float(x[b, (o // per) * inner + c, y, z])
                expected[b, o, ty, tx] += value * float(weights[o, c, ky, kx])
    np.testing.assert_allclose(got, np.clip(expected, -4, 4), atol=1e-4)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_nhwc_convolutions(window: tuple[int, ...], depthwise: bool, quantized: bool) -> None:
    n, h, w, c = 2, 6, 5, 3
    oc, taps = (c if depthwise else 4), window[0]
    oh, ow = out_size(h, window), out_size(w, window)
    shape = (taps, taps, c) if depthwise else (oc, taps, taps, c)
    size = int(np.prod(shape))
    count = n * oh * ow * oc
    more: dict[str, Any] = {} if depthwise else {"out_channels": oc}
    x: Any
    weights: Any
    if quantized:
        x, weights = codes(n * h * w * c, 4).reshape(n, h, w, c), codes(size, 5).reshape(shape)
        bias = np.arange(oc, dtype=np.int32) * 1000
        cls = ops.CpuQuantizedDepthwiseConv2d if depthwise else ops.CpuQuantizedConv2d
        got = single_v4(
            cls, x, np.uint8, count, shape=Shape(n, h, w, c), in_offset=-9, filter_offset=-120,
            out_mul=700, out_shift=17, out_offset=130, weights=weights, bias=bias,
            **more, **fields(window),
        )  # fmt: skip
    else:
        x, weights = floats(n * h * w * c, 4).reshape(n, h, w, c), floats(size, 5).reshape(shape)
        bias = floats(oc, 6)
        cls2 = ops.CpuDepthwiseConv2d if depthwise else ops.CpuConv2d
        got = single_v4(
            cls2, x, np.float32, count, shape=Shape(n, h, w, c), act=Range(-3.0, 3.0),
            weights=weights, bias=bias, **more, **fields(window),
        )  # fmt: skip
    got = got.reshape(n, oh, ow, oc)
    for b, y, z, o in itertools.product(range(n), range(oh), range(ow), range(oc)):
        total = 0 if quantized else 0.0
        for (ky, iy), (kx, ix) in itertools.product(reached(y, h, window), reached(z, w, window)):
            for k in [o] if depthwise else range(c):
                weight = weights[ky, kx, k] if depthwise else weights[o, ky, kx, k]
                if quantized:
                    total += (int(x[b, iy, ix, k]) - 9) * (int(weight) - 120)
                else:
                    total += float(x[b, iy, ix, k]) * float(weight)
        if quantized:
            acc = (total + int(bias[o])) * 700
            assert got[b, y, z, o] == min(255, max(0, ((acc + (1 << 16)) >> 17) + 130))
        else:
            value = min(3.0, max(-3.0, total + float(bias[o])))
            assert got[b, y, z, o] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("op", ops.ReduceOp)
def test_nhwc_reduce_window(window: tuple[int, ...], op: ops.ReduceOp) -> None:
    n, h, w, c = 2, 6, 5, 3
    oh, ow = out_size(h, window), out_size(w, window)
    x = floats(n * h * w * c, 7).reshape(n, h, w, c)
    init = {"MEAN": 0.0, "SUM": 0.0, "MIN": 9.0, "MAX": -9.0}[op.name]
    got = single_v4(
        ops.CpuReduceWindow2d, x, np.float32, n * oh * ow * c, shape=Shape(n, h, w, c), op=op,
        init=init, **fields(window),
    ).reshape(n, oh, ow, c)  # fmt: skip
    for b, y, z, k in itertools.product(range(n), range(oh), range(ow), range(c)):
        pixels = [
            float(x[b, iy, ix, k])
            for (_, iy), (_, ix) in itertools.product(reached(y, h, window), reached(z, w, window))
        ]
        expected = {
            "MEAN": lambda p: sum(p) / len(p), "SUM": sum, "MIN": min, "MAX": max
        }[op.name](pixels)  # fmt: skip
        assert got[b, y, z, k] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("op", ops.BinaryOp)
@pytest.mark.parametrize("count", [500, 20000])  # by element, and by the table of all pairs
def test_quantized_binary_with_ties(op: ops.BinaryOp, count: int) -> None:
    x, y = codes(count, 8), codes(100, 9)
    y = np.where(y == 128, 129, y).astype(np.uint8)
    terms = {
        "a_offset": -5, "a_mul": 3, "a_shift": 1, "b_offset": -128, "b_mul": 5, "b_shift": 2,
        "out_offset": 100, "out_mul": 1, "out_shift": 2,
    }  # fmt: skip
    got = single_v4(
        ops.QuantizedBinary, x, np.uint8, count, input_name="a", second=y, op=op,
        shape_a=Shape(1, 1, count // 100, 100), shape_b=Shape(1, 1, 1, 100),
        shape_out=Shape(1, 1, count // 100, 100), **terms,
    )  # fmt: skip
    for i in range(count):
        a = ((int(x[i]) - 5) * 3 + 1) >> 1
        b = ((int(y[i % 100]) - 128) * 5 + 2) >> 2
        if op is ops.BinaryOp.DIV:
            v = int((a + int(b / 2)) / b)
        else:
            v = {
                "ADD": a + b, "SUB": a - b, "MUL": a * b, "MIN": min(a, b), "MAX": max(a, b)
            }[op.name]  # fmt: skip
        assert got[i] == min(255, max(0, ((v + 2) >> 2) + 100)), (i, a, b)


def test_square_and_the_other_unaries() -> None:
    x = np.abs(floats(50, 10)) + np.float32(0.1)
    x[:5] *= -1
    for op, function in {
        ops.UnaryOp.SQUARE: lambda v: v * v,
        ops.UnaryOp.ABS: abs,
        ops.UnaryOp.CEIL: math.ceil,
        ops.UnaryOp.NEG: lambda v: -v,
        ops.UnaryOp.SIN: math.sin,
    }.items():
        got = single_v4(ops.Unary, x, np.float32, 50, op=op)
        np.testing.assert_allclose(got, [function(float(v)) for v in x], atol=1e-5)
    got = single_v4(ops.Unary, x[5:], np.float32, 45, op=ops.UnaryOp.RSQRT)
    np.testing.assert_allclose(got, [1 / math.sqrt(float(v)) for v in x[5:]], atol=1e-5)


def test_matmul_starts_at_the_bias() -> None:
    a, b, bias = floats(12, 11), floats(20, 12), floats(5, 13)
    got = single_v4(
        ops.Matmul, a, np.float32, 15, input_name="a", second=b, a_rows=3, a_cols=4, b_cols=5,
        bias=bias, act=Range(-2.0, 2.0),
    ).reshape(3, 5)  # fmt: skip
    for i, j in itertools.product(range(3), range(5)):
        total = float(bias[j]) + sum(float(a[4 * i + k]) * float(b[5 * k + j]) for k in range(4))
        assert got[i, j] == pytest.approx(min(2.0, max(-2.0, total)), abs=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_moving_data_of_both_types(dtype: Any) -> None:
    x = (codes(120, 14) if dtype == np.uint8 else floats(120, 14)).reshape(2, 3, 4, 5)
    shape = Shape(*x.shape)
    got = single_v4(ops.Transpose, x, dtype, 120, shape=shape, perm=Shape(2, 0, 3, 1))
    for n, c, h, w in itertools.product(*map(range, x.shape)):
        assert got.reshape(4, 2, 5, 3)[h, n, w, c] == x[n, c, h, w]

    value = Scalar(0 if dtype == np.float32 else 1, np.array([3], dtype).tobytes().ljust(4, b"\0"))
    got = single_v4(
        ops.PadNode, x, dtype, 2 * 3 * 6 * 3, shape=shape, pad_n=Pad(0, 0), pad_c=Pad(1, -1),
        pad_h=Pad(0, 2), pad_w=Pad(-1, -1), value=value,
    ).reshape(2, 3, 6, 3)  # fmt: skip
    for n, c, h, w in itertools.product(range(2), range(3), range(6), range(3)):
        inside = c >= 1 and h < 4
        assert got[n, c, h, w] == (x[n, c - 1, h, w + 1] if inside else 3)

    got = single_v4(
        ops.StridedSlice, x, dtype, 1 * 2 * 2 * 2, shape=shape, begin=Shape(1, 0, 1, 0),
        end=Shape(2, 3, 4, 5), strides=Shape(1, 2, 2, 3),
    ).reshape(1, 2, 2, 2)  # fmt: skip
    for c, h, w in itertools.product(range(2), range(2), range(2)):
        assert got[0, c, h, w] == x[1, 2 * c, 1 + 2 * h, 3 * w]


def test_a_pad_that_crops_everything_leaves_the_value() -> None:
    x = codes(16, 15)
    got = single_v4(
        ops.PadNode, x, np.uint8, 4, shape=Shape(1, 1, 1, 16), pad_n=Pad(0, 0), pad_c=Pad(0, 0),
        pad_h=Pad(0, 0), pad_w=Pad(-20, 8),
    )  # fmt: skip
    assert got.tolist() == [0, 0, 0, 0]


def test_concat_alternates_its_inputs() -> None:
    x, y = codes(12, 16), codes(18, 17)
    given, out = MemoryRange(MAIN, UINT8, 0, 12), MemoryRange(MAIN, UINT8, 16, 30)
    node = ops.Concat(
        out=out, inner=2, outer=3, n=2, inputs=[given, MemoryRange(CONST, UINT8, 0, 18)],
        dims=[2, 3],
    )  # fmt: skip
    model = KmodelV4(
        nodes=[node], inputs=[given], input_shapes=[Shape(1, 1, 1, 12)], outputs=[out],
        constants=y.tobytes(), main_mem=48,
    )  # fmt: skip
    (got,) = Simulator(parse(write(model))).run(x)
    assert got.tolist() == [*x[:4], *y[:6], *x[4:8], *y[6:12], *x[8:], *y[12:]]


@pytest.mark.parametrize("count", [8, 11])
def test_memory_copy_moves_whole_floats_only(count: int) -> None:
    x = codes(count, 18) | np.uint8(1)
    got = single_v4(ops.MemoryCopy, x, np.uint8, count)
    whole = count // 4 * 4
    assert got[:whole].tolist() == x[:whole].tolist()
    assert got[whole:].tolist() == [0] * (count - whole)


def test_quantize_rounds_half_away_and_clamps() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -300, 300, 0.49999997], np.float32)
    got = single_v4(ops.Quantize, x, np.uint8, 7, quant=QuantParam(0, 1.0))
    assert got.tolist() == [1, 2, 3, 0, 0, 255, 0]
    back = single_v4(ops.Dequantize, got, np.float32, 7, quant=QuantParam(1, 4.0))
    assert back.tolist() == [0.0, 0.25, 0.5, -0.25, -0.25, 63.5, -0.25]


def test_nnil_runs_every_instruction() -> None:
    x = np.abs(floats(20000, 19)) + np.float32(0.5)
    words = (
        "nop push_x dup square add push:2.5 max push:40 min push_1 sub push_x div push_0 pop "
        "rsqrt log exp neg abs sin cos push:7 mul ceil floor push:-1 push:6.5 clamp ret nop"
    )
    pairs = [word.partition(":") for word in words.split()]
    program = [Instruction(name, float(literal or 0)) for name, _, literal in pairs]
    got = single_v4(ops.NnilUnary, x, np.float32, x.size, code=encode(program))
    expected = []
    for value in map(float, x):
        v = min(max(value + value * value, 2.5), 40.0) - 1
        v = 1 / math.sqrt(v / value)
        v = math.cos(math.sin(abs(-math.exp(math.log(v)))))
        expected.append(min(6.5, max(-1.0, float(math.ceil(7 * v)))))
    assert np.mean(got == expected) > 0.999  # a ceiling may fall on the other side in float32


@pytest.mark.parametrize("align", [0, 1])
def test_bilinear_resize_of_bytes_truncates(align: int) -> None:
    x = codes(20, 20).reshape(1, 1, 4, 5)
    got = single_v4(
        ops.ResizeImage, x, np.uint8, 63, shape=Shape(1, 1, 4, 5), out_h=7, out_w=9, mode=0,
        align_corners=align,
    ).reshape(7, 9)  # fmt: skip
    for oy, ox in itertools.product(range(7), range(9)):
        y = oy * (3 / 6 if align else 4 / 7)
        z = ox * (4 / 8 if align else 5 / 9)
        y0, x0 = int(y), int(z)
        y1, x1 = min(y0 + 1, 3), min(x0 + 1, 4)
        dy, dx = y - y0, z - x0
        image = x[0, 0].astype(float)
        value = (
            image[y0, x0] * (1 - dy) * (1 - dx) + image[y1, x0] * dy * (1 - dx)
            + image[y0, x1] * (1 - dy) * dx + image[y1, x1] * dy * dx
        )  # fmt: skip
        assert abs(got[oy, ox] - math.floor(value + 1e-3)) <= (1 if abs(value % 1) < 2e-3 else 0)
