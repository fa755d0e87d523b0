"""The built-in compiler through the step bodies: calibrate, kmodel, verify, judge."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite as schema
from PIL import Image

from k210tasks.compiler.options import CompiledLayer
from k210tasks.firmware.contract import Contract
from k210tasks.steps import calibrate, judge, kmodel, layer_snr, verify
from tests.compiler.test_pipeline import int8_net
from tests.steps.jobs import folder, job
from tests.steps.tiny import Tiny

CONTRACT = {"color": None, "mean": 0.5, "std": 0.5, "resize": "exact"}


def conv(random: np.random.Generator) -> bytes:
    """A 1x1 convolution to a feature map: the output is channels last in TFLite."""
    tiny = Tiny()
    x = tiny.tensor("input", [1, 8, 8, 3])
    weights = random.normal(size=(4, 1, 1, 3)).astype(np.float32)
    w, b = tiny.tensor("w", weights.shape, weights), tiny.tensor("b", [4], np.zeros(4, np.float32))
    y = tiny.tensor("map", [1, 8, 8, 4])
    tiny.op(schema.BuiltinOperator.CONV_2D, [x, w, b], [y])
    return tiny.bytes([x], [y])


@pytest.mark.parametrize("version", [3, 4])
def test_the_chain(tmp_path: Path, version: int) -> None:
    random = np.random.default_rng(7)
    (tmp_path / "m.tflite").write_bytes(conv(random))
    (tmp_path / "images").mkdir()
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(
            tmp_path / f"images/{i:02}.png"
        )
    place: dict[str, Any] = {
        name.split(".")[0]: tmp_path / name
        for name in (
            "m.tflite", "calibration.npz", "seen.json", "kmodel.kmodel", "layers.json",
            "listing.txt", "contract.json", "measurement.json", "verify.json",
        )
    }  # fmt: skip
    place["tflite"], place["images"] = place.pop("m"), folder(tmp_path / "images")

    def step(body: Any, inputs: str, outputs: str, **settings: Any) -> Any:
        return body.run(
            job(
                body.__name__,
                "m",
                io.StringIO(),
                {role: place[role] for role in inputs.split()},
                {role: place[role] for role in outputs.split()},
                settings,
            )
        )

    step(calibrate, "tflite images", "calibration seen", family="builtin", preprocess=CONTRACT)
    step(
        kmodel, "tflite calibration seen", "kmodel layers listing contract",
        compiler="builtin", kmodel=version, method="minmax", preprocess=CONTRACT, input=None,
        firmware="maixpy", labels=None, effort="fast", weights=8, opcodes="beta1",
        small_maps="padded", runtime=None,
    )  # fmt: skip
    contract = Contract.from_json(place["contract"].read_bytes())
    assert (contract.input.dtype, contract.input.shape) == ("uint8", (3, 8, 8))
    assert contract.input.zero_point == 127.5
    assert contract.outputs[0].shape == (4, 8, 8)
    assert contract.main_memory is not None
    listing = place["listing"].read_text().splitlines()
    assert listing[-2].startswith("KPU memory usage: ")
    assert listing[-1] == f"Main memory usage: {contract.main_memory} B"

    step(
        verify, "kmodel tflite contract layers images", "measurement",
        kmodel=version, preprocess=CONTRACT, labels=None,
    )  # fmt: skip
    found = json.loads(place["measurement"].read_text())
    assert (found["engine"], found["runtime"]["name"]) == ("simulator", "host")
    assert (found["held_out"], found["shared"], found["copies"]) == (False, found["samples"], 0)
    assert found["outputs"][0]["cosine_min"] > 0.999
    assert [row["cosine_mean"] > 0.999 for row in found["layers"]] == [True]

    verdict = step(
        judge, "measurement contract layers", "verify", verify="on", min_cosine=0.99, min_top1=None,
        firmware="maixpy", kmodel=version, sram_free=None,
    )  # fmt: skip
    assert verdict.ok
    assert verdict.message.splitlines()[0].startswith("cosine 0.99")
    assert json.loads(place["verify"].read_text())["verified"] is True


ROW = CompiledLayer(0, "conv", (), "y", "KPU", (), (), zero_point=10)


def test_codes_mean_one_number_a_step_or_one_a_channel() -> None:
    codes = np.full((2, 1, 3), 12, np.uint8)
    one = layer_snr._real(codes, replace(ROW, scale=0.5))
    assert np.all(one == 1)
    each = layer_snr._real(codes, replace(ROW, scale=(0.5, 2.0)))
    assert each[:, 0, 0].tolist() == [1, 4]


@pytest.mark.parametrize("stated", [False, True])
def test_an_integer_model_without_samples(tmp_path: Path, stated: bool) -> None:
    net = int8_net()
    (tmp_path / "m.tflite").write_bytes(net.build(*net.outputs))
    preprocess = {**CONTRACT, **({} if stated else {"mean": None, "std": None})}
    names = ("kmodel", "layers", "listing", "contract")
    settings = {
        "compiler": "builtin", "kmodel": 3, "method": "minmax", "preprocess": preprocess,
        "input": None, "firmware": "maixpy", "labels": None, "effort": "fast", "weights": 8,
        "opcodes": "beta1", "small_maps": "padded", "runtime": None,
    }  # fmt: skip
    inputs, outputs = {"tflite": tmp_path / "m.tflite"}, {n: tmp_path / n for n in names}
    kmodel.run(job("kmodel", "m", io.StringIO(), inputs, outputs, settings))
    given = Contract.from_json((tmp_path / "contract").read_bytes()).input
    listing = (tmp_path / "listing").read_text()
    if stated:
        assert (given.kind, given.mean, given.color) == ("images", 0.5, "rgb")
        assert "warning" not in listing
        return
    assert given.kind == "tensors"
    assert given.scale == pytest.approx(1 / 255, rel=0.01)
    assert given.formula is not None
    assert listing.splitlines()[-1] == (
        "warning: compiled without samples, the model is fed with codes of its file's own scale; "
        "if these are to be raw pixels, state preprocess.mean and preprocess.std"
    )
