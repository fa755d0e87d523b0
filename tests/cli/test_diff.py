"""``k210 diff`` on files; with a model's previous build it is tested with the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k210tasks.cli import main
from tests.kmodel.test_listing import worked_example
from tests.simulator import models


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.kmodel").write_bytes(worked_example().to_bytes())
    (tmp_path / "b.kmodel").write_bytes(models.net_v4().to_bytes())
    (tmp_path / "text.kmodel").write_text("no kmodel")
    (tmp_path / "cut.kmodel").write_bytes(models.net_v4().to_bytes()[:-20])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a.kmodel", "b.kmodel"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["before: a.kmodel", "now:    b.kmodel"]
    assert "kmodel version                   3              4" in lines
    assert any(line.endswith("layers differ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_as_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "--json", "a.kmodel", "b.kmodel"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["nbytes"] == {
        "before": (files / "a.kmodel").stat().st_size,
        "after": (files / "b.kmodel").stat().st_size,
        "direction": found["figures"]["nbytes"]["direction"],
    }
    assert {layer["kind"] for layer in found["layers"]} <= {"added", "removed", "changed"}


def test_a_file_with_itself(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a.kmodel", "a.kmodel"]) == 0
    text = capsys.readouterr().out
    assert "the two files are identical" in text
    assert "0 of 9 layers differ" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.kmodel"], "a.kmodel is a file: give the kmodel to compare it with as well"),
        (["a.kmodel", "missing.kmodel"], "missing.kmodel cannot be read: "),
        (["a.kmodel", "text.kmodel"], "text.kmodel: "),
        (["a.kmodel", "cut.kmodel"], "cut.kmodel: byte "),
        (["nobody"], "there is no file nobody, and models.yaml has no model of that name"),
    ],
)
def test_refused(
    files: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *args]) == 1
    assert f"k210 diff: {message}" in capsys.readouterr().err
