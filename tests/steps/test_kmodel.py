"""``kmodel`` around the vendor's compilers: what they are fed, and what counts as success."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.firmware.contract import Contract
from k210tasks.npz import NpzWriter
from k210tasks.steps import kmodel
from k210tasks.steps import vendor as vendor_step
from k210tasks.steps.made import WrongKmodel
from k210tasks.steps.signature import UnusableModel
from k210tasks.toolchains import ncc, nncase
from tests.steps.jobs import job
from tests.steps.tiny import Tiny, dense, relu

V5 = b"LDMK\x05\x00\x00\x00" + bytes(24)
TOLD = {
    "bytes": len(V5),
    "input": None,
    "outputs": [],
    "memory": {"input": 60, "output": 8, "data": 100, "model": 32, "total": 200},
    "listing": "SUMMARY\nMEMORY USAGES",
}
PLAIN = {"color": None, "mean": 0.5, "std": 0.25, "resize": "stretch"}


class Vendor:
    """Stands for a vendor's ``compile``; remembers what it was asked."""

    def __init__(self, writes: bytes | None, told: dict[str, Any]) -> None:
        self.writes, self.told = writes, told
        self.asked: dict[str, Any] = {}

    def __call__(self, toolchain: Any, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        if "samples" in asked:
            self.samples = np.load(asked["samples"])
        else:
            self.files = {p.name: p.read_bytes() for p in sorted(asked["samples_dir"].iterdir())}
        if self.writes is not None:
            asked["out"].write_bytes(self.writes)
        return self.told


Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def go(
        tflite: bytes = relu([1, 4, 5, 3]),
        samples: np.ndarray | None = None,
        drop: str = "",
        **settings: Any,
    ) -> Path:
        (tmp_path / "m.tflite").write_bytes(tflite)
        inputs = {"tflite": tmp_path / "m.tflite"}
        if samples is not None:
            inputs["calibration"] = tmp_path / "calibration.npz"
            with NpzWriter(inputs["calibration"]) as writer:
                if drop != "samples":
                    writer.array("samples", samples)
                writer.array("files", np.array([f"{i}.png" for i in range(len(samples))]))
        names = {
            "kmodel": "m.kmodel",
            "layers": "layers.json",
            "listing": "listing.txt",
            "contract": "contract.json",
        }
        kmodel.run(
            job(
                "kmodel",
                "m",
                io.StringIO(),
                inputs,
                {role: tmp_path / name for role, name in names.items()},
                {
                    "compiler": "nncase-1.9.0", "kmodel": 5, "method": "no_clip",
                    "preprocess": PLAIN, "input": None, "firmware": "canmv-kpu5", "labels": None,
                } | settings,
            )
        )  # fmt: skip
        return tmp_path

    return go


PIXELS = np.arange(2 * 60, dtype=np.uint8).reshape(2, 3, 4, 5)


def test_nncase_gets_the_samples_and_the_contract_says_raw_pixels(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = Vendor(V5, TOLD)
    monkeypatch.setattr(nncase, "compile", vendor)
    out = run(samples=PIXELS, labels=["a", "b"])
    assert np.array_equal(vendor.samples, PIXELS)
    assert {k: vendor.asked[k] for k in ("method", "mean", "std")} == {
        "method": "no_clip", "mean": 0.5, "std": 0.25,
    }  # fmt: skip
    contract = Contract.from_json((out / "contract.json").read_bytes())
    assert contract.kmodel == 5
    assert contract.labels == ("a", "b")
    assert (contract.nbytes, contract.main_memory) == (len(V5), 168)
    given = contract.input
    assert (given.shape, given.layout, given.dtype) == ((3, 4, 5), "planar", "uint8")
    assert (given.color, given.stated, given.zero_point) == ("rgb", True, 127.5)
    assert given.scale == pytest.approx(4 / 255)
    # nncase keeps TFLite's own order of a feature map
    assert [(o.name, o.shape) for o in contract.outputs] == [("map", (4, 5, 3))]
    assert (out / "listing.txt").read_text() == (
        "SUMMARY\nMEMORY USAGES\nInput: 3x4x5 planar rgb uint8, raw pixels 0..255, not scaled\n"
        "KPU memory usage: not told by kmodel 5\nMain memory usage: 168 B\n"
    )
    layers = json.loads((out / "layers.json").read_text())
    assert (layers["kmodel"], layers["main_bytes"], layers["layers"]) == (5, 168, [])


def test_unstated_mean_and_std_are_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Vendor(V5, TOLD)
    monkeypatch.setattr(nncase, "compile", vendor)
    out = run(samples=PIXELS, preprocess=PLAIN | {"mean": None, "std": None})
    assert (vendor.asked["mean"], vendor.asked["std"]) == (0.0, 1.0)
    assert not Contract.from_json((out / "contract.json").read_bytes()).input.stated
    assert (out / "listing.txt").read_text().splitlines()[-1] == (
        "warning: mean and std are not stated, 0 and 1 are used: the commonest fault is a wrong "
        "pair; state preprocess.mean and preprocess.std"
    )


def test_tensors_make_a_float_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nncase, "compile", Vendor(V5, TOLD))
    out = run(dense(np.ones((2, 6)), [1, 6]), np.zeros((3, 6), np.float32))
    given = Contract.from_json((out / "contract.json").read_bytes()).input
    assert (given.shape, given.layout, given.dtype, given.scale) == ((6,), "flat", "float32", None)


def test_grey_without_an_axis_is_given_to_nncase_as_floats(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor = Vendor(V5, TOLD)
    monkeypatch.setattr(nncase, "compile", vendor)
    out = run(dense(np.ones((2, 20)), [1, 4, 5]), np.full((2, 1, 4, 5), 255, np.uint8))
    assert vendor.samples.shape == (2, 4, 5)
    assert np.all(vendor.samples == 2)  # (1 - 0.5) / 0.25
    given = Contract.from_json((out / "contract.json").read_bytes()).input
    assert (given.dtype, given.shape) == ("float32", (4, 5))


@pytest.mark.parametrize(
    ("writes", "found"),
    [
        (None, "the file is missing"),
        (b"", "header at byte 0: 8 bytes are needed, 0 are there"),
        (b"LDMK\x04\x00\x00\x00" + bytes(8), "it is version 4"),
        (b"rubbish!", None),
    ],
)
def test_success_takes_the_right_magic_and_version(
    run: Run, monkeypatch: pytest.MonkeyPatch, writes: bytes | None, found: str | None
) -> None:
    monkeypatch.setattr(nncase, "compile", Vendor(writes, TOLD))
    with pytest.raises(WrongKmodel) as caught:
        run(samples=PIXELS)
    text = str(caught.value)
    assert text.startswith("nncase-1.9.0 reported success but wrote no kmodel 5: ")
    assert text.endswith("; full log: build/m/kmodel.log")
    if found is not None and writes != b"":
        assert f": {found}; full log" in text


def test_no_calibration(run: Run) -> None:
    with pytest.raises(vendor_step.WithoutSamples) as caught:
        run()
    assert str(caught.value) == (
        "nncase-1.9.0 needs images to calibrate m; name a folder of them under images:"
    )


def test_a_calibration_that_holds_no_samples(run: Run, tmp_path: Path) -> None:
    # What the built-in compiler's calibration would be to a vendor's.
    with pytest.raises(vendor_step.BadCalibration) as caught:
        run(samples=PIXELS, drop="samples")
    shown = (tmp_path / "calibration.npz").as_posix()
    assert str(caught.value).startswith(f"{shown} does not hold samples for a vendor's compiler: ")


def test_a_quantised_model_is_refused(run: Run, tmp_path: Path) -> None:
    import tflite

    tiny = Tiny()
    x = tiny.tensor("x", [1, 4], dtype=tflite.TensorType.INT8, quantised=(0.5, 3))
    with pytest.raises(UnusableModel) as caught:
        run(tiny.bytes([x], [x]), PIXELS)
    assert str(caught.value).endswith(
        "m.tflite: tensor x is int8; nncase-1.9.0 quantises by itself, give the float model"
    )


def test_ncc_gets_a_folder_and_the_layers_are_read_off_its_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, fixtures: Path
) -> None:
    data = (fixtures / "kmodel/v4/ulffd_landmark.kmodel").read_bytes()
    tflite = (fixtures / "tflite/ulffd_landmark.tflite").read_bytes()
    vendor = Vendor(data, {"bytes": len(data), "kmodel": 4, "warnings": ["w"], "printed": ""})
    monkeypatch.setattr(ncc, "compile", vendor)
    samples = np.zeros((2, 3, 240, 320), np.uint8)
    out = run(tflite, samples, compiler="ncc-0.2.0-beta4", kmodel=4, firmware="maixpy")
    assert len(vendor.files) == 2
    assert vendor.asked["raw"] is False
    contract = Contract.from_json((out / "contract.json").read_bytes())
    assert (contract.input.shape, contract.input.dtype) == ((3, 240, 320), "uint8")
    assert [o.shape for o in contract.outputs] == [(3160, 4), (3160, 10), (3160, 2)]
    layers = json.loads((out / "layers.json").read_text())
    assert len(layers["layers"]) == 99
    assert layers["kpu_bytes"] > 0
    lines = (out / "listing.txt").read_text().splitlines()
    assert lines[0].startswith("0: ")
    assert lines[-3:] == [
        f"KPU memory usage: {layers['kpu_bytes']} B",
        f"Main memory usage: {contract.main_memory} B",
        "warning: w",
    ]
