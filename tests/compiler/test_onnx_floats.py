"""Layers of kmodel 4 that compute in floats, fed with floats: ONNX models against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler import Calibration, Options
from k210tasks.kmodel import parse
from k210tasks.reference.float_model import Reference, measure_to
from k210tasks.reference.metrics import snr_db
from k210tasks.simulator import Simulator
from k210tasks.steps.signature import read_model
from tests.compiler.onnx_models import MAP, W, floats, model, node, spelled


def decibels(path: Path, data: bytes) -> float:
    """Of twelve samples, all calibrated with; some far out, where curves are flat."""
    (path / "net.onnx").write_bytes(data)
    net, _ = read_model(path / "net.onnx", "net.onnx")
    numbers = np.random.default_rng(3)
    samples = [(numbers.normal(0, 4, MAP)).astype(np.float32) for _ in range(12)]
    last = [x.transpose(0, 2, 3, 1).copy() for x in samples]
    measure_to(path / "calibration.npz", net, last, fed="tensors")
    calibration = Calibration.from_npz(path / "calibration.npz")
    made = compiler.compile(net, calibration, Options(kmodel=4))
    simulator, reference = Simulator(parse(made.kmodel)), Reference(net)
    signal = noise = 0.0
    for x, same in zip(samples, last, strict=True):
        wanted = reference.run(same)[0].transpose(0, 3, 1, 2).astype(np.float64).ravel()
        (got,) = simulator.run(x[0])
        signal += float((wanted**2).sum())
        noise += float(((got.ravel() - wanted) ** 2).sum())
    return snr_db(signal, noise)


@pytest.mark.parametrize(
    "data",
    [
        model([node("Erf", "x")], MAP),
        model([node("Gelu", "x")], MAP, opset=20),
        model([node("Gelu", "x", approximate="tanh")], MAP, opset=20),
        spelled("gelu as PyTorch exports it, of the input"),
    ],
    ids=["erf", "gelu", "gelu by tanh", "gelu as PyTorch exports it"],
)
def test_curves_where_no_kpu_layer_is_before_them(data: bytes, tmp_path: Path) -> None:
    assert decibels(tmp_path, data) > 100


@pytest.mark.parametrize(
    "data",
    [
        model([node("GroupNormalization", "x s s", num_groups=2)], MAP, opset=21, s=floats(4)),
        spelled("group norm as PyTorch exports it"),
        model(
            [
                node("Conv", "x w", "a"), node("GroupNormalization", "a s s", "g", num_groups=2),
                node("Relu", "g", "r"), node("Conv", "r v"),
            ],
            MAP, opset=21, s=floats(6), w=W, v=floats(5, 6, 3, 3),
        ),
    ],
    ids=["alone", "as PyTorch exports it", "between convolutions"],
)  # fmt: skip
def test_groups_are_normalised(data: bytes, tmp_path: Path) -> None:
    assert decibels(tmp_path, data) > 30


def test_kmodel_3_says_what_it_lacks(tmp_path: Path) -> None:
    one = node("GroupNormalization", "x s s", num_groups=2)
    (tmp_path / "net.onnx").write_bytes(model([one], MAP, opset=21, s=floats(4)))
    net, _ = read_model(tmp_path / "net.onnx", "net.onnx")
    found = compiler.check(net, 3)
    assert "GroupNormalization y" in str(found)
    assert "needs kmodel 4" in str(found)
