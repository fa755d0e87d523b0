"""Measuring: layouts, quantised inputs and outputs, classes, and the pair that was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite
from PIL import Image

from k210tasks.artifacts.doubts import ClassesMisfit, Hint, StrangeFolder
from k210tasks.artifacts.measurement import SampleFigures
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.reference.float_model import Reference
from k210tasks.samples.loading import Loader, Sample, planar
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.seen import Seen
from k210tasks.steps import measure as module
from k210tasks.steps.accuracy import find_classes
from k210tasks.steps.measure import OutputsDiffer, feed, measure
from tests.steps.jobs import folder
from tests.steps.tiny import Tiny, dense, relu

RANDOM = np.random.default_rng(5)


class Fake:
    """A kmodel played by a function of one input; counts the groups it was given."""

    name = "fake"
    runtime = None

    def __init__(self, function: Callable[[np.ndarray], list[np.ndarray]]) -> None:
        self.function = function
        self.groups: list[int] = []

    def run(self, inputs: np.ndarray) -> Iterator[list[np.ndarray]]:
        self.groups.append(len(inputs))
        for x in inputs:
            yield self.function(x)


def contract(
    shape: tuple[int, ...], kmodel: int = 4, dtype: str = "uint8", **given: Any
) -> Contract:
    outputs = given.pop("outputs", ())
    return Contract("m", kmodel, "maixpy", Input(shape, dtype=dtype, **given), outputs)


def pictures(path: Path, shape: tuple[int, ...], names: list[str]) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8)).save(path / name)
    return path


def test_feature_maps_of_kmodel_4_are_channels_first_and_of_5_last(tmp_path: Path) -> None:
    loader = Loader((1, 4, 5, 3), Preprocess(mean=0.5, std=0.5))
    images = folder(pictures(tmp_path, (4, 5, 3), ["a.png", "b.png"]))
    reference = Reference(relu([1, 4, 5, 3]))

    def exact(x: np.ndarray) -> np.ndarray:  # (C, H, W)
        return np.maximum((x / 255 - 0.5) / 0.5, 0).astype(np.float32)

    for kmodel, order in ((3, (0, 1, 2)), (4, (0, 1, 2)), (5, (1, 2, 0))):
        engine = Fake(lambda x, order=order: [exact(x).transpose(order)])
        found = measure(reference, engine, contract((3, 4, 5), kmodel), loader, images)
        assert found.outputs[0].cosine_min == pytest.approx(1.0, abs=1e-9)
        assert found.outputs[0].max_abs_error < 1e-6
        assert found.outputs[0].top1_agreement is None
        wrong = Fake(lambda x, order=order: [exact(x).transpose(order[1:] + order[:1])])
        found = measure(reference, wrong, contract((3, 4, 5), kmodel), loader, images)
        assert found.outputs[0].cosine_mean < 0.9


def test_quantised_outputs_are_read_by_the_contract(tmp_path: Path) -> None:
    weights = RANDOM.normal(size=(3, 12))
    images = folder(pictures(tmp_path, (3, 4), ["a.png"]))
    reference = Reference(dense(weights, [1, 3, 4, 1]))

    def run(x: np.ndarray) -> list[np.ndarray]:
        return [np.clip(np.rint(weights @ (x.ravel() / 255) / 0.05) + 128, 0, 255).astype(np.uint8)]

    said = (Output("scores", (3,), "uint8", 0.05, 128.0),)
    loader = Loader((1, 3, 4, 1), Preprocess())
    found = measure(reference, Fake(run), contract((1, 3, 4), outputs=said), loader, images)
    assert found.outputs[0].max_abs_error <= 0.0251


def test_tensors_are_quantised_as_the_contract_says() -> None:
    tensor = np.array([[-1.0, 0.0, 0.5, 9.0]], np.float32)
    sample = Sample("a.npy", None, tensor)
    given = Input((4,), "flat", "uint8", scale=0.01, zero_point=100.0)
    assert feed(given, sample).tolist() == [0, 100, 150, 255]
    given = Input((4,), "flat", "uint8", mean=0.5, std=0.5)
    assert feed(given, sample).tolist() == [0, 128, 191, 255]
    given = Input((4,), "flat", "float32")
    assert np.array_equal(feed(given, sample), tensor[0])
    given = Input((2, 1, 2), "planar", "float32")
    turned = feed(given, Sample("a.npy", None, tensor.reshape(1, 1, 2, 2)))
    assert turned.tolist() == [[[-1.0, 0.5]], [[0.0, 9.0]]]


def test_an_int8_reference_is_fed_and_read_in_real_numbers() -> None:
    tiny = Tiny()
    int8 = tflite.TensorType.INT8
    x = tiny.tensor("x", [1, 4], dtype=int8, quantised=(0.5, 3))
    y = tiny.tensor("y", [1, 4], dtype=int8, quantised=(0.5, 3))
    tiny.op(tflite.BuiltinOperator.RELU, [x], [y])
    reference = Reference(tiny.bytes([x], [y]))
    outputs = reference.run(np.array([[-2.0, 0.4, 7.0, 1e9]], np.float32))
    assert outputs[0].tolist() == [[0.0, 0.5, 7.0, 62.0]]


def test_records_name_the_images_and_the_worst_one(tmp_path: Path) -> None:
    weights = RANDOM.normal(size=(2, 4))
    images = folder(pictures(tmp_path, (2, 2), ["b.png", "a/a.png"]))
    loader = Loader((1, 2, 2, 1), Preprocess())
    worse = loader.pixels(tmp_path / "b.png")

    def run(x: np.ndarray) -> list[np.ndarray]:
        out = weights @ (x.ravel() / 255)
        return [-out if np.array_equal(x, worse) else out]

    reference = Reference(dense(weights, [1, 2, 2, 1]))
    found = measure(reference, Fake(run), contract((1, 2, 2)), loader, images)
    assert (found.samples, found.runtime, found.engine) == (2, None, "fake")
    output = found.outputs[0]
    assert output.name == "scores"
    assert output.cosine_min_file == output.max_abs_error_file == "b.png"
    assert output.cosine_min == pytest.approx(-1)
    assert output.cosine_mean == pytest.approx(0)
    assert output.top1_agreement == 0.5
    assert [r.file for r in found.images] == ["a/a.png", "b.png"]
    assert found.images[0].top1[0][0] == found.images[0].top1[0][1]
    assert found.images[1].top1[0][0] != found.images[1].top1[0][1]
    assert found.accuracy is None
    assert found.doubts == ()


def test_non_finite_outputs_are_counted_and_agree_with_nothing(tmp_path: Path) -> None:
    images = folder(pictures(tmp_path, (2, 2), ["a.png", "b.png"]))
    reference = Reference(dense(np.ones((2, 4)), [1, 2, 2, 1]))
    engine = Fake(lambda x: [np.array([np.nan, 1])])
    loader = Loader((1, 2, 2, 1), Preprocess())
    found = measure(reference, engine, contract((1, 2, 2)), loader, images)
    output = found.outputs[0]
    assert (output.non_finite, output.non_finite_file) == (2, "a.png")
    assert output.top1_agreement == 0
    assert found.images[0] == SampleFigures("a.png", (None,), (None,), (None,))


def test_other_outputs_than_the_float_models_are_refused(tmp_path: Path) -> None:
    images = folder(pictures(tmp_path, (2, 2), ["a.png"]))
    reference = Reference(dense(np.ones((2, 4)), [1, 2, 2, 1]))
    loader = Loader((1, 2, 2, 1), Preprocess())

    def refusal(outputs: list[np.ndarray]) -> str:
        with pytest.raises(OutputsDiffer) as caught:
            measure(reference, Fake(lambda x: outputs), contract((1, 2, 2)), loader, images)
        return str(caught.value)

    assert refusal([np.zeros(2), np.zeros(2)]) == (
        "the kmodel has 2 outputs, the float model 1 (scores); they are not made from one model"
    )
    assert refusal([np.zeros(3)]) == (
        "output 0 of the kmodel has 3 elements, scores of the float model 2 (1x2); "
        "they are not made from one model"
    )


class TestClasses:
    def test_sorted_folder_names_are_the_labels(self) -> None:
        found, note = find_classes(["b/1", "a/2", "a/x/3"], [(1, 2)], None)
        assert note is None
        assert found is not None
        assert found.labels == ("a", "b")
        assert found.index_of == {"b/1": 1, "a/2": 0, "a/x/3": 0}

    def test_given_labels_set_the_order_and_the_output(self) -> None:
        found, _ = find_classes(["b/1", "a/2"], [(1, 7, 4), (1, 3)], ["b", "c", "a"])
        assert found is not None
        assert found.output == 1
        assert found.index_of == {"b/1": 0, "a/2": 2}

    @pytest.mark.parametrize("files", [["1", "2"], ["a/1", "2"], ["a/1", "a/2"]])
    def test_no_classes_no_note(self, files: list[str]) -> None:
        assert find_classes(files, [(1, 2)], None) == (None, None)

    def test_folders_that_are_no_labels_at_all_promise_nothing(self) -> None:
        assert find_classes(["day/1", "night/2"], [(1, 2)], ["a", "b"]) == (None, None)

    def test_a_misspelt_folder_is_said(self) -> None:
        assert find_classes(["cros/1", "circle/2"], [(1, 2)], ["cross", "circle"]) == (
            None,
            StrangeFolder("cros", ("cross", "circle")),
        )

    def test_another_number_of_scores_is_said(self) -> None:
        assert find_classes(["a/1", "b/2"], [(1, 10)], None) == (
            None,
            ClassesMisfit(2, (10,)),
        )

    def test_detectors_have_no_scores(self) -> None:
        assert find_classes(["a/1", "b/2"], [(1, 5, 4)], None) == (None, None)


def classifier(mean: float, std: float) -> bytes:
    """Bright or dark, right only for pixels fed with that mean and std."""
    # (1/2 - mean)/std is the middle; the second score is the negative of the first.
    middle = (0.5 - mean) / std
    return dense(
        np.array([np.full(4, 1.0), np.full(4, -1.0)]),
        [1, 2, 2, 1],
        np.array([-4.0, 4.0]) * middle,
    )


def bright_and_dark(path: Path) -> Path:
    for i in range(10):
        for name, value in (("bright", 140 + 10 * i), ("dark", 10 * i)):
            (path / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((2, 2), value, np.uint8)).save(path / name / f"{i}.png")
    return path


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, 1 / 255), (0.0, 1.0)])
def test_accuracy_and_the_pair_that_was_meant(tmp_path: Path, mean: float, std: float) -> None:
    images = folder(bright_and_dark(tmp_path))
    reference = Reference(classifier(mean, std))
    fed = (0.0, 1.0) if (mean, std) != (0.0, 1.0) else (0.5, 1.0)
    loader = Loader((1, 2, 2, 1), Preprocess(mean=fed[0], std=fed[1]))
    engine = Fake(lambda x: [np.array([1.0, 0.0])])
    found = measure(reference, engine, contract((1, 2, 2)), loader, images)
    accuracy = found.accuracy
    assert accuracy.kmodel == 0.5  # always bright
    assert accuracy.float_model == 0.5
    assert found.doubts == (Hint(0.5, 1.0, mean=mean, std=std),)
    assert found.images[0].truth == "bright"

    loader = Loader((1, 2, 2, 1), Preprocess(mean=mean, std=std))
    right = measure(reference, engine, contract((1, 2, 2)), loader, images)
    assert (right.accuracy.float_model, right.doubts) == (1.0, ())


def test_samples_are_known_again_by_what_is_fed(tmp_path: Path) -> None:
    """Other names and other files do not make other samples; a link and a copy least of all."""
    pictures(tmp_path / "calibration", (2, 2), ["a.png", "b.png", "c.png"])
    (tmp_path / "verification").mkdir()
    with Image.open(tmp_path / "calibration/a.png") as same:
        same.save(tmp_path / "verification/again.bmp")
    (tmp_path / "verification/link.png").symlink_to(tmp_path / "calibration/b.png")
    pictures(tmp_path / "verification", (2, 2), ["new.png"])
    with Image.open(tmp_path / "verification/new.png") as new:
        new.save(tmp_path / "verification/new_copy.png")
    loader = Loader((1, 2, 2, 1), Preprocess())
    seen = Seen()
    for name in ("a", "b", "c"):
        seen.add(loader.load(tmp_path / f"calibration/{name}.png"))
    reference = Reference(dense(np.ones((2, 4)), [1, 2, 2, 1]))
    engine = Fake(lambda x: [np.zeros(2)])

    def found(calibration: tuple[str, ...] | None, of: str = "verification") -> tuple[Any, ...]:
        said = replace(contract((1, 2, 2)), calibration=calibration)
        result = measure(reference, engine, said, loader, folder(tmp_path / of))
        return result.held_out, result.shared, result.copies

    assert found(tuple(seen.digests)) == (False, 2, 1)
    assert found(tuple(seen.digests), "calibration") == (False, 3, 0)
    assert found(("0" * 16,)) == (True, 0, 1)
    assert found(()) == (True, 0, 1)
    assert found(None) == (None, None, 1)


def test_samples_are_taken_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_BYTES", 3 * 16 * 4)
    images = folder(pictures(tmp_path, (2, 2), [f"{i}.png" for i in range(8)]))
    engine = Fake(lambda x: [np.zeros(2)])
    seen: list[tuple[int, int]] = []
    found = measure(
        Reference(dense(np.ones((2, 4)), [1, 2, 2, 1])),
        engine,
        contract((1, 2, 2)),
        Loader((1, 2, 2, 1), Preprocess()),
        images,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert engine.groups == [3, 3, 2]
    assert found.samples == 8
    assert seen[-1] == (8, 8)


def test_planar_is_what_the_engine_sees(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RANDOM.normal(size=(2, 3, 4)).astype(np.float32))
    loader = Loader((1, 2, 3, 4), Preprocess())
    expected = planar(loader.tensor(tmp_path / "a.npy"))
    engine = Fake(lambda x: [np.maximum(x, 0)])
    found = measure(
        Reference(relu([1, 2, 3, 4])),
        engine,
        contract((4, 2, 3), dtype="float32"),
        loader,
        folder(tmp_path),
    )
    assert expected.shape == (4, 2, 3)
    assert found.outputs[0].max_abs_error == 0
    assert found.outputs[0].snr_db == 200
