"""A project folder with everything the manifests of these tests name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = (
    "a.pb",
    "a.tflite",
    "notes.txt",
    "folder.pb/x",
    "i/1.png",
    "texts/a.txt",
    "mixed/1.png",
    "mixed/2.npy",
    "saved_model/saved_model.pb",
    "saved_model/variables/x",
    "workspace/a.tflite",
    "workspace/a.kmodel",
    "build/a/vectors/1.bin",
    "build/x/saved/saved_model.pb",
)

Write = Callable[[str], str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sources and samples; it is the current one."""
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(project: Path) -> Write:
    """Writes models.yaml of the project; gives its path."""

    def write_text(text: str) -> str:
        (project / "models.yaml").write_bytes(text.encode())
        return "models.yaml"

    return write_text
