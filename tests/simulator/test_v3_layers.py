"""The v3 layers no golden output covers, against loops that follow section 2.4's wording."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks.kmodel import KmodelError, parse, v3_layers, write
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import WHC
from k210tasks.kpu.registers import conv_registers
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm
from k210tasks.simulator import Simulator
from tests.kpu import slow
from tests.simulator import models


def run_layers(
    layers: list[v3_layers.Body], x: NDArray[np.float32], output: tuple[int, int], main_mem: int
) -> list[NDArray[Any]]:
    """Every layer's output; ``x`` enters through an identity dense layer to address 0."""
    n = x.size
    entry = v3_layers.FullyConnected(
        in_mem=main_mem,
        out_mem=0,
        in_ch=n,
        out_ch=n,
        act=0,
        weights=np.eye(n, dtype=np.float32),
        bias=np.zeros(n, np.float32),
    )
    model = KmodelV3(
        layers=[entry, *layers],
        outputs=[v3_layers.Output(*output)],
        main_mem=main_mem + 4 * n,
    )
    simulator = Simulator(parse(write(model)))
    simulator.run(x, keep_layers=True)
    return [simulator.layer_output(i) for i in range(1, len(layers) + 1)]


def floats(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, count).astype(np.float32)


def codes_of(x: NDArray[np.float32], scale: float, bias: float) -> list[int]:
    """QUANTIZE as worded: clamp(round_away((x - bias) * (1 / scale)), 0, 255) in float32."""
    inverse = np.float32(1) / np.float32(scale)
    out = []
    for value in x:
        q = float((value - np.float32(bias)) * inverse)
        out.append(min(255, max(0, int(math.copysign(math.floor(abs(q) + 0.5), q)))))
    return out


def quantize(count: int, out_mem: int, in_mem: int = 0) -> v3_layers.Body:
    return v3_layers.Quantize(in_mem=in_mem, out_mem=out_mem, count=count, scale=0.05, bias=-6.0)


def test_quantize_and_dequantize() -> None:
    x = floats(100)
    x[:3] = [1000, -1000, -6.025]  # both ends, and a tie
    back = v3_layers.Dequantize(in_mem=400, out_mem=504, count=100, scale=0.05, bias=-6.0)
    codes, real = run_layers([quantize(100, 400), back], x, (504, 400), 1000)
    assert codes.tolist() == codes_of(x, 0.05, -6.0)
    expected = codes.astype(np.float32) * np.float32(0.05) + np.float32(-6)
    np.testing.assert_array_equal(real, expected)


def test_a_nan_quantises_to_zero() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    to = v3_layers.Quantize(in_mem=0, out_mem=16, count=4, scale=1.0, bias=0.0)
    weights = np.eye(4, dtype=np.float32)
    dense = v3_layers.FullyConnected(
        in_mem=32, out_mem=0, in_ch=4, out_ch=4, act=0, weights=weights, bias=x
    )
    model = KmodelV3(layers=[dense, to], outputs=[], main_mem=64)
    simulator = Simulator(parse(write(model)))
    simulator.run(np.zeros(4, np.float32), keep_layers=True)
    assert simulator.layer_output(1).tolist() == [0, 255, 0, 0]


@pytest.mark.parametrize(("a_shift", "b_shift"), [(9, 9), (9, 10), (0, 0)])
def test_quantized_add(a_shift: int, b_shift: int) -> None:
    x = floats(200, 1)
    terms = {
        "a_offset": -37, "a_mul": 601, "a_shift": a_shift,
        "b_offset": -91, "b_mul": -433, "b_shift": b_shift,
        "out_offset": 55, "out_mul": 700, "out_shift": 10 if a_shift else 20,
    }  # fmt: skip
    add = v3_layers.QuantizedAdd(a_mem=800, b_mem=904, out_mem=1008, count=96, **terms)
    layers = [quantize(200, 800), add]
    codes, out = run_layers(layers, x, (1008, 96), 2000)
    a, b = codes[:96], codes[104:200]
    expected = []
    for p, q in zip(a.tolist(), b.tolist(), strict=True):
        left, right = (p - 37) * 601, (q - 91) * -433
        if a_shift == b_shift:
            total = (left + right) >> a_shift
        else:
            total = (left >> a_shift) + (right >> b_shift)
        value = total * 700
        shift = terms["out_shift"]
        t = value >> (shift - 1)
        rounded = ((t >> 1) + 1 if t >= 0 else (t >> 1) - 1) if t & 1 else t >> 1
        expected.append(min(255, max(0, rounded + 55)))
    assert out.tolist() == expected
    assert len(set(expected)) > 20


def test_add_global_average_l2_logistic() -> None:
    x = floats(60, 2)
    layers: list[v3_layers.Body] = [
        v3_layers.Add(a_mem=0, b_mem=80, out_mem=240, count=40),
        v3_layers.GlobalAveragePool(in_mem=0, out_mem=400, kernel_size=12, channels=5),
        v3_layers.L2Normalization(in_mem=0, out_mem=420, channels=60),
        v3_layers.Logistic(in_mem=0, out_mem=660, channels=60),
        v3_layers.Softmax(in_mem=0, out_mem=900, channels=60),
    ]
    total, mean, unit, logistic, softmax = run_layers(layers, x, (240, 160), 1200)
    np.testing.assert_allclose(total, x[:40] + x[20:60], rtol=1e-6)
    np.testing.assert_allclose(mean, [x[12 * c : 12 * c + 12].mean() for c in range(5)], atol=1e-6)
    np.testing.assert_allclose(unit, x / math.sqrt(float((x.astype(float) ** 2).sum())), atol=1e-6)
    np.testing.assert_allclose(logistic, [1 / (1 + math.exp(-v)) for v in x], atol=1e-6)
    e = [math.exp(v - max(x)) for v in x]
    np.testing.assert_allclose(softmax, np.array(e) / sum(e), atol=1e-6)


def test_l2_of_zeros_and_softmax_of_very_negative_values() -> None:
    layers: list[v3_layers.Body] = [
        v3_layers.L2Normalization(in_mem=0, out_mem=16, channels=4),
        v3_layers.Softmax(in_mem=32, out_mem=48, channels=4),
    ]
    x = np.array([0, 0, 0, 0, 0, 0, 0, 0, -200, -201, -202, -203], np.float32)
    unit, softmax = run_layers(layers, x, (16, 16), 96)
    assert unit.tolist() == [0, 0, 0, 0]
    # The maximum starts at the smallest normal float, so exp underflows and 0 is divided by 0.
    assert np.isnan(softmax).all()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("pad", [0, 1])
def test_pools(stride: int, kernel: int, pad: int) -> None:
    c, ih, iw = 2, 5, 7
    x = floats(c * ih * iw, 3)
    oh, ow = (ih + pad) // stride, (iw + pad) // stride  # the last window may hang over
    facts: dict[str, Any] = {
        "in_shape": WHC(iw, ih, c), "out_shape": WHC(ow, oh, c), "kernel_w": kernel,
        "kernel_h": kernel, "stride_w": stride, "stride_h": stride, "pad_w": pad, "pad_h": pad,
    }  # fmt: skip
    layers: list[v3_layers.Body] = [
        v3_layers.AveragePool2d(in_mem=0, out_mem=400, **facts),
        quantize(c * ih * iw, 1000),
        v3_layers.QuantizedMaxPool2d(in_mem=1000, out_mem=1200, **facts),
    ]
    mean, codes, best = run_layers(layers, x, (400, 4), 2000)
    image, code = x.reshape(c, ih, iw), codes.reshape(c, ih, iw)
    for channel in range(c):
        for oy in range(oh):
            for ox in range(ow):
                inside = [
                    (y, z)
                    for y in range(oy * stride - pad, oy * stride - pad + kernel)
                    for z in range(ox * stride - pad, ox * stride - pad + kernel)
                    if 0 <= y < ih and 0 <= z < iw
                ]
                expected = sum(float(image[channel, y, z]) for y, z in inside) / len(inside)
                assert mean[channel, oy, ox] == pytest.approx(expected, abs=1e-5)
                assert best[channel, oy, ox] == max(code[channel, y, z] for y, z in inside)


def test_concat_requantize_flatten() -> None:
    x = floats(24, 4)
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    layers: list[v3_layers.Body] = [
        v3_layers.Concat.of(96, [(32, 16), (0, 8)]),
        quantize(24, 160),
        v3_layers.QuantizedConcat.of(192, [(168, 5), (160, 3)]),
        v3_layers.Requantize(in_mem=160, out_mem=208, count=24, table=table),
        v3_layers.TensorflowFlatten(in_mem=0, out_mem=232, shape=WHC(4, 3, 2)),
    ]
    joined, codes, bytes_joined, mapped, flat = run_layers(layers, x, (96, 4), 400)
    assert joined.tolist() == [*x[8:12], *x[0:2]]
    assert bytes_joined.tolist() == [*codes[8:13], *codes[0:3]]
    assert mapped.tolist() == [table[code] for code in codes]
    image = x.reshape(2, 3, 4)
    assert flat.tolist() == [image[c, y, z] for y in range(3) for z in range(4) for c in range(2)]


@pytest.mark.parametrize(("out_w", "out_h"), [(3, 2), (7, 9), (10, 4)])
def test_resize_nearest(out_w: int, out_h: int) -> None:
    x = floats(2 * 4 * 5, 5)
    size = 2 * out_w * out_h
    layers: list[v3_layers.Body] = [
        v3_layers.ResizeNearestNeighbor(
            in_mem=0, out_mem=160, in_shape=WHC(5, 4, 2), out_w=out_w, out_h=out_h
        ),
        quantize(40, 1000),
        v3_layers.QuantizedResizeNearestNeighbor(
            in_mem=1000, out_mem=1040, in_shape=WHC(5, 4, 2), out_w=out_w, out_h=out_h
        ),
    ]
    real, codes, small = run_layers(layers, x, (160, 4), 2000)
    assert real.size == small.size == size
    image, code = x.reshape(2, 4, 5), codes.reshape(2, 4, 5)
    for oy in range(out_h):
        for ox in range(out_w):
            iy = min(int(np.floor(np.float32(oy) * (np.float32(4) / np.float32(out_h)))), 3)
            ix = min(int(np.floor(np.float32(ox) * (np.float32(5) / np.float32(out_w)))), 4)
            assert real[:, oy, ox].tolist() == image[:, iy, ix].tolist()
            assert small[:, oy, ox].tolist() == code[:, iy, ix].tolist()


def test_fully_connected_activations() -> None:
    x = floats(6, 6)
    for act in range(3):
        weights, bias = floats(24, 7).reshape(4, 6), floats(4, 8)
        dense = v3_layers.FullyConnected(
            in_mem=0, out_mem=24, in_ch=6, out_ch=4, act=act, weights=weights, bias=bias
        )
        (out,) = run_layers([dense], x, (24, 16), 64)
        for row, b, got in zip(weights, bias, out, strict=True):
            expected = sum(float(w) * float(v) for w, v in zip(row, x, strict=True)) + float(b)
            if act:
                expected = max(0.0, expected)
            if act == 2:
                expected = min(6.0, expected)
            assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 6), (20, 5, 3), (70, 4, 2)])
def test_upload_and_padding_use_the_kpu_layout(shape: tuple[int, int, int]) -> None:
    w, h, c = shape
    count = w * h * c
    layers: list[v3_layers.Body] = [
        quantize(min(count, 64), 4 * 64),
        v3_layers.K210Upload(in_mem=0, out_kpu=7, width=w, height=h, channels=c),
        v3_layers.K210AddPadding(in_mem=0, out_kpu=900, channels=9),
        v3_layers.K210RemovePadding(in_mem=0, out_mem=4000, channels=5),
    ]
    x = floats(64, 9)
    model_outputs = run_layers(layers, x, (0, 4), 5000)
    uploaded, padded, removed = model_outputs[1:]
    raw = np.zeros(5000, np.uint8)
    raw[:256] = x.view(np.uint8)
    raw[256 : 256 + min(count, 64)] = model_outputs[0]
    np.testing.assert_array_equal(uploaded.reshape(-1), raw[:count])
    assert padded.tolist() == raw[:9].tolist()
    assert removed.tolist() == raw[:80:16].tolist()


def test_padding_goes_to_pixel_0_of_a_4x4_map() -> None:
    simulator = Simulator(parse(write(models.net_v3())))
    simulator.run(np.full(720, 9, np.uint8), keep_layers=True)
    ram = simulator._memory.kpu
    codes = simulator.layer_output(7)
    for c, code in enumerate(codes):  # sections 1.3 and 2.4: 4 channels a row, 16 bytes apart
        assert ram[200 * 64 + c // 4 * 256 + c % 4 * 16] == code


def test_a_float_max_pool_has_no_handler() -> None:
    pool = v3_layers.MaxPool2d(
        in_mem=0, out_mem=0, in_shape=WHC(2, 2, 1), out_shape=WHC(1, 1, 1), kernel_w=2,
        kernel_h=2, stride_w=2, stride_h=2, pad_w=0, pad_h=0,
    )  # fmt: skip
    with pytest.raises(KmodelError, match=r"layer 0 \(MaxPool2d\): type: no K210 runtime has"):
        Simulator(parse(write(KmodelV3(layers=[pool], outputs=[], main_mem=64))))


def test_all_cpu_layers_in_a_row_run() -> None:
    simulator = Simulator(parse(write(models.cpu_net_v3())))
    (out,) = simulator.run(np.ones(4, np.float32))
    assert np.isfinite(out).all()
    assert len({type(layer) for layer in simulator.model.layers}) == 15


@pytest.mark.parametrize("depthwise", [False, True])
def test_16_bit_weights(depthwise: bool) -> None:
    rng = np.random.default_rng(3)
    registers = conv_registers(
        in_channels=3, height=5, width=6, out_channels=3 if depthwise else 4, kernel=3,
        depthwise=depthwise, dst_row=100, pad_value=9, arg_x=-30000, arg_w=-9,
        arg_add=9 * 30000 * 9, weight_bytes=2,
    )  # fmt: skip
    weights = rng.integers(0, 1 << 16, registers.weights_shape).astype(np.uint16)
    oc = registers.out_channels
    bn = BatchNorm.of(rng.integers(20000, 90000, oc), [15] * oc, rng.integers(0, 1 << 24, oc))
    activation = Activation.of(
        [LOWEST_START, 0, *models.PARKED], [0, 9, *[0] * 14], [20] * 16, [0, 0, *[255] * 14]
    )
    conv = v3_layers.K210Conv(registers=registers, weights=weights, bn=bn, activation=activation)
    simulator = Simulator(parse(write(KmodelV3(layers=[conv], outputs=[], main_mem=8, flags=0))))
    x = rng.integers(0, 256, (3, 5, 6)).astype(np.uint8)
    simulator.run(x, keep_layers=True)
    expected = slow.layer(
        x, weights, bn, activation, depthwise=depthwise, pool_type=0, pad_value=9, arg_x=-30000,
        shr_x=0, arg_w=-9, shr_w=0, arg_add=9 * 30000 * 9,
    )  # fmt: skip
    np.testing.assert_array_equal(simulator.layer_output(0), expected)
    assert len(np.unique(expected)) > 20
