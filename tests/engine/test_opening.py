"""What is said when a project is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k210tasks.engine.opening import open_project


def test_a_shared_folder_that_anybody_may_write_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(os, "geteuid"):
        pytest.skip("modes are POSIX's")
    (tmp_path / "models.yaml").write_text("models: {}\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    for variable in ("K210_STORE", "K210_CACHE"):
        monkeypatch.setenv(variable, str(shared))
    open_project(str(tmp_path / "models.yaml"))
    assert capsys.readouterr().err == ""
    shared.chmod(0o777)
    open_project(str(tmp_path / "models.yaml"))
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {variable}={shared} is not trustworthy: anybody may write to {shared} "
        f"(mode 777); chmod o-w {shared}"
        for variable in ("K210_STORE", "K210_CACHE")
    ]


def test_the_folder_that_is_looked_at_is_the_one_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not hasattr(os, "geteuid"):
        pytest.skip("modes are POSIX's")
    (tmp_path / "models.yaml").write_text("models: {}\n")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("K210_CACHE", "~/cache")
    monkeypatch.setenv("K210_STORE", "off")
    open_project(str(tmp_path / "models.yaml"))
    assert capsys.readouterr().err.startswith(f"warning: K210_CACHE={tmp_path}/cache is not ")
