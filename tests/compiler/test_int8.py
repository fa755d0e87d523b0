"""Fully quantised files: fed, measured and compared in the reals that their codes mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks import compiler
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Compiled, Options
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.helpers import decibels
from tests.compiler.quantiser import quantised_by
from tests.compiler.tflite_builder import Net

SHAPE = (1, 12, 12, 3)


def samples(low: float = -1.0, high: float = 1.0, shape: tuple[int, ...] = SHAPE) -> list[NDArray]:
    rng = np.random.default_rng(4)
    return [rng.uniform(low, high, shape).astype(np.float32) for _ in range(6)]


def plain(net: Net) -> int:
    x = net.conv(net.input, 8, stride=(2, 2), act="RELU6", gain=4.0)
    x = net.pool(net.depthwise(x), "MAX", (2, 2))
    return net.dense(net.reshape(x, (1, 72)), 5)


def curves(net: Net) -> int:
    x = net.conv(net.input, 8, gain=5.0)
    x = net.binary("MUL", x, net.unary("LOGISTIC", x))
    x = net.unary("TANH", net.conv(x, 8, gain=3.0))
    x = net.unary("HARD_SWISH", net.conv(x, 8, gain=3.0))
    x = net.unary("ELU", net.conv(x, 8, gain=3.0))
    return net.conv(net.unary("GELU", net.conv(x, 8, gain=3.0), "GeluOptions"), 4, (1, 1))


def blocks(net: Net) -> int:
    x = net.conv(net.input, 8, act="RELU6", gain=4.0)
    y = net.concat([x, net.conv(x, 4)], 3)
    return net.conv(net.binary("ADD", net.conv(y, 8), x), 4)


def held(net: Net) -> int:
    """A clamp that the file gives the codes of what it clamps, and zeros around it."""
    x = net.pool(net.conv(net.input, 8), "MAX", (2, 2), act="RELU")
    return net.conv(net.pad(x, [(0, 0), (2, 3), (3, 2), (0, 0)]), 4)


def gated(net: Net) -> int:
    """Squares of sums, which kmodel 3 multiplies by, are of no tensor that the file tells of."""
    x = net.conv(net.input, 8, act="RELU", gain=4.0)
    gate = net.dense(net.reduce("MEAN", x, [1, 2], False), 8)
    gate = net.binary("ADD", gate, net.const(np.linspace(-1, 1, 8, dtype=np.float32)))
    gate = net.reshape(net.unary("LOGISTIC", gate), (1, 1, 1, 8))
    return net.conv(net.binary("MUL", x, gate), 4)


def split(net: Net) -> int:
    """Nor is a function in several ops of parts of a map."""
    x = net.conv(net.input, 8, gain=4.0)
    halves = [net.strided_slice(x, [0, 0, 0, k], [1, 12, 12, k + 4], [1, 1, 1, 1]) for k in (0, 4)]
    x = net.concat([net.binary("MUL", h, net.unary("LOGISTIC", h)) for h in halves], 3)
    return net.conv(x, 4)


def classes(net: Net) -> int:
    x = net.conv(net.input, 8, act="RELU", gain=4.0)
    return net.softmax(net.dense(net.reduce("MEAN", x, [1, 2], False), 5))


def results(tflite: bytes, made: Compiled, inputs: list[NDArray]) -> tuple[NDArray, NDArray]:
    """Outputs of the file itself and of the kmodel, both in reals, for inputs in reals."""
    model, simulator = FloatModel(tflite), Simulator(parse(made.kmodel))
    wanted, got = [], []
    for x in inputs:
        wanted.append(to_nchw(model.run(x)[0]).ravel().astype(np.float64))
        fed = to_nchw(x)
        if made.input.dtype == "uint8":
            codes = np.rint(fed / made.input.scale + made.input.zero_point)
            fed = np.clip(codes, 0, 255).astype(np.uint8)
        got.append(np.array(simulator.run(np.ascontiguousarray(fed))[0], np.float64).ravel())
    return np.stack(wanted), np.stack(got)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("build", [plain, curves, blocks, classes, held, gated, split])
def test_a_quantised_file_is_computed_as_what_its_codes_mean(
    build: Callable[[Net], int], io: str, measured: bool, kmodel: int
) -> None:
    net = Net(SHAPE)
    inputs = samples()
    tflite = quantised_by(net, inputs, build(net), io=io)
    calibration = compiler.calibrate(tflite, inputs, measurable) if measured else None
    made = compiler.compile(tflite, calibration, Options(kmodel=kmodel, effort="fast"))
    wanted, got = results(tflite, made, inputs)
    if build is classes:  # what LiteRT rounds to 1/256
        assert np.abs(wanted - got).max() < 0.02
    else:
        assert decibels(wanted, got) > 25, made.listing


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_the_codes_of_the_input_are_those_of_the_file(io: str) -> None:
    net = Net(SHAPE)
    tflite = quantised_by(net, samples(), plain(net), io=io)
    made = compiler.compile(tflite, None, Options(kmodel=4, effort="fast"))
    given = FloatModel(tflite).input
    scale, zero = given["quantization"]
    assert made.input.dtype == "uint8"
    assert made.input.scale == pytest.approx(scale, rel=1e-6)
    assert made.input.zero_point == zero + (128 if io == "int8" else 0)


def test_without_samples_a_picture_is_what_the_file_says() -> None:
    net = Net(SHAPE)
    end = plain(net)
    signed = quantised_by(net, samples(), end, io="float32")
    made = compiler.compile(signed, None, Options(kmodel=4, effort="fast"))
    assert made.input.scale == pytest.approx(2 / 255, rel=0.01)  # not a pixel's 1/255
    assert made.input.zero_point == pytest.approx(127.5, abs=1)
    as_asked = compiler.compile(signed, None, Options(kmodel=4, effort="fast", mean=0.5, std=0.5))
    assert as_asked.input.zero_point == 127.5  # the same, said more exactly
    pixels = quantised_by(net, samples(0.0), end, io="float32")
    made = compiler.compile(pixels, None, Options(kmodel=4, effort="fast"))
    assert made.input.scale == pytest.approx(1 / 255, rel=0.01)
    assert made.input.zero_point == 0


def test_tensors_measured_on_a_file_with_float_input_stay_floats() -> None:
    net = Net(SHAPE)
    inputs = samples()
    tflite = quantised_by(net, inputs, plain(net), io="float32")
    made = compiler.compile(
        tflite, compiler.calibrate(tflite, inputs, measurable), Options(kmodel=4)
    )
    assert made.input.dtype == "float32"


def test_calibration_of_a_file_without_floats_survives_its_file(tmp_path) -> None:
    net = Net(SHAPE)
    inputs = samples()
    tflite = quantised_by(net, inputs, plain(net))
    calibration = compiler.calibrate(tflite, inputs, measurable)
    path = tmp_path / "calibration.npz"
    calibration.to_npz(path)
    again = compiler.Calibration.from_npz(path)
    assert again.tensors == calibration.tensors == {}
    np.testing.assert_array_equal(again.kept, calibration.kept)
