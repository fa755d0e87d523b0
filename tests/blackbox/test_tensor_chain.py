"""The chain on a model of sensor tensors, whose samples are one .npy, through the command line.

The source is a .tflite and the compiler the built-in one: no toolchain is needed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from k210tasks.firmware.contract import Contract
from tests.blackbox.projects import Project
from tests.cli.sensors import digits_network, grey_pictures, sensor_network, windows

MANIFEST = """\
defaults: {firmware: maixpy, effort: fast}
models:
  har:
    source: har.tflite
    images: train.npy
    calibrate: {samples: 20}
    kmodel: 3
    verify: {images: test.npy}
  floats: {source: har.tflite, images: folder, kmodel: 4}
  digits: {source: digits.tflite, images: pictures}
firmware:
  demo: {parts: [{model: har}, {model: floats}]}
"""
VERB = "from k210tasks.cli import main; exit(main())"


class Sensors(Project):
    def __init__(self, root: Path) -> None:
        super().__init__(root, MANIFEST)
        (root / "har.tflite").write_bytes(sensor_network())
        (root / "digits.tflite").write_bytes(digits_network())
        (root / "folder").mkdir()
        np.save(root / "train.npy", windows(60))
        np.save(root / "test.npy", windows(80)[60:])
        np.save(root / "folder/all.npy", windows(30))
        grey_pictures(root / "pictures")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """Everything built once; what was said of it."""
    project = Sensors(tmp_path_factory.mktemp("tensors"))
    _, said = project.doit()
    project.doit("vectors:har", "vectors:floats")
    return project, said


def test_verified_without_a_word_about_mean_and_std(built: tuple[Project, str]) -> None:
    project, said = built
    assert "verify:har: cosine 0.99" in said
    for model, warned in (("har", False), ("floats", False), ("digits", True)):
        found = json.loads(project.read(f"build/{model}/verify.json"))
        assert found["verified"] is True
        assert any("mean and std" in w for w in found["warnings"]) is warned
        assert ("mean and std" in project.read(f"build/{model}/listing.txt")) is warned
    measured = json.loads(project.read("build/har/measurement.json"))
    assert [row["file"] for row in measured["images"]] == [f"test.npy[{i:04}]" for i in range(20)]
    assert measured["outputs"][0]["snr_db"] > 30


def test_the_sample_is_taken_evenly_within_the_file(built: tuple[Project, str]) -> None:
    project, _ = built
    log = project.read("build/har/calibrate.log")
    assert "20 samples of" in log
    assert "  train.npy[0001]\n  train.npy[0004]\n  train.npy[0007]\n" in log
    assert "30 samples of folder\n  all.npy[0000]\n" in project.read("build/floats/calibrate.log")


def test_each_artefact_gives_the_formula(built: tuple[Project, str]) -> None:
    project, _ = built
    given = Contract.from_json(project.read("build/har/contract.json")).input
    assert given.scale is not None
    assert given.zero_point is not None
    formula = f"code = round(x / {given.scale:.9g}) + {given.zero_point:g}, clamped to 0..255"
    for artefact in (
        "build/har/contract.json",
        "build/har/listing.txt",
        "build/har/vectors/contract.h",
        "build/har/vectors/check.py",
        "build/demo.firmware/load.py",
        "build/report/models/har.html",
    ):
        text = project.read(artefact)
        assert formula in text, artefact
        assert "raw pixels" not in text, artefact
    report = project.read("build/report/models/har.html")
    assert "not stated" not in report
    assert "the tensor&#39;s own numbers x, not scaled" in project.read(
        "build/report/models/floats.html"
    )
    # and its numbers are the compiler's: the vectors are the samples by it
    codes = np.clip(np.rint(windows(80)[60:][3] / given.scale) + given.zero_point, 0, 255)
    raw = (project.root / "build/har/vectors/0.input.bin").read_bytes()
    assert list(raw) == codes.astype(int).ravel().tolist()
    index = json.loads(project.read("build/har/vectors/index.json"))
    assert [v["image"] for v in index["vectors"]] == [
        "test.npy[0003]", "test.npy[0010]", "test.npy[0016]",
    ]  # fmt: skip


def test_nothing_is_done_twice_and_a_changed_file_is_seen(built: tuple[Project, str]) -> None:
    project, _ = built
    assert project.doit()[0] == []
    os.utime(project.root / "train.npy")
    assert project.doit()[0] == []
    values = windows(60)
    values[59] *= 2  # outside the sample, yet one file is one value
    np.save(project.root / "train.npy", values)
    why = project.call("-c", VERB, "why", "har").stdout
    assert "train.npy (images)" in why
    assert "train.npy/" not in why
    assert "calibrate:har" in project.doit()[0]
    np.save(project.root / "train.npy", windows(60))
    assert project.doit()[0] == []  # all of it is in the store


def test_how_many_are_taken_is_a_setting(built: tuple[Project, str]) -> None:
    project, _ = built
    project.edit("samples: 20", "samples: 30")
    assert {"calibrate:har", "kmodel:har"} <= set(project.doit()[0])
    assert "30 samples of" in project.read("build/har/calibrate.log")
    project.edit("samples: 30", "samples: 20")
    assert project.doit()[0] == []


def test_a_bad_sample_is_named_with_its_index(built: tuple[Project, str]) -> None:
    project, _ = built
    values = windows(60)
    values[4, 0, 0] = np.nan
    np.save(project.root / "train.npy", values)
    _, said = project.doit("calibrate:har", status=1)
    assert "train.npy[0004] holds 1 values that are infinite or not a number" in " ".join(
        said.split()
    )
    np.save(project.root / "train.npy", windows(60))


def test_a_file_that_is_no_npy_is_no_folder(built: tuple[Project, str]) -> None:
    project, _ = built
    project.edit("images: train.npy", "images: har.tflite")
    said = project.call("-m", "doit", status=3).stderr
    assert "har.tflite is a file, not a folder" in said
    assert "of files, only an .npy may stand for all samples" in " ".join(said.split())
    project.edit("images: har.tflite", "images: train.npy")
