"""The chosen weights: better than plain rounding, the same everywhere, scales per channel."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler import Options
from k210tasks.compiler.numerics import weights
from k210tasks.compiler.passes import equalise, optimise, quantise
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.tflite_builder import Net

ROOT = Path(__file__).resolve().parents[3]


def network(act="RELU", *, residual=False):
    """A small net of separable convolutions whose channels differ in size by a hundred."""
    net = Net((1, 24, 24, 3), seed=4)
    x = net.conv(net.input, 8, (3, 3), act=act)
    for channels in (16, 16, 24):
        start = x
        x = net.depthwise(x, (3, 3), act=act)
        x = net.conv(x, channels, (1, 1), act=act)
        if residual and channels == net.shape(start)[3]:
            x = net.binary("ADD", x, start, act)
    x = net.conv(x, 5, (1, 1))
    for tensor in net.tensors:
        value = tensor["value"]
        if value is not None and value.ndim == 4 and value.shape[0] == 16:
            value *= np.geomspace(0.05, 2, 16, dtype=np.float32).reshape(-1, 1, 1, 1)
    return net.build(x)


def samples(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        base = rng.integers(0, 256, size=(6, 6, 3)).repeat(4, 0).repeat(4, 1)
        noise = rng.integers(-20, 21, size=base.shape)
        found.append(np.clip(base + noise, 0, 255).astype(np.uint8))
    return found


def as_input(picture):
    return (picture[None] / np.float32(255)).astype(np.float32)


def snr(tflite, made, pictures):
    model, simulator = FloatModel(tflite), Simulator(parse(made.kmodel))
    signal = noise = 0.0
    for picture in pictures:
        want = model.run(as_input(picture))[0][0].transpose(2, 0, 1).ravel().astype(float)
        got = np.asarray(simulator.run(picture.transpose(2, 0, 1))[0]).ravel()
        signal += float(want @ want)
        noise += float((want - got) @ (want - got))
    return 10 * np.log10(signal / noise)


@pytest.mark.parametrize("kind", ["RELU", "RELU6", "NONE", "residual"])
def test_better_than_plain_rounding_with_one_scale_also_held_out(
    kind, monkeypatch: pytest.MonkeyPatch
):
    tflite = network("RELU", residual=True) if kind == "residual" else network(kind)
    calibration = compiler.calibrate(tflite, [as_input(p) for p in samples(12)], measurable)
    ours = compiler.compile(tflite, calibration, Options(effort="normal", fed="pixels"))

    def plainly(layer, optimiser, ranges, bits: int):
        if layer.op.identity:
            return numbers(layer, None, ranges, bits)
        zero, scale = weights.grid(layer.weights, bits=bits)
        nearest = weights.round_nearest(layer.weights, zero, scale, bits=bits)
        return quantise.finish(layer, nearest, layer.bias, ranges.before(layer.op))

    numbers = quantise._numbers
    monkeypatch.setattr(quantise, "_numbers", plainly)
    monkeypatch.setattr(equalise, "assign_scales", lambda *args: None)
    plain = compiler.compile(tflite, calibration, Options(effort="normal", fed="pixels"))
    for seed in (0, 7):
        pictures = samples(12, seed)
        assert snr(tflite, ours, pictures) > snr(tflite, plain, pictures) + 2, f"seed {seed}"


@pytest.mark.parametrize("effort", ["fast", "normal", "high"])
@pytest.mark.parametrize("version", [3, 4])
def test_every_effort_is_accurate(effort, version):
    tflite = network()
    calibration = compiler.calibrate(tflite, [as_input(p) for p in samples(6)], measurable)
    made = compiler.compile(
        tflite, calibration, Options(kmodel=version, effort=effort, fed="pixels")
    )
    assert snr(tflite, made, samples(6)) > 33


def test_wide_weights_are_more_accurate() -> None:
    tflite = network()
    calibration = compiler.calibrate(tflite, [as_input(p) for p in samples(6)], measurable)
    eight, sixteen = (
        compiler.compile(tflite, calibration, Options(kmodel=3, weights=bits)) for bits in (8, 16)
    )
    pictures = samples(6)
    assert snr(tflite, sixteen, pictures) > snr(tflite, eight, pictures) - 0.5
    assert len(sixteen.kmodel) > len(eight.kmodel)


def test_channels_get_scales_of_their_own_where_only_layers_read() -> None:
    from k210tasks.compiler.ir import Quant
    from k210tasks.compiler.passes.ranges import Ranges
    from k210tasks.compiler.pipeline import lowered

    tflite = network()
    calibration = compiler.calibrate(tflite, [as_input(p) for p in samples(4)], measurable)
    graph = lowered(tflite, 4)
    quantise.quantise(graph, Ranges(calibration, "minmax"), Quant(1 / 255, 0))
    layers = [op for op in graph.ops if op.kind == "kpu_conv"]
    assert layers[-1].output.scales is None  # read by the CPU
    for op in layers[:-1]:
        assert op.output.scales is not None
        assert op.output.scales.max() == pytest.approx(op.output.quant.scale)
    assert any(op.output.scales.min() < 0.3 * op.output.scales.max() for op in layers[:-1])


def test_fewer_samples_run_through_larger_maps() -> None:
    from k210tasks.compiler.pipeline import lowered

    graph = lowered(network(), 4)
    normal = optimise.EFFORTS["normal"]
    assert normal.samples(graph, 100) == 100
    assert normal.samples(graph, 3) == 3
    tight = optimise.Effort(elements=1, pixels=1, feedback=1, passes=0)
    assert tight.samples(graph, 100) == 4


SCRIPT = """
import hashlib, sys
from k210tasks import compiler
from k210tasks.compiler import Calibration, Options
from pathlib import Path
tflite = Path(sys.argv[1]).read_bytes()
calibration = Calibration.from_npz(Path(sys.argv[2]))
print(hashlib.sha256(compiler.compile(tflite, calibration, Options()).kmodel).hexdigest())
"""


@pytest.mark.parametrize(
    "setting", ["OPENBLAS_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=2", "OPENBLAS_CORETYPE=Nehalem"]
)
def test_the_same_bytes_with_other_threads_and_kernels(setting, tmp_path: Path):
    tflite = network("RELU", residual=True)
    calibration = compiler.calibrate(tflite, [as_input(p) for p in samples(5)], measurable)
    model, data = tmp_path / "m.tflite", tmp_path / "c.npz"
    model.write_bytes(tflite)
    calibration.to_npz(data)
    here = hashlib.sha256(compiler.compile(tflite, calibration, Options()).kmodel).hexdigest()
    name, value = setting.split("=")
    there = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), str(data)],
        env={**os.environ, name: value},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert there.stdout.strip() == here
