from __future__ import annotations

import sys
from pathlib import Path

import pytest

from k210tasks.toolchains import interpreters
from k210tasks.toolchains.errors import NoInterpreter, ToolchainUnavailable
from k210tasks.toolchains.interpreters import ask, find, search

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
FULL = ".".join(map(str, sys.version_info[:3]))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes shell scripts")


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def pretend(path: Path, version: str, implementation: str = "CPython", bits: int = 64) -> Path:
    """A program that answers as a Python of that version would."""
    numbers = version.replace(".", ", ")
    return script(
        path,
        f'echo \'{{"executable": "{path}", "version": [{numbers}], '
        f'"implementation": "{implementation}", "bits": {bits}}}\'',
    )


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Python but what a test puts there, and a uv that has none."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'one'}:{tmp_path / 'two'}:/no/such/folder")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("K210_PYTHON_TOOL", raising=False)
    uv = script(
        tmp_path / "uv",
        f'echo "$@" >> {tmp_path / "asked"}\n'
        'if [ "$2" = install ]; then echo "error: Failed to download" >&2; exit 1; fi\n'
        'echo "error: No interpreter found" >&2; exit 2',
    )
    monkeypatch.setattr(interpreters, "uv", lambda: str(uv))
    return tmp_path


def first(versions: list[str], chosen: str | None = None) -> interpreters.Interpreter:
    return find("tool-1.0", versions, chosen=chosen, variable="K210_PYTHON_TOOL")


def test_a_real_one() -> None:
    finding = ask(sys.executable, "here", [HERE])
    assert finding.interpreter is not None
    assert finding.interpreter.version == sys.version_info[:3]
    assert finding.interpreter.minor == HERE
    assert str(finding) == f"here: CPython {FULL}"


def test_shim_that_does_not_start_is_passed_over(bare: Path) -> None:
    script(bare / "one" / "python3.9", "echo 'pyenv: python3.9: command not found' >&2; exit 127")
    good = pretend(bare / "two" / "python3.9", "3.9.18")
    assert first(["3.10", "3.9"]).path == good


def test_preferred_version_first(bare: Path) -> None:
    pretend(bare / "one" / "python3.9", "3.9.18")
    good = pretend(bare / "two" / "python3.10", "3.10.1")
    assert first(["3.10", "3.9"]).path == good


def test_pyenv_folder_newest_patch(bare: Path) -> None:
    pretend(bare / "pyenv" / "versions" / "3.9.2" / "bin" / "python", "3.9.2")
    good = pretend(bare / "pyenv" / "versions" / "3.9.18" / "bin" / "python", "3.9.18")
    pretend(bare / "pyenv" / "versions" / "3.11.1" / "bin" / "python", "3.11.1")
    assert first(["3.10", "3.9"]).path == good


def test_uv_find(bare: Path) -> None:
    good = pretend(bare / "managed" / "python", "3.9.18")
    script(bare / "uv", f'if [ "$2" = find ] && [ "$6" = 3.9 ]; then echo {good}; else exit 1; fi')
    assert first(["3.10", "3.9"]).path == good


def test_uv_install_is_the_last_resort(bare: Path) -> None:
    good = pretend(bare / "managed" / "python", "3.10.9")
    script(
        bare / "uv",
        f'if [ "$2" = install ]; then : > {bare}/there; exit 0; fi\n'
        f"[ -e {bare}/there ] && echo {good}",
    )
    said: list[str] = []
    found = find("tool", ["3.10", "3.9"], variable="K210_PYTHON_TOOL", say=said.append)
    assert found.path == good
    assert said == ["no usable Python found; uv python install 3.10"]


def test_uv_is_not_asked_to_install_when_one_is_there(bare: Path) -> None:
    pretend(bare / "one" / "python3.9", "3.9.18")
    first(["3.9"])
    assert not (bare / "asked").exists()


def test_search_without_install(bare: Path) -> None:
    list(search(["3.9"]))
    assert "install" not in (bare / "asked").read_text()


def test_named_in_models_yaml(bare: Path) -> None:
    good = pretend(bare / "mine", "3.9.18")
    pretend(bare / "one" / "python3.10", "3.10.1")
    assert first(["3.10", "3.9"], chosen=str(good)).path == good


def test_named_in_the_environment(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = pretend(bare / "mine", "3.9.18")
    pretend(bare / "one" / "python3.10", "3.10.1")
    monkeypatch.setenv("K210_PYTHON_TOOL", str(good))
    assert first(["3.10", "3.9"]).path == good


def test_a_named_one_that_does_not_fit_is_not_replaced(bare: Path) -> None:
    pretend(bare / "one" / "python3.10", "3.10.1")
    with pytest.raises(NoInterpreter) as caught:
        first(["3.10", "3.9"], chosen=str(pretend(bare / "mine", "3.12.1")))
    assert f"{bare / 'mine'} (models.yaml): is CPython 3.12.1; needed is 3.10, 3.9" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 0", "does not start: no answer"),
        ("echo '{'", "does not start: {"),
        ("echo '[1]'", "does not start: [1]"),
        ("echo oops >&2; exit 3", "does not start: oops"),
        ("kill -SEGV $$", "does not start: no answer"),
    ],
)
def test_no_answer(body: str, why: str, tmp_path: Path) -> None:
    finding = ask(script(tmp_path / "python", body), "there", ["3.9"])
    assert str(finding) == f"there: {why}"


def test_other_pythons(tmp_path: Path) -> None:
    pypy = pretend(tmp_path / "pypy", "3.9.1", "PyPy")
    assert ask(pypy, "p", ["3.9"]).why_not == "is PyPy 3.9.1, 64 bit; needed is 64-bit CPython"
    small = pretend(tmp_path / "small", "3.9.1", bits=32)
    assert ask(small, "p", ["3.9"]).why_not == "is CPython 3.9.1, 32 bit; needed is 64-bit CPython"


def test_no_such_file(tmp_path: Path) -> None:
    assert ask(tmp_path / "none", "x", ["3.9"]).why_not == "no such file"
    (tmp_path / "plain").write_text("x")
    assert ask(tmp_path / "plain", "x", ["3.9"]).why_not == "does not start: Permission denied"


def test_none_at_all(bare: Path) -> None:
    script(bare / "one" / "python3.10", "echo 'pyenv: python3.10: command not found' >&2; exit 127")
    with pytest.raises(NoInterpreter) as caught:
        first(["3.10", "3.9"])
    assert isinstance(caught.value, ToolchainUnavailable)
    assert str(caught.value) == (
        "tool-1.0 needs CPython 3.10 or 3.9, and none can be had. Looked for:\n"
        f"  {bare}/one/python3.10: does not start: pyenv: python3.10: command not found\n"
        "  python3.9 on PATH: not there\n"
        f"  pyenv's {bare}/pyenv/versions: no such folder\n"
        "  uv python find 3.10: finds none\n"
        "  uv python find 3.9: finds none\n"
        "  uv python install 3.10: error: Failed to download\n"
        "Ways out: install one of them; or name one in models.yaml under toolchains: "
        "{tool-1.0: {python: /path/to/python}}; or set K210_PYTHON_TOOL=/path/to/python; or set "
        "optional: true on the models that need it"
    )
