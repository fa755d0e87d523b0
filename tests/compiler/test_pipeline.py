"""The whole compiler: options, kinds of input and output, real models, the same bytes always."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Options, Port
from k210tasks.compiler.pipeline import BadOptions, OtherModel
from k210tasks.compiler.problems import NoCalibration
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.helpers import FIXTURES, Outcome, decibels, fixture, pixels, scaled
from tests.compiler.tflite_builder import Net


def small(act: str = "RELU") -> Net:
    net = Net((1, 12, 12, 3))
    x = net.conv(net.input, 8, stride=(2, 2), act=act)
    net.dense(net.reshape(net.conv(x, 4), (1, 144)), 6)
    return net


def faces(shape: tuple[int, ...]) -> list[np.ndarray]:
    from PIL import Image

    found = sorted((FIXTURES / "images" / "faces").glob("*.jpg"))
    if not found:
        pytest.skip("the shared pictures are absent")
    size = (shape[2], shape[1])
    return [np.asarray(Image.open(f).convert("RGB").resize(size)) for f in found]


# -- the classic dense network

XO = """\
0: K210Conv2d 1x1x28x28 -> 1x1x28x28
1: K210AddPadding 1x784 -> 1x784x4x4
2: K210Conv2d 1x784x4x4 -> 1x128x4x4
3: K210Conv2d 1x128x4x4 -> 1x128x4x4
4: K210Conv2d 1x128x4x4 -> 1x2x4x4
5: K210RemovePadding 1x2x4x4 -> 1x2
6: Dequantize 1x2 -> 1x2
7: Softmax 1x2 -> 1x2
"""


def test_a_flattened_picture_makes_the_classic_chain_led_by_a_convolution() -> None:
    net = Net((1, 28, 28, 1))
    x = net.reshape(net.input, (1, 784))
    x = net.dense(net.dense(x, 128, act="RELU"), 128, act="RELU")
    net.softmax(net.dense(x, 2))
    outcome = Outcome(net.build(), 3)
    assert outcome.compiled.listing == XO
    assert outcome.compiled.kpu_bytes == 58368
    assert outcome.compiled.main_bytes <= 6272
    assert outcome.compiled.outputs == (Port("t12", (2,)),)
    assert outcome.decibels()[0] > 30
    outcome = Outcome(net.build(), 4)
    assert "matmul 1x128 -> 1x2\n" in outcome.compiled.listing  # a small last layer, in floats
    assert outcome.decibels()[0] > 35


# -- real models

REAL = {
    "vww_96_float": (0.0, 30.7, 92736, 261985),
    "ulffd_landmark": (0.5, 20.4, 1 << 20, 1 << 20),
}


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", REAL)
def test_real_models_are_as_right_and_as_small_as_they_must_be(name: str, kmodel: int) -> None:
    mean, least, main_bytes, file_bytes = REAL[name]
    tflite = fixture(f"{name}.tflite")
    model = FloatModel(tflite)
    pictures = faces(model.input_shape)[::5]
    inputs = [scaled(p, mean) for p in pictures]
    calibration = compiler.calibrate(tflite, inputs, measurable)
    made = compiler.compile(tflite, calibration, Options(kmodel=kmodel, mean=mean))
    simulator = Simulator(parse(made.kmodel))
    reference = [[to_nchw(y).ravel().copy() for y in model.run(x)] for x in inputs]
    got = [simulator.run(np.ascontiguousarray(p.transpose(2, 0, 1))) for p in pictures]
    for k in range(len(reference[0])):
        wanted = np.stack([r[k] for r in reference])
        assert decibels(wanted, np.stack([g[k] for g in got])) > least
    assert made.main_bytes <= main_bytes
    assert len(made.kmodel) <= file_bytes
    if name == "vww_96_float":
        names = [row.name for row in made.layers]
        last = max(i for i, n in enumerate(names) if n in ("K210Conv2d", "kpu_conv2d"))
        beside = [n for n in names[:last] if n not in ("K210Conv2d", "kpu_conv2d")]
        # The pixels of the 3x3 map are picked, and put into one of 4x4.
        pools = ["QuantizedMaxPool2d"] * 2
        assert beside in ([*pools, "K210Upload"], ["strided_slice", "pad", "kpu_upload"])


# -- inputs and outputs


def test_tensors_are_float32_in_kmodel_4_and_codes_in_kmodel_3() -> None:
    tflite = small().build()
    rng = np.random.default_rng(0)
    samples = [rng.normal(0, 2, (1, 12, 12, 3)).astype(np.float32) for _ in range(6)]
    calibration = compiler.calibrate(tflite, samples, measurable)
    model = FloatModel(tflite)
    reference = np.stack([model.run(x)[0].ravel() for x in samples])
    for options, dtype in (
        (Options(kmodel=4), "float32"),
        (Options(kmodel=4, input="uint8"), "uint8"),
        (Options(kmodel=3), "uint8"),
    ):
        made = compiler.compile(tflite, calibration, options)
        assert made.input.dtype == dtype
        assert made.input.shape == (3, 12, 12)
        simulator = Simulator(parse(made.kmodel))
        got = []
        for x in samples:
            fed = to_nchw(x)
            if dtype == "uint8":
                q = np.rint(fed / made.input.scale + made.input.zero_point)
                fed = np.clip(q, 0, 255).astype(np.uint8)
            got.append(simulator.run(np.ascontiguousarray(fed))[0])
        assert decibels(reference, np.stack(got)) > 30


def test_pixels_can_be_fed_as_floats_where_asked() -> None:
    outcome = Outcome(small().build(), 4, input="float")
    assert outcome.compiled.input.dtype == "float32"
    assert outcome.decibels()[0] > 30


def test_outputs_keep_their_order_names_and_layout() -> None:
    net = Net((1, 8, 8, 3))
    a = net.conv(net.input, 4)
    b = net.reduce("MEAN", a, [1, 2], False)
    c = net.reshape(a, (1, 64, 4))
    outcome = Outcome(net.build(c, a, b), 4)
    assert outcome.compiled.outputs == (
        Port(
            "t7",
            (
                64,
                4,
            ),
        ),
        Port(
            "t3",
            (
                4,
                8,
                8,
            ),
        ),
        Port("t5", (4,)),
    )
    assert min(outcome.decibels()) > 30


@pytest.mark.parametrize("kmodel", [3, 4])
def test_one_tensor_may_be_two_outputs(kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    a = net.conv(net.input, 4)
    assert min(Outcome(net.build(a, a), kmodel).decibels()) > 30


def test_layers_tell_what_they_compute_and_how_long_they_take() -> None:
    rows = Outcome(small().build(), 4).compiled.layers
    first = rows[0]
    assert first.source == ("CONV_2D #0",)
    assert first.runs_on == "KPU"
    assert first.estimated_us
    assert first.input_shape == (1, 3, 12, 12)
    assert {row.runs_on for row in rows} == {"KPU", "CPU"}
    assert all(row.estimated_us is None for row in rows if row.runs_on == "CPU")


# -- int8 models


def int8_net() -> Net:
    net = Net((1, 8, 8, 3), dtype="int8")
    net.tensors[net.input].update(scale=1 / 255, zero_point=-128)
    scales = np.array([0.01, 0.02, 0.005, 0.008])
    rng = np.random.default_rng(0)
    weights = net.const(rng.integers(-127, 128, (4, 3, 3, 3)), "int8", scale=scales)
    bias = net.const(rng.integers(-500, 500, 4), "int32", scale=scales / 255)
    y = net.op("CONV_2D", [net.input, weights, bias], (1, 8, 8, 4), "Conv2DOptions", Padding=0,
               StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1,
               FusedActivationFunction=1)  # fmt: skip
    net.tensors[y].update(dtype=np.dtype("int8"), scale=0.05, zero_point=-128)
    out = net.op("DEQUANTIZE", [y], (1, 8, 8, 4))
    net.outputs = [out]
    return net


@pytest.mark.parametrize("kmodel", [3, 4])
def test_an_int8_model_needs_no_images(kmodel: int) -> None:
    net = int8_net()
    tflite = net.build(*net.outputs)
    made = compiler.compile(tflite, None, Options(kmodel=kmodel))
    model, simulator = FloatModel(tflite), Simulator(parse(made.kmodel))
    pictures = pixels((1, 8, 8, 3))
    reference, got = [], []
    for picture in pictures:
        fed = (picture.astype(np.int16) - 128).astype(np.int8)[None]
        reference.append(to_nchw(model.run(fed)[0]).ravel().copy())
        got.append(simulator.run(np.ascontiguousarray(np.moveaxis(picture, -1, 0)))[0])
    assert np.abs(np.stack(reference) - np.stack(got)).max() <= 0.05 + 1e-6  # one code
    assert decibels(np.stack(reference), np.stack(got)) > 35


# -- what is refused


def test_a_float_model_needs_calibration() -> None:
    with pytest.raises(NoCalibration) as caught:
        compiler.compile(small().build(), None, Options())
    assert str(caught.value) == (
        "the range of tensor 'input' is not known; calibrate the model on images first"
    )


def test_calibration_of_another_model_is_refused() -> None:
    tflite, other = small().build(), small("RELU6").build()
    calibration = compiler.calibrate(other, [scaled(p) for p in pixels((1, 12, 12, 3))], measurable)
    with pytest.raises(OtherModel):
        compiler.compile(tflite, calibration, Options())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(kmodel=5), "the built-in compiler writes kmodel 3 and 4, not 5"),
        (Options(weights=4), "weights have 8 or 16 bits, not 4"),
        (
            Options(weights=16),
            "kmodel 4 has no 16-bit weights: use weights: 8 or kmodel: 3",
        ),
        (Options(std=0.0), "std must be above zero, it is 0"),
        (
            Options(kmodel=3, input="float"),
            "a kmodel 3 is fed with uint8: use input: uint8 or kmodel: 4",
        ),
    ],
)
def test_contradicting_options_are_refused(options: Options, message: str) -> None:
    with pytest.raises(BadOptions) as caught:
        compiler.compile(small().build(), None, options)
    assert str(caught.value) == message


# -- options that shape the bytes


def test_weights_can_have_sixteen_bits() -> None:
    tflite = small().build()
    # So many that error feedback cannot fit 8-bit weights to these very pictures.
    pictures = pixels((1, 12, 12, 3), 40)
    eight, sixteen = (Outcome(tflite, 3, pictures, weights=bits) for bits in (8, 16))
    assert not parse(sixteen.compiled.kmodel).flags & 1
    assert sixteen.decibels()[0] > eight.decibels()[0]
    for outcome, top in ((eight, 255), (sixteen, 65535)):
        (conv, *_) = [b for b in parse(outcome.compiled.kmodel).layers if hasattr(b, "weights")]
        assert top / 2 < conv.weights.max() <= top


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "kl"])
def test_every_method_compiles(method: str) -> None:
    assert Outcome(small().build(), 4, method=method).decibels()[0] > 20


SCRIPT = """
import hashlib, sys
import numpy as np
from k210tasks import compiler
from k210tasks.reference.litert import measurable
from tests.compiler.test_pipeline import small
from tests.compiler.helpers import pixels, scaled
tflite = small().build()
inputs = [scaled(p) for p in pixels((1, 12, 12, 3))]
calibration = compiler.calibrate(tflite, inputs, measurable,
                                 threads=int(sys.argv[1]))
for kmodel in (3, 4):
    options = compiler.Options(kmodel=kmodel, mean=0.5)
    data = compiler.compile(tflite, calibration, options).kmodel
    print(hashlib.sha256(data).hexdigest())
"""


def _hashes(threads: int, **environment: str) -> list[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), **environment}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_bytes_do_not_depend_on_threads_processes_or_blas_kernels() -> None:
    first = _hashes(1, OPENBLAS_NUM_THREADS="1")
    assert len(first) == 2
    assert _hashes(2, OPENBLAS_NUM_THREADS="2") == first
    assert _hashes(1, OPENBLAS_CORETYPE="Prescott", PYTHONHASHSEED="7") == first
    tflite = small().build()
    outcome = [Outcome(tflite, k, effort="normal").compiled.kmodel for k in (3, 4)]
    assert [hashlib.sha256(data).hexdigest() for data in outcome] == first


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, k210tasks.compiler as c; c.Options();"
        "print([m for m in ('numpy', 'tflite', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_progress_is_told() -> None:
    told: list[Any] = []
    net = small()
    tflite = net.build()
    calibration = compiler.calibrate(
        tflite, [scaled(p) for p in pixels((1, 12, 12, 3))], measurable
    )
    compiler.compile(tflite, calibration, Options(), progress=lambda *a: told.append(a))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
