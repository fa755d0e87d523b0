"""Models that are not fed with pictures, from a .tflite to a comparison, by the verbs alone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks.cli import main
from k210tasks.firmware.contract import Contract
from k210tasks.kmodel import parse
from k210tasks.profiles import PROFILES
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.samples.loading import planar
from k210tasks.simulator import Simulator
from tests.cli.sensors import (
    WINDOW,
    digits_network,
    grey_pictures,
    perceptron,
    sensor_network,
    windows,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """har.tflite and mlp.tflite, each with one .npy of all samples."""
    (tmp_path / "har.tflite").write_bytes(sensor_network())
    (tmp_path / "mlp.tflite").write_bytes(perceptron())
    np.save(tmp_path / "har.npy", windows())
    np.save(tmp_path / "mlp.npy", windows(shape=(6,)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(model: str, kmodel: int, *more: str, images: str = "") -> int:
    given = ["--images", images or f"{model}.npy", "--kmodel", str(kmodel), "--effort", "fast"]
    return main(["convert", f"{model}.tflite", *given, *more])


def compare(capsys: Capture, model: str, *more: str, images: str = "") -> dict[str, Any]:
    capsys.readouterr()
    images = images or f"{model}.npy"
    status = main(
        ["compare", f"{model}.tflite", f"{model}.kmodel", "--images", images, "--json", *more]
    )
    captured = capsys.readouterr()
    assert status == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return {**found, "err": captured.err}


def refused(capsys: Capture, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("model", ["har", "mlp"])
def test_convert_then_compare_without_a_word_about_the_input(
    place: Path, capsys: Capture, model: str, kmodel: int
) -> None:
    assert convert(model, kmodel) == 0
    said = capsys.readouterr()
    assert "mean" not in said.out  # nobody asks for mean and std of a tensor
    assert f"wrote {model}.kmodel.contract.json" in said.out
    assert (place / f"{model}.kmodel.contract.json").is_file()
    found = compare(capsys, model)
    assert found["err"] == ""
    assert any(w.startswith("not held out") for w in found["warnings"])
    assert not any("mean" in w for w in found["warnings"])  # nor here
    assert found["samples"] == 60
    assert found["images"][7]["file"] == f"{model}.npy[0007]"
    assert found["outputs"][0]["snr_db"] > 30
    assert compare(capsys, model, "--samples", "4")["samples"] == 4


def test_the_kmodel_is_fed_what_the_formula_says(place: Path, capsys: Capture) -> None:
    """Against LiteRT and the simulator alone: the formula as printed, done here by hand."""
    assert convert("har", 3) == 0
    line = re.search(r"Input: .*code = round\(x / (\S+)\) \+ (\d+), cl", capsys.readouterr().out)
    assert line is not None
    scale, zero = float(line[1]), int(line[2])
    simulator = Simulator(parse((place / "har.kmodel").read_bytes()))
    model, errors, signal = FloatModel(sensor_network()), 0.0, 0.0
    for x in windows(20):
        codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
        got = simulator.run(planar(codes[None]))[0]
        wanted = model.run(x[None])[0].ravel()
        errors, signal = errors + np.square(got - wanted).sum(), signal + np.square(wanted).sum()
    assert 10 * np.log10(signal / errors) > 30


@pytest.mark.parametrize("kmodel", [3, 4])
def test_inspect_and_run_read_the_contract(place: Path, capsys: Capture, kmodel: int) -> None:
    assert convert("har", kmodel) == 0
    contract = Contract.from_json((place / "har.kmodel.contract.json").read_bytes())
    capsys.readouterr()
    assert main(["inspect", "har.kmodel"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"contract: har.kmodel.contract.json: {contract.input.sentence}" in out
    assert main(["inspect", "har.kmodel", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["contract"] == "har.kmodel.contract.json"
    (port,) = told["inputs"]
    if kmodel == 3:
        assert (port["scale"], port["zero_point"]) == (
            contract.input.scale,
            contract.input.zero_point,
        )
        assert f"steps of {contract.input.scale:.6g}, zero at code" in out
    else:  # of floats, what the file itself rounds them to
        assert port["scale"] == pytest.approx(windows().max() * 2 / 255, rel=0.3)
        assert f"rounded to steps of {port['scale']:.6g}, zero at code" in out
    # One sample of many, as the float model takes it; and the same, ready made.
    assert main(["run", "har.kmodel", "--input", "har.npy[3]", "--output", "a.npz"]) == 0
    chosen = windows()[3]
    ready = planar(chosen[None])
    if kmodel == 3:
        ready = contract.input.codes(ready).reshape(contract.input.shape)
    np.save("ready.npy", ready)
    capsys.readouterr()
    assert main(["run", "har.kmodel", "--input", "ready.npy", "--output", "b.npz", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runtime"] == PROFILES[contract.profile].runtime
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert np.array_equal(a["output_0"], b["output_0"])
        wanted = FloatModel(sensor_network()).run(chosen[None])[0].ravel()
        assert np.abs(a["output_0"] - wanted).max() < 0.1 * np.abs(wanted).max()


def test_without_a_contract_what_is_missing_is_said(place: Path, capsys: Capture) -> None:
    assert convert("har", 3) == 0
    zero = Contract.from_json((place / "har.kmodel.contract.json").read_bytes()).input.zero_point
    (place / "har.kmodel.contract.json").rename("kept.json")
    arguments = ["compare", "har.tflite", "har.kmodel", "--images", "har.npy"]
    assert refused(capsys, *arguments) == (
        "k210 compare: har.kmodel takes uint8 codes, and what a step of them is worth does not "
        f"stand in the file; it tells only that {zero:g} means 0: give the contract that was "
        "written with it, --contract JSON or har.kmodel.contract.json; or --mean and --std, if it "
        "is fed with raw pixels\n"
    )
    assert refused(capsys, "run", "har.kmodel", "--input", "har.npy[0]") == (
        "k210 run: har.npy[0] holds float32 numbers, and har.kmodel takes uint8: what its codes "
        "are worth tells its contract, which is not there: har.kmodel.contract.json; give that, "
        "or an .npy of uint8\n"
    )
    assert compare(capsys, "har", "--contract", "kept.json")["outputs"][0]["snr_db"] > 30


def test_a_float_input_needs_no_contract(place: Path, capsys: Capture) -> None:
    assert convert("har", 4) == 0
    (place / "har.kmodel.contract.json").unlink()
    assert compare(capsys, "har")["outputs"][0]["snr_db"] > 30


def test_codes_in_main_memory_tell_their_scale_themselves(place: Path, capsys: Capture) -> None:
    """A kmodel 4 of codes that it turns into floats first, without a contract."""
    from k210tasks import compiler

    calibration = compiler.calibrate(
        perceptron(), (x[None] for x in windows(shape=(6,))), measurable, fed="tensors"
    )
    made = compiler.compile(perceptron(), calibration, compiler.Options(kmodel=4, input="uint8"))
    assert made.input.dtype == "uint8"
    (place / "mlp.kmodel").write_bytes(made.kmodel)
    assert main(["inspect", "mlp.kmodel", "--json"]) == 0
    (port,) = json.loads(capsys.readouterr().out)["inputs"]
    assert port["scale"] == pytest.approx(made.input.scale)
    assert port["zero_point"] == made.input.zero_point
    assert compare(capsys, "mlp")["outputs"][0]["snr_db"] > 30


def test_a_contract_of_another_file_is_said_and_not_used(place: Path, capsys: Capture) -> None:
    assert convert("har", 4) == 0
    shutil.copy("har.kmodel.contract.json", "of4.json")
    assert convert("har", 3) == 0
    shutil.copy("of4.json", "har.kmodel.contract.json")
    said = (
        "har.kmodel.contract.json is not used: it was written for another file than har.kmodel "
        "(their sha256 differ)\n"
    )
    error = refused(capsys, "compare", "har.tflite", "har.kmodel", "--images", "har.npy")
    assert error.startswith(f"k210 compare: {said}")
    assert main(["inspect", "har.kmodel", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"k210 inspect: {said}"
    assert json.loads(captured.out)["contract"] is None
    (place / "har.kmodel.contract.json").write_text("{}")
    assert main(["inspect", "har.kmodel"]) == 0
    assert capsys.readouterr().err == (
        "k210 inspect: har.kmodel.contract.json is not used: version is None; it must be given\n"
    )


def test_convert_overwrites_no_file_that_is_not_its_own(place: Path, capsys: Capture) -> None:
    mine = place / "har.kmodel.contract.json"
    for text in ("my own notes", '{"version": 2}', "[]"):
        mine.write_text(text)
        assert (
            refused(capsys, "convert", "har.tflite", "--images", "har.npy")
            == "k210 convert: har.kmodel.contract.json is no contract that k210tasks wrote, and it "
            "would be overwritten; move it away, or give another -o\n"
        )
        assert mine.read_text() == text
        assert not (place / "har.kmodel").exists()
    mine.unlink()
    assert convert("har", 4) == 0
    mine.write_text(mine.read_text().replace('"version": 2', '"version": 1'))
    assert convert("har", 3) == 0  # one of an older version is ours
    assert Contract.from_json(mine.read_bytes()).kmodel == 3


def test_the_contract_of_a_build_is_found_from_any_folder(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert convert("har", 3) == 0
    for folder in ("workspace", "build/har"):
        (place / folder).mkdir(parents=True)
    (place / "har.kmodel").rename("workspace/har.kmodel")
    (place / "har.kmodel.contract.json").rename("build/har/contract.json")
    shown = {}
    for folder, file in (
        (".", "workspace/har.kmodel"),
        ("workspace", "har.kmodel"),
        ("build", str(place / "workspace/har.kmodel")),
    ):
        monkeypatch.chdir(place / folder)
        capsys.readouterr()
        assert main(["inspect", file, "--json"]) == 0
        shown[folder] = json.loads(capsys.readouterr().out)["contract"]
    assert shown == {
        ".": "build/har/contract.json",
        "workspace": "../build/har/contract.json",
        "build": str(place / "build/har/contract.json"),
    }


def test_bad_samples_are_named_with_their_index(place: Path, capsys: Capture) -> None:
    values = windows()
    values[41, 0, 0] = np.inf
    np.save("har.npy", values)
    assert refused(capsys, "convert", "har.tflite", "--images", "har.npy") == (
        "k210 convert: ./har.npy[0041] holds 1 values that are infinite or not a number\n"
    )
    np.save("har.npy", values[:, :5])
    assert "./har.npy holds a tensor of shape 60x5x8x1; the model's input is 1x24x8x1" in refused(
        capsys, "convert", "har.tflite", "--images", "har.npy"
    )


def test_a_folder_of_classes_with_one_file_each(place: Path, capsys: Capture) -> None:
    model = FloatModel(perceptron())
    by_class: list[list[NDArray[np.float32]]] = [[], [], []]
    for x in windows(60, (6,)):
        by_class[int(model.run(x[None])[0].argmax())].append(x)
    for name, samples in zip(("still", "walk", "run"), by_class, strict=True):
        assert samples
        (place / "test" / name).mkdir(parents=True)
        np.save(place / "test" / name / "all.npy", np.stack(samples))
    assert convert("mlp", 3, images="test") == 0
    found = compare(capsys, "mlp", "--labels", "still,walk,run", images="test")
    assert found["samples"] == 60
    assert found["accuracy"]["kmodel"] == 1.0


def test_floats_that_look_like_pixels_are_not_taken_for_any(place: Path, capsys: Capture) -> None:
    """Multiples of 1/255 in 0..1: only the files' kind says that they are no pictures."""
    random = np.random.default_rng(1)
    np.save("har.npy", (random.integers(0, 256, (40, *WINDOW)) / 255).astype(np.float32))
    assert convert("har", 3) == 0
    said = capsys.readouterr().out
    assert "raw pixels" not in said
    assert "mean" not in said
    contract = Contract.from_json((place / "har.kmodel.contract.json").read_bytes())
    assert contract.input.kind == "tensors"
    assert contract.input.formula is not None
    assert convert("har", 4) == 0
    contract = Contract.from_json((place / "har.kmodel.contract.json").read_bytes())
    assert (contract.input.kind, contract.input.dtype) == ("tensors", "float32")


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 784)])
def test_grey_pictures_for_a_network_that_has_no_channels(
    place: Path, capsys: Capture, shape: tuple[int, ...], kmodel: int
) -> None:
    grey_pictures(place / "pictures")
    (place / "digits.tflite").write_bytes(digits_network(shape))
    assert convert("digits", kmodel, "--mean", "0.5", "--std", "0.5", images="pictures") == 0
    given = Contract.from_json((place / "digits.kmodel.contract.json").read_bytes()).input
    assert given.kind == "images"
    assert given.tensor_shape == shape[1:]
    if given.dtype == "uint8":
        assert (given.shape, given.layout, given.color) == ((1, 28, 28), "planar", "gray")
    found = compare(capsys, "digits", images="pictures")
    assert found["outputs"][0]["snr_db"] > 25
    assert main(["run", "digits.kmodel", "--input", "pictures/03.png", "--output", "a.npz"]) == 0
    from PIL import Image

    with Image.open("pictures/03.png") as picture:
        tensor = ((np.asarray(picture) / 255 - 0.5) / 0.5).astype(np.float32).reshape(shape)
    wanted = FloatModel(digits_network(shape)).run(tensor)[0].ravel()
    with np.load("a.npz") as a:
        assert np.abs(a["output_0"] - wanted).max() < 0.1 * np.abs(wanted).max()
    # The same as tensors: N samples of 28x28, not 28 of 28.
    tensors = np.concatenate([tensor] * 12)
    np.save("tensors.npy", tensors)
    assert compare(capsys, "digits", images="tensors.npy")["samples"] == 12


def test_pictures_for_a_model_that_was_calibrated_with_tensors(
    place: Path, capsys: Capture
) -> None:
    """They are made the float model's input, and that is encoded."""
    (place / "digits.tflite").write_bytes(digits_network())
    grey_pictures(place / "pictures")
    random = np.random.default_rng(1)
    np.save("tensors.npy", random.random((40, 28, 28), np.float32))
    assert convert("digits", 3, images="tensors.npy") == 0
    found = compare(capsys, "digits", "--mean", "0", "--std", "1", images="pictures")
    assert found["outputs"][0]["snr_db"] > 25
    unstated = compare(capsys, "digits", images="pictures")  # pictures ask for mean and std
    assert unstated["warnings"][0].startswith("mean and std are not stated")


def test_diff_reads_the_contract_beside_a_file(place: Path, capsys: Capture) -> None:
    assert convert("har", 3) == 0
    beside = place / "har.kmodel.contract.json"
    assert convert("har", 4, "-o", "four.kmodel") == 0
    contract = Contract.from_json(beside.read_bytes())
    beside.write_text(replace(contract, sha256="0" * 64).to_json())
    capsys.readouterr()
    assert main(["diff", "har.kmodel", "four.kmodel"]) == 0
    assert capsys.readouterr().err.startswith(
        "k210 diff: har.kmodel.contract.json is not used: it was written for another file"
    )
