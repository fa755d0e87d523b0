"""What a ``.tflite`` takes and gives, and every file that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tflite
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.steps.signature import (
    Port,
    Signature,
    UnusableModel,
    read_model,
    read_signature,
    require_float,
)
from tests.blackbox.onnx_files import picture_network
from tests.steps.tiny import Tiny, dense, ports


def refusal(data: bytes) -> str:
    with pytest.raises(UnusableModel) as caught:
        read_signature(data, "m.tflite")
    return str(caught.value)


def test_names_shapes_and_types() -> None:
    found = read_signature(dense(np.ones((2, 6)), [1, 2, 3, 1]), "m.tflite")
    assert found == Signature(
        Port("input", (1, 2, 3, 1), "float32"), (Port("scores", (1, 2), "float32"),)
    )
    assert found.is_float


def test_several_inputs() -> None:
    assert refusal(ports(left=[1, 4], right=[1, 4])) == (
        "m.tflite: the model has 2 inputs (left, right); K210 runtimes feed exactly one: "
        "join them into one tensor and split it in the model"
    )


def test_no_output() -> None:
    tiny = Tiny()
    x = tiny.tensor("x", [1, 4])
    assert refusal(tiny.bytes([x], [])) == "m.tflite: the model has no output"


def test_open_shape() -> None:
    tiny = Tiny()
    x = tiny.tensor("picture", [1, 1, 1, 3], signature=[-1, -1, -1, 3])
    assert refusal(tiny.bytes([x], [x])) == (
        "m.tflite: tensor picture has no fixed shape: [1, ?, ?, 3]; convert the model with one"
    )


def test_an_open_batch_is_taken_as_one() -> None:
    tiny = Tiny()
    x = tiny.tensor("x", [1, 4], signature=[-1, 4])
    assert read_signature(tiny.bytes([x], [x]), "m.tflite").input.shape == (1, 4)


def test_batch() -> None:
    assert refusal(ports(x=[8, 4, 4, 1])) == (
        "m.tflite: input x has a batch of 8: [8, 4, 4, 1]; a K210 runs one sample at a time, "
        "convert the model with a batch of 1"
    )


def test_quantised() -> None:
    tiny = Tiny()
    x = tiny.tensor("x", [1, 4], dtype=tflite.TensorType.INT8, quantised=(0.5, 3))
    found = read_signature(tiny.bytes([x], [x]), "m.tflite")
    assert not found.is_float
    with pytest.raises(UnusableModel) as caught:
        require_float(found, "m.tflite", "nncase-1.9.0")
    assert str(caught.value) == (
        "m.tflite: tensor x is int8; nncase-1.9.0 quantises by itself, give the float model"
    )


def test_no_tflite_at_all(tmp_path: Path) -> None:
    assert refusal(b"not a model") == (
        "m.tflite: not a usable TensorFlow Lite model: it does not carry the identifier TFL3 at "
        "byte 4"
    )
    with pytest.raises(UnusableModel) as caught:
        read_model(tmp_path / "gone.tflite", "gone.tflite")
    assert str(caught.value) == "gone.tflite: No such file or directory"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(dense(np.ones((2, 6)), [1, 2, 3, 1]))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=5)):
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    text = ""
    try:
        read_signature(bytes(damaged), "m.tflite")
    except UnusableModel as error:
        text = str(error)
    assert text == "" or text.startswith("m.tflite: ")


@pytest.mark.parametrize("name", ["net.tflite", "net.onnx", "net.onnx.data"])
def test_more_bytes_than_anything_for_a_k210(name: str, tmp_path: Path) -> None:
    """Above 2 GiB neither format can be at all; it is known long before."""
    picture_network(tmp_path / "net.onnx")
    with (tmp_path / name).open("ab") as file:
        file.truncate(3 << 30)
    model = tmp_path / name.removesuffix(".data")
    with pytest.raises(UnusableModel, match="more than the 64 MiB of any file for a K210"):
        read_model(model, "net", {"image": (1, 3, 16, 16)})
