"""``convert`` around TensorFlow: what it asks for, and what it takes for a result."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tflite

from k210tasks.steps import convert
from k210tasks.steps.signature import UnusableModel
from k210tasks.toolchains import tensorflow
from k210tasks.toolchains.catalogue import ToolchainOverride
from tests.steps.jobs import job
from tests.steps.tiny import Tiny, ports, relu


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: bytes) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def fake(toolchain: Any, **request: Any) -> dict[str, Any]:
        asked.update(request, toolchain=toolchain)
        request["out"].write_bytes(result)
        return {"inputs": {"x": [1, 2]}, "outputs": ["y"], "bytes": len(result)}

    monkeypatch.setattr(tensorflow, "convert", fake)
    log = io.StringIO()
    settings = {"kind": "pb", "inputs": {"x": [1, 2]}, "outputs": None}
    made = job(
        "convert",
        "m",
        log,
        {"source": Path("workspace/m.pb")},
        {"tflite": tmp_path / "m.tflite"},
        settings,
    )
    chosen = {"tensorflow": ToolchainOverride("tensorflow", python="/opt/python")}
    convert.run(replace(made, toolchains=chosen))
    asked["logged"] = log.getvalue()
    return asked


def test_asks_with_the_settings_and_the_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = run(tmp_path, monkeypatch, relu([1, 2, 2, 1]))
    assert asked["source"] == Path("workspace/m.pb")
    assert (asked["kind"], asked["inputs"], asked["outputs"]) == ("pb", {"x": (1, 2)}, None)
    assert asked["toolchain"].override.python == "/opt/python"
    assert asked["logged"].endswith("input input: float32 1x2x2x1\noutput map: float32 1x2x2x1\n")


def test_several_inputs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableModel) as caught:
        run(tmp_path, monkeypatch, ports(a=[1, 2], b=[1, 2]))
    assert str(caught.value) == (
        "workspace/m.pb, converted: the model has 2 inputs (a, b); K210 runtimes feed exactly "
        "one: join them into one tensor and split it in the model"
    )


def test_a_result_that_is_not_float_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Tiny()
    x = tiny.tensor("x", [1, 2], dtype=tflite.TensorType.INT32)
    with pytest.raises(UnusableModel) as caught:
        run(tmp_path, monkeypatch, tiny.bytes([x], [x]))
    assert str(caught.value) == (
        "workspace/m.pb, converted: tensor x is int32; the compiler quantises by itself, "
        "give the float model"
    )
