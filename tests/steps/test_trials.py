"""The hint through LiteRT: real files, pictures on disk, what is measured and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from k210tasks.artifacts.doubts import Hint
from k210tasks.firmware.contract import Contract, Input
from k210tasks.reference.float_model import Reference
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps import trials as module
from k210tasks.steps.measure import measure
from k210tasks.steps.trials import FIRST, KEPT, recolored
from tests.steps.jobs import folder
from tests.steps.test_measure import Fake
from tests.steps.tiny import dense

HUES = {"ball": (200, 40, 30), "box": (40, 180, 60), "tent": (60, 70, 210)}


def things(path: Path, count: int = 20) -> Any:
    """Red balls, green boxes and blue tents, of one colour each, with noise."""
    random = np.random.default_rng(3)
    for name, hue in HUES.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture = np.array(hue) + random.integers(-30, 31, (2, 2, 3))
            Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(
                path / f"{name}/{i}.png"
            )
    return folder(path)


def model(mean: float, std: float, lean: tuple[float, float, float] = (0.1, 0.0, -0.1)) -> bytes:
    """Scores how red, green and blue a picture of planes R, G, B is, fed with that pair.

    ``lean`` makes the classes unequal, so that colours changed are not just classes renamed.
    """
    per_plane = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]]) / 4.0
    weights = np.tile(per_plane, (1, 4))  # channels last
    return dense(std * weights, [1, 2, 2, 3], mean * weights.sum(1) + np.array(lean))


def hint(path: Path, preprocess: Preprocess, tflite: bytes, labels: Any = None) -> list[Any]:
    loader = Loader((1, 2, 2, 3), preprocess)
    contract = Contract("m", 4, "maixpy", Input((3, 2, 2)), ())
    engine = Fake(lambda x: [np.array([1.0, 0.0, 0.0])])
    return list(
        measure(Reference(tflite), engine, contract, loader, things(path), labels=labels).doubts
    )


RIGHT = {"mean": 0.5, "std": 0.5}


def test_nothing_is_said_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert hint(tmp_path / "a", Preprocess(**RIGHT), model(0.5, 0.5)) == []


def test_planes_in_another_order(tmp_path: Path) -> None:
    found = hint(tmp_path / "a", Preprocess("bgr", **RIGHT), model(0.5, 0.5))
    assert found == [Hint(pytest.approx(1 / 3, abs=0.02), 1.0, color="rgb")]


@pytest.mark.parametrize(
    "labels", [["box", "tent", "ball"], ["tent", "ball", "box"], ["box", "ball", "tent"]]
)
def test_labels_in_another_order(tmp_path: Path, labels: list[str]) -> None:
    [found] = hint(tmp_path / "a", Preprocess(**RIGHT), model(0.5, 0.5), labels)
    assert found.labels == ("ball", "box", "tent")
    assert (found.mean, found.color, found.accuracy) == (None, None, 1.0)


def test_labels_that_no_hint_can_name_stay_silent(tmp_path: Path) -> None:
    constant = dense(np.zeros((3, 12)), [1, 2, 2, 3], np.array([1.0, 0.0, 0.0]))
    assert hint(tmp_path / "a", Preprocess(**RIGHT), constant) == []


def test_tensors_are_tried_for_the_order_of_labels_only(tmp_path: Path) -> None:
    pictures = things(tmp_path / "pictures")
    loader = Loader((1, 2, 2, 3), Preprocess(**RIGHT))
    for name in pictures.files:
        target = tmp_path / "tensors" / Path(name).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, loader.tensor(pictures.path / name))
    contract = Contract("m", 4, "maixpy", Input((3, 2, 2)), ())
    result = measure(
        Reference(model(0.5, 0.5)),
        Fake(lambda x: [np.zeros(3)]),
        contract,
        Loader((1, 2, 2, 3), Preprocess("bgr")),
        folder(tmp_path / "tensors"),
        labels=["tent", "ball", "box"],
    )
    assert result.kind == "tensors"
    assert result.doubts == (Hint(0.0, 1.0, labels=("ball", "box", "tent")),)


def test_runs_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings on the first samples, a few on the rest, none where nothing is wrong."""
    runs = 0
    refed = module.refed

    def counted(*given: Any) -> Any:
        nonlocal runs
        runs += 1
        return refed(*given)

    monkeypatch.setattr(module, "refed", counted)
    hint(tmp_path / "a", Preprocess(**RIGHT), model(0.5, 0.5))
    assert runs == 0
    hint(tmp_path / "b", Preprocess("bgr", **RIGHT), model(0.5, 0.5))
    assert 18 * FIRST < runs <= 18 * FIRST + (60 - FIRST) * (1 + 2 * KEPT)


def test_grey_is_as_picture_libraries_have_it() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 5, 7), np.uint8)
    grey = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))
    found = recolored(pixels, "rgb", "gray")
    assert found.shape == (3, 5, 7)
    assert np.abs(found.astype(int) - grey).max() <= 1
    assert np.array_equal(recolored(pixels[::-1], "bgr", "gray"), found)
    assert np.array_equal(recolored(pixels, "rgb", "bgr"), pixels[::-1])
