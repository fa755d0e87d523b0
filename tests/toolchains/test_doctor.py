from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from k210tasks import cli, toolchains
from k210tasks.toolchains import interpreters
from k210tasks.toolchains.catalogue import ToolchainOverride
from tests.toolchains.fake_ncc import NCC_02
from tests.toolchains.loopback import tar
from tests.toolchains.test_interpreters import pretend, script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes shell scripts")


@pytest.fixture
def machine(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One usable Python 3.9, a shim that does not start, an empty cache and project."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("K210_STORE", raising=False)
    uv = script(tmp_path / "uv", "exit 2")
    monkeypatch.setattr(interpreters, "uv", lambda: str(uv))
    script(tmp_path / "bin" / "python3.10", "echo 'pyenv: python3.10: not found' >&2; exit 127")
    pretend(tmp_path / "bin" / "python3.9", "3.9.18")
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return tmp_path


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["doctor", *words]) == 0
    return capsys.readouterr().out


def test_empty_machine(machine: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = doctor(capsys)
    assert (
        "  nncase-1.9.0      not installed (about 91 MiB)\n"
        "                    nncase 1.9.0, compiler and simulator of kmodel 5\n"
        "                    pin: 1.9.0.20230322, requirements sha256 "
    ) in text
    assert (
        "                    pin: 0.2.0-beta4, hash not recorded yet\n"
        "                    to install: doit toolchain:ncc-0.2.0-beta4\n"
    ) in text
    assert "\nInterpreters for nncase-1.9.0: CPython 3.10, 3.9, 3.8 or 3.7\n" in text
    assert "does not start: pyenv: python3.10: not found" in " ".join(text.split())
    assert "\n  usable  3.9.18" in text
    assert "uv will try to download one; or set K210_PYTHON_TENSORFLOW=/path/to/python" in " ".join(
        text.split()
    )
    assert f"\n  cache   {cache} ($K210_CACHE)\n          not there yet; " in text
    too_long = [w for w in text.splitlines() if len(w) > 80 and "/" not in w]
    assert too_long == []


def test_looks_only(machine: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(machine.rglob("*"))
    doctor(capsys)
    assert sorted(machine.rglob("*")) == before
    assert not cache.exists()


def test_json(machine: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(doctor(capsys, "--json"))
    assert [t["name"] for t in facts["toolchains"]] == [
        "nncase-1.9.0",
        "tensorflow",
        "ncc-0.2.0-beta4",
        "ncc-0.1.0-rc5",
    ]
    assert not any(t["installed"] for t in facts["toolchains"])
    group = facts["interpreters"][0]
    assert group["toolchain"] == "nncase-1.9.0"
    assert [p["version"] for p in group["places"] if p["version"]] == ["3.9.18"]
    assert facts["cache"]["exists"] is False
    assert facts["cache"]["free_bytes"] > 0
    assert facts["packages"]["doit"]


def test_installed_tool_and_override(
    machine: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = machine / "ncc.tar.xz"
    archive.write_bytes(tar({"ncc": NCC_02}))
    name = "ncc-0.2.0-beta4"
    override = ToolchainOverride(name, url=archive.as_uri())
    toolchains.get(name, override, machine / "project" / "k210.lock").install(lambda text: None)
    (machine / "project" / "models.yaml").write_text(
        f"models: {{}}\ntoolchains:\n  {name}: {{url: '{archive.as_uri()}'}}\n"
    )
    facts = json.loads(doctor(capsys, "--json"))
    assert facts["manifest_problem"] is None
    tool = next(t for t in facts["toolchains"] if t["name"] == name)
    assert tool["installed"] is True
    assert tool["bytes"] > 1000
    text = doctor(capsys)
    assert f"\n  {name}   installed, " in text
    assert "pin: 0.2.0-beta4, archive sha256 " in text


def test_unreadable_manifest_is_no_obstacle(
    machine: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "project" / "models.yaml").write_text("models: {a: {sauce: x}}\n")
    text = doctor(capsys)
    assert "models.yaml cannot be read, so its toolchains: are not applied:" in text
    assert "sauce" in text


def test_store_off_and_locked(
    machine: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("K210_STORE", "off")
    monkeypatch.setenv("CI", "true")
    text = doctor(capsys)
    assert "\n  store   off (K210_STORE=off)" in text
    assert "\nLocked: downloads that k210.lock does not list are refused." in text
