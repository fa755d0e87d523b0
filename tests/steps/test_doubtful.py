"""What is doubtful about a kmodel before it is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from k210tasks import compiler
from k210tasks.artifacts.doubts import (
    FewCalibrated,
    FlatCalibration,
    LabelsMisfit,
    NoKpu,
    StrangeMean,
    StrangeStd,
    Told,
    Unstated,
)
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.reference.litert import measurable
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.seen import Seen
from k210tasks.steps.doubtful import doubts_of, of_layers
from tests.report.project import feature_map

V5 = b"LDMK\x05\x00\x00\x00" + bytes(24)
RANDOM = np.random.default_rng(8)


def contract(labels: tuple[str, ...] = ()) -> Contract:
    return Contract("m", 5, "", Input((3, 4, 4)), (Output("scores", (3,)),), labels)


def seen(path: Path, pictures: list[np.ndarray]) -> Seen:
    found, loader = Seen(), Loader((1, 4, 4, 3), Preprocess())
    for i, picture in enumerate(pictures):
        Image.fromarray(picture.astype(np.uint8)).save(path / f"{i}.png")
        found.add(loader.load(path / f"{i}.png"))
    return found


def noise(level: float, at: float = 100) -> np.ndarray:
    return at + level * RANDOM.normal(size=(4, 4, 3))


STATED = Preprocess(mean=0.5, std=0.5)


def test_nothing_to_doubt(tmp_path: Path) -> None:
    good = seen(tmp_path, [noise(30) for _ in range(10)])
    assert doubts_of(contract(("a", "b", "c")), STATED, V5, good) == []


def test_few_samples_and_copies(tmp_path: Path) -> None:
    one = noise(30)
    assert doubts_of(contract(), STATED, V5, seen(tmp_path, [one])) == [
        FewCalibrated("image", 1, 1)
    ]
    found = doubts_of(contract(), STATED, V5, seen(tmp_path, [one] * 11 + [noise(30)]))
    assert found == [FewCalibrated("image", 12, 2)]


@pytest.mark.parametrize("at", [15, 40, 250])
def test_pictures_of_one_colour(tmp_path: Path, at: float) -> None:
    """Of different ones, too, and with a sensor's noise."""
    flat = [np.clip(noise(0.7, at - i), 0, 255) for i in range(12)]
    [found] = doubts_of(contract(), STATED, V5, seen(tmp_path, flat))
    assert found == FlatCalibration("image", 12, 12)
    some = seen(tmp_path, [*flat[:5], *(noise(30) for _ in range(7))])
    assert doubts_of(contract(), STATED, V5, some) == []


def test_tensors_have_no_mean_and_std(tmp_path: Path) -> None:
    found, loader = Seen(), Loader((1, 4), Preprocess())
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", np.full(4, i, np.float32))
        found.add(loader.load(tmp_path / f"{i}.npy"))
    strange = Preprocess(mean=127.5, std=127.5)
    fed = replace(contract(), input=Input((4,), "flat", "float32", kind="tensors"))
    assert doubts_of(fed, strange, V5, found) == [FlatCalibration("sample", 12, 12)]


def test_settings_labels_and_what_was_told() -> None:
    found = doubts_of(contract(("a", "b")), Preprocess(mean=127.5, std=127.5), V5, None, ["hm"])
    assert found == [
        Told("hm"),
        StrangeMean(127.5),
        StrangeStd(127.5),
        LabelsMisfit(("a", "b"), "scores", 3),
    ]
    assert doubts_of(contract(), Preprocess(), V5, None) == [Unstated()]


@pytest.mark.parametrize("version", [3, 4])
def test_whether_the_kpu_has_a_part(version: int) -> None:
    def made(tflite: bytes, shape: tuple[int, ...]) -> bytes:
        samples = [RANDOM.random(shape).astype(np.float32) for _ in range(3)]
        options = compiler.Options(kmodel=version, effort="fast")
        return compiler.compile(
            tflite, compiler.calibrate(tflite, samples, measurable), options
        ).kmodel

    assert of_layers(made(feature_map(), (1, 8, 8, 3))) == []
    assert of_layers(V5) == []  # a kmodel 5 does not tell


@pytest.mark.parametrize(("version", "layers"), [(3, 2), (4, 4)])
def test_a_model_of_the_cpu_alone(fixtures: Path, version: int, layers: int) -> None:
    iris = fixtures / f"kmodel/v{version}/iris.kmodel"
    assert of_layers(iris.read_bytes()) == [NoKpu(layers)]
