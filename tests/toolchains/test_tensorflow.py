"""The real TensorFlow, on models of every kind: names, shapes, values, bytes, time."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.reference.litert import FloatModel
from k210tasks.toolchains import tensorflow
from k210tasks.toolchains.errors import BadRequest, OperationFailed
from k210tasks.toolchains.toolchain import Toolchain
from k210tasks.toolchains.worker import close_all

pytestmark = pytest.mark.toolchain


def convert(tool: Toolchain, source: Path, kind: str, out: Path, **more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"inputs": None, "outputs": None}
    options.update(more)
    return tensorflow.convert(tool, source=source, kind=kind, out=out, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "key", "more", "inputs", "outputs"),
    [
        ("plain.pb", "pb", "plain", {}, {"image": [1, 16, 12, 3]}, ["probabilities"]),
        ("plain.pbtxt", "pbtxt", "plain", {}, {"image": [1, 16, 12, 3]}, ["probabilities"]),
        (
            "plain.pb",
            "pb",
            "plain",
            {"inputs": {"image:0": [1, 16, 12, 3]}, "outputs": ["probabilities:0"]},
            {"image": [1, 16, 12, 3]},
            ["probabilities"],
        ),
        (
            "two.pb",
            "pb",
            "two",
            {"outputs": ["probabilities", "map"]},
            {"image": [1, 16, 12, 3]},
            ["probabilities", "map"],
        ),
        ("saved", "savedmodel", "saved", {}, {"features": [1, 6]}, ["best", "scores"]),
        ("three.keras", "keras", "three.keras", {}, {"picture": [1, 16, 12, 3]}, ["classes"]),
        (
            "open.keras",
            "keras",
            "open.keras",
            {"inputs": {"picture": [1, 16, 12, 3]}},
            {"picture": [1, 16, 12, 3]},
            ["classes"],
        ),
        ("three.h5", "h5", "three.h5", {}, {"picture": [1, 16, 12, 3]}, ["classes"]),
        ("old.h5", "h5", "old.h5", {}, {"picture": [1, 16, 12, 3]}, ["classes"]),
        ("heads.keras", "keras", "heads.keras", {}, {"features": [1, 6]}, ["second", "first"]),
        ("heads.h5", "h5", "heads.h5", {}, {"features": [1, 6]}, ["second", "first"]),
    ],
)
def test_same_values(
    name: str,
    kind: str,
    key: str,
    more: dict[str, Any],
    inputs: dict[str, list[int]],
    outputs: list[str],
    tensorflow_tool: Toolchain,
    zoo: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "o.tflite"
    with (tmp_path / "log").open("w") as log:
        result = convert(tensorflow_tool, zoo / name, kind, out, log=log, **more)
    assert result == {"inputs": inputs, "outputs": outputs, "bytes": out.stat().st_size}
    model = FloatModel(out.read_bytes())
    assert list(model.input_shape) == next(iter(inputs.values()))
    assert model.output_names == outputs
    expected = np.load(zoo / "expected.npz")
    got = model.run(expected[f"{key}.x"])
    wanted = [f"{key}.y"] if len(got) == 1 else [f"{key}.y{n}" for n in range(len(got))]
    for y, reference in zip(got, wanted, strict=True):
        np.testing.assert_allclose(y, expected[reference], rtol=1e-5, atol=1e-6)


def test_what_training_left_behind_is_no_input(
    tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path
) -> None:
    for name in ("training.pb", "unused.pb"):
        result = convert(tensorflow_tool, zoo / name, "pb", tmp_path / "o")
        assert list(result["inputs"]) == ["image"]


def test_graph_cut_at_an_inner_node(tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path) -> None:
    result = convert(
        tensorflow_tool, zoo / "dropout.pb", "pb", tmp_path / "o", inputs={"mul": [1, 8, 6, 4]}
    )
    assert result["inputs"] == {"mul": [1, 8, 6, 4]}
    assert FloatModel((tmp_path / "o").read_bytes()).input_shape == (1, 8, 6, 4)


def test_open_shapes_given(tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path) -> None:
    for name in ("open.pb", "unranked.pb"):
        more = {"inputs": {"image": [1, 20, 24, 3]}}
        convert(tensorflow_tool, zoo / name, "pb", tmp_path / "o", **more)
        assert FloatModel((tmp_path / "o").read_bytes()).input_shape == (1, 20, 24, 3)


@pytest.mark.parametrize(
    ("name", "kind", "more", "text"),
    [
        (
            "two.pb",
            "pb",
            {},
            "it has 2 possible outputs; name those you want under outputs: out of:\n"
            "  map [1, 8, 6, 4]\n  probabilities [1, 4]",
        ),
        (
            "plain.pb",
            "pb",
            {"inputs": {"imag": [1, 16, 12, 3]}},
            "the graph has no input imag (did you mean image?); its candidates are:\n"
            "  image [?, 16, 12, 3] float32",
        ),
        (
            "plain.pb",
            "pb",
            {"outputs": ["probabilitie"]},
            "the graph has no output probabilitie (did you mean probabilities?); its candidates "
            "are:\n  probabilities [?, 4]",
        ),
        (
            "plain.pb",
            "pb",
            {"inputs": {"image": [1, 16, 13, 3]}},
            "the input image is [?, 16, 12, 3] in the graph, but inputs: gives [1, 16, 13, 3]",
        ),
        (
            "plain.pb",
            "pb",
            {"inputs": {"image": [16, 12, 3]}},
            "the input image has 4 dimensions [?, 16, 12, 3], but inputs: gives 3: [16, 12, 3]",
        ),
        (
            "plain.pb",
            "pb",
            {"inputs": {"image": [4, 16, 12, 3]}},
            "the input image has a batch of 4; a K210 runs one sample at a time, export the model "
            "with a batch of 1",
        ),
        (
            "batch8.pb",
            "pb",
            {},
            "the input image has a batch of 8; a K210 runs one sample at a time, export the model "
            "with a batch of 1",
        ),
        (
            "open.pb",
            "pb",
            {},
            "the input image has the open shape [?, ?, ?, 3]; give every size, e.g. inputs: "
            "{image: [1, N, N, 3]}",
        ),
        (
            "unranked.pb",
            "pb",
            {},
            "the input image has no known shape; give it, e.g. inputs: {image: [1, 224, 224, 3]}",
        ),
        (
            "dropout.pb",
            "pb",
            {},
            "the outputs probabilities need 2 inputs, and a K210 model has one; export the graph "
            "for inference, or name under inputs: one inner node that they need alone. They are:\n"
            "  image [?, 16, 12, 3] float32\n  keep_prob [] float32",
        ),
        (
            "dropout.pb",
            "pb",
            {"inputs": {"image": [1, 16, 12, 3]}},
            "the outputs probabilities also need the input keep_prob, which inputs: does not name; "
            "it has:\n  image [?, 16, 12, 3] float32\n  keep_prob [] float32",
        ),
        (
            "unused.pb",
            "pb",
            {"inputs": {"image": [1, 16, 12, 3], "labels": [1, 7]}},
            "the outputs probabilities do not depend on the input labels; its candidates are:\n"
            "  image [?, 16, 12, 3] float32\n  labels [?, 7] float32",
        ),
        (
            "variable.pb",
            "pb",
            {},
            "the graph is not frozen: w is a variable; freeze it (convert_variables_to_constants) "
            "and give the result",
        ),
        (
            "saved",
            "savedmodel",
            {"inputs": {"feature": [1, 6]}},
            "the graph has no input feature (did you mean features?); its candidates are:\n"
            "  features [?, 6] float32",
        ),
        (
            "saved",
            "savedmodel",
            {"outputs": ["score"]},
            "the graph has no output score (did you mean scores?); its candidates are:\n"
            "  best [?, 3] float32\n  scores [?, 3] float32",
        ),
        (
            "many_signatures",
            "savedmodel",
            {},
            "the SavedModel has no signature serving_default (it has: one, two); save it with "
            "exactly one signature",
        ),
        (
            "open.keras",
            "keras",
            {},
            "the input picture has the open shape [?, ?, ?, 3]; give every size, e.g. inputs: "
            "{picture: [1, N, N, 3]}",
        ),
        (
            "only_weights.h5",
            "h5",
            {},
            "the .h5 file holds weights only; save the whole model with model.save(...)",
        ),
        (
            "saved/saved_model.pb",
            "pb",
            {},
            "it is part of a SavedModel, not a frozen graph; give the folder that it lies in",
        ),
        (
            "missing.pb",
            "pb",
            {},
            "it cannot be read: No such file or directory",
        ),
    ],
)
def test_refused(
    name: str,
    kind: str,
    more: dict[str, Any],
    text: str,
    tensorflow_tool: Toolchain,
    zoo: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(BadRequest) as caught:
        convert(tensorflow_tool, zoo / name, kind, tmp_path / "o", **more)
    assert str(caught.value) == f"converting {Path(name).name}: {text}"
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("three.h5", "pb", "it is not a frozen TensorFlow graph (a serialised GraphDef): "),
        ("plain.pb", "pbtxt", "it is not a frozen TensorFlow graph (a serialised GraphDef): "),
        ("plain.pb", "h5", "it cannot be read as an HDF5 file: "),
        ("plain.pb", "keras", "cannot load the model: "),
        ("plain.pb", "savedmodel", "it cannot be read as a SavedModel: "),
    ],
)
def test_files_of_another_kind(
    name: str, kind: str, text: str, tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match=re.escape(text)):
        convert(tensorflow_tool, zoo / name, kind, tmp_path / "o")


def test_operation_that_tflite_lacks(tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, pytest.raises(OperationFailed) as caught:
        convert(tensorflow_tool, zoo / "odd.pb", "pb", tmp_path / "o", log=log)
    assert str(caught.value) == (
        "tensorflow failed converting odd.pb: TF Select ops: MatrixInverse: these operations have "
        "no TFLite counterpart: MatrixInverse; replace them before exporting\n"
        f"full log: {tmp_path / 'log'}"
    )
    assert "MatrixInverse" in (tmp_path / "log").read_text()


def test_same_bytes_in_any_process_and_order(
    tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path
) -> None:
    kinds = {
        "plain.pb": "pb",
        "saved": "savedmodel",
        "three.keras": "keras",
        "three.h5": "h5",
        "old.h5": "h5",
    }
    results: dict[str, set[bytes]] = {name: set() for name in kinds}
    for order in (list(kinds), list(reversed(kinds))):
        for name in order * 2:
            convert(tensorflow_tool, zoo / name, kinds[name], tmp_path / "o")
            results[name].add((tmp_path / "o").read_bytes())
        close_all()
    assert {name: len(found) for name, found in results.items()} == dict.fromkeys(kinds, 1)


def test_twenty_cost_little_more_than_one(
    tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path
) -> None:
    """One start of TensorFlow serves all: its own cost is seconds, a conversion's is not."""
    close_all()
    start = time.perf_counter()
    convert(tensorflow_tool, zoo / "many0.pb", "pb", tmp_path / "o")
    one = time.perf_counter() - start
    for number in range(1, 20):
        convert(tensorflow_tool, zoo / f"many{number}.pb", "pb", tmp_path / "o")
    assert time.perf_counter() - start <= 3 * one
