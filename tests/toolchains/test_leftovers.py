"""``k210 gc --toolchains``: earlier pins leave the cache, today's stay."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from k210tasks import toolchains
from k210tasks.cli import main
from k210tasks.toolchains import receipts
from k210tasks.toolchains.catalogue import TOOLS, PythonTool


def installed(cache: Path, name: str, pin: dict[str, object] | None) -> Path:
    folder = cache / "toolchains" / name
    folder.mkdir(parents=True)
    (folder / "tool").write_bytes(bytes(1_500_000))
    if pin is not None:
        receipts.write(folder, pin, {})
    return folder


def test_gc_toolchains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("K210_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    nothing = f"nothing to remove: {tmp_path} holds no tools of earlier pins\n"
    assert main(["gc", "--toolchains"]) == 0
    assert capsys.readouterr().out == nothing

    tensorflow = TOOLS["tensorflow"]
    assert isinstance(tensorflow, PythonTool)
    now = installed(tmp_path, "tensorflow-now", tensorflow.pin())
    archive = TOOLS["ncc-0.1.0-rc5"]
    kept = installed(
        tmp_path, "ncc-a", {"name": archive.name, "version": archive.version, "sha256": "ab"}
    )
    working = installed(tmp_path, "tensorflow-x.new-1", None)
    old = installed(tmp_path, "tensorflow-old", {**tensorflow.pin(), "requirements": "other"})
    gone = installed(tmp_path, "nncase-0.9", {"name": "nncase-0.9", "version": "0.9"})
    cut = installed(tmp_path, "tensorflow-y.new-2", None)
    long_ago = time.time() - 100_000
    os.utime(cut, (long_ago, long_ago))

    def lines(verb: str) -> str:
        return (
            f"{verb} nncase-0.9 (0.9), 1.5 MB, {gone}\n"
            f"{verb} tensorflow ({tensorflow.version}), 1.5 MB, {old}\n"
            f"{verb} an installation that was cut off, 1.5 MB, {cut}\n"
        )

    assert main(["gc", "--toolchains", "--dry-run"]) == 0
    assert capsys.readouterr().out == lines("would remove")
    assert gone.is_dir()
    assert main(["gc", "--toolchains"]) == 0
    assert capsys.readouterr().out == lines("removed")
    assert sorted((tmp_path / "toolchains").iterdir()) == sorted([now, kept, working])
    assert main(["gc", "--toolchains"]) == 0
    assert capsys.readouterr().out == nothing


def test_what_cannot_be_read_now_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("K210_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    toolchain = toolchains.get("tensorflow")
    folder = installed(tmp_path, toolchain.folder.name, dict(toolchain.pin()))
    long_ago = time.time() - 100_000
    os.utime(folder, (long_ago, long_ago))

    def read_text(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", read_text)
        with pytest.raises(toolchains.ToolchainError, match="Too many open files"):
            toolchain.install(print)
        assert main(["gc", "--toolchains"]) == 1
    assert "Too many open files" in capsys.readouterr().err
    assert (folder / "tool").exists()
    assert receipts.read(folder) is not None
