"""Vendor samples: planar pixels or tensors, in order, under their names, always the same bytes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from k210tasks.engine.job import Folder, StepFailed
from k210tasks.reference import float_model
from k210tasks.samples.loading import SampleError
from k210tasks.steps import calibrate
from tests.steps.jobs import folder, job
from tests.steps.tiny import dense, relu

PLAIN = {"color": None, "mean": 0.0, "std": 1.0, "resize": "stretch"}


def run(tmp_path: Path, tflite: bytes, images: Folder, **settings: Any) -> Path:
    (tmp_path / "m.tflite").write_bytes(tflite)
    log = io.StringIO()
    out = tmp_path / "calibration.npz"
    calibrate.run(
        job(
            "calibrate",
            "m",
            log,
            {"tflite": tmp_path / "m.tflite", "images": images},
            {"calibration": out, "seen": tmp_path / "calibration.json"},
            {"family": "vendor", "preprocess": PLAIN} | settings,
        )
    )
    assert all(f"  {name}\n" in log.getvalue() for name in images.files)
    return out


def pictures(path: Path, names: list[str], shape: tuple[int, ...] = (4, 5, 3)) -> Folder:
    for i, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        values = np.arange(np.prod(shape)).reshape(shape) + 40 * i
        Image.fromarray(values.astype(np.uint8)).save(path / name)
    return folder(path)


def test_pixels_are_planar_and_named(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["b/1.png", "a/1.png"])
    with np.load(run(tmp_path, relu([1, 4, 5, 3]), images), allow_pickle=False) as file:
        assert file["files"].tolist() == ["a/1.png", "b/1.png"]
        assert file["samples"].shape == (2, 3, 4, 5)
        assert file["samples"].dtype == np.uint8
        assert file["samples"][1, :, 0, 0].tolist() == [0, 1, 2]


def test_grey_without_an_axis_for_it(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png"], (4, 5))
    with np.load(run(tmp_path, relu([1, 4, 5]), images)) as file:
        assert file["samples"].shape == (1, 1, 4, 5)


def test_mean_and_std_do_not_get_into_raw_pixels(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png"])
    plain = run(tmp_path, relu([1, 4, 5, 3]), images).read_bytes()
    shifted = PLAIN | {"mean": 0.5, "std": 0.5}
    assert run(tmp_path, relu([1, 4, 5, 3]), images, preprocess=shifted).read_bytes() == plain


def test_tensors(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(tmp_path / "images/a.npy", values)
    with np.load(run(tmp_path, relu([1, 2, 3, 4]), folder(tmp_path / "images"))) as file:
        assert file["samples"].dtype == np.float32
        assert np.array_equal(file["samples"][0], values.transpose(2, 0, 1))
    (tmp_path / "images/a.npy").unlink()
    (tmp_path / "images/a.bin").write_bytes(np.arange(6, dtype="<f4").tobytes())
    tflite = dense(np.ones((2, 6)), [1, 6])
    with np.load(run(tmp_path, tflite, folder(tmp_path / "images"))) as file:
        assert file["samples"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_the_bytes_of_version_1(tmp_path: Path) -> None:
    """Another hash means another result for the same input: raise VERSIONS, then this."""
    (tmp_path / "images").mkdir()
    for i in range(3):
        np.save(tmp_path / f"images/{i}.npy", np.full((2, 2, 1), i, np.float32))
    out = run(tmp_path, relu([1, 2, 2, 1]), folder(tmp_path / "images"))
    assert hashlib.sha256(out.read_bytes()).hexdigest() == GOLDEN


GOLDEN = "8246abd7de66638b0ba514a12847f6669fb5125fed8322e5b522fe18363212a0"


def test_other_files_are_counted_and_said(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a.png"])
    (tmp_path / "images/notes.txt").write_text("?")
    (tmp_path / "images/Thumbs.db").write_text("?")
    said: list[str] = []
    (tmp_path / "m.tflite").write_bytes(relu([1, 4, 5, 3]))
    made = job(
        "calibrate",
        "m",
        io.StringIO(),
        {"tflite": tmp_path / "m.tflite", "images": folder(tmp_path / "images")},
        {"calibration": tmp_path / "c.npz", "seen": tmp_path / "c.json"},
        {"family": "vendor", "preprocess": PLAIN},
    )
    calibrate.run(replace(made, say=said.append))
    assert said == [f"   calibrate:m: 2 other files in {images.path.as_posix()} ignored"]


def test_a_bad_sample_is_named_by_its_folder(tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", ["a/1.png", "a/2.png"])
    (tmp_path / "images/a/2.png").write_bytes(b"?")
    with pytest.raises(SampleError) as caught:
        run(tmp_path, relu([1, 4, 5, 3]), images)
    shown = (tmp_path / "images").as_posix()
    assert str(caught.value).startswith(f"{shown}/a/2.png cannot be read as a picture: ")


def test_no_sample(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"images holds no sample to calibrate with$"):
        run(tmp_path, relu([1, 4, 5, 3]), Folder(tmp_path / "images", ()))


def test_builtin_measures_the_float_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path / "images", ["a.png", "b.png"])
    seen: list[np.ndarray] = []

    def measured(path: Path, tflite: bytes, samples: Any, **options: Any) -> None:
        seen.extend(samples)
        path.write_bytes(b"ranges")

    monkeypatch.setattr(float_model, "measure_to", measured)
    half = PLAIN | {"mean": 0.5, "std": 0.5}
    out = run(tmp_path, relu([1, 4, 5, 3]), images, family="builtin", preprocess=half)
    assert out.read_bytes() == b"ranges"
    assert [x.shape for x in seen] == [(1, 4, 5, 3)] * 2
    assert seen[0][0, 0, 0, 0] == -1
