"""Environments: made whole and proved, or not there; two processes; killed installers."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k210tasks import toolchains
from k210tasks.toolchains.catalogue import TOOLS, PythonTool
from k210tasks.toolchains.errors import InstallFailed, NotInstalled, OperationFailed
from k210tasks.toolchains.toolchain import PythonToolchain
from k210tasks.toolchains.worker import close_all
from tests.toolchains import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_uv_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))


def quiet(text: str) -> None:
    pass


def folders(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "toolchains").glob("*"))


def test_unknown() -> None:
    with pytest.raises(toolchains.ToolchainError) as caught:
        toolchains.get("nncase-2.0")
    assert str(caught.value) == (
        "there is no toolchain 'nncase-2.0'; there are: ncc-0.1.0-rc5, ncc-0.2.0-beta4, "
        "nncase-1.9.0, tensorflow"
    )


def test_install(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    assert not tool.installed()
    with pytest.raises(NotInstalled):
        tool.worker()
    said: list[str] = []
    tool.install(said.append)
    assert said == [
        f"tiny-1.0: making an environment with {sys.executable}",
        "tiny-1.0: installing the pinned packages",
        "tiny-1.0: trying it",
        "tiny-1.0: ready",
    ]
    assert tool.installed()
    receipt = tool.receipt()
    assert receipt is not None
    assert receipt["proof"] == {"version": "1.0", "answer": 42}
    assert receipt["pin"] == tool.pin()
    assert folders(cache) == [tool.folder.name]
    tool.install(said.append)
    assert len(said) == 4
    try:
        assert tool.worker().call("hello", {}, doing="x")["answer"] == 42
    finally:
        close_all()


def test_the_pin_is_what_is_installed_not_where(tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    pin = tool.pin()
    assert pin["name"] == "tiny-1.0"
    assert PythonToolchain(tool.tool, None).pin() == pin
    assert tiny.make(tmp_path, digest="0" * 64).pin() != pin


def test_other_requirements_are_another_installation(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    tool.install(quiet)
    first = tool.folder
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# a comment\n")
    assert not tool.installed()
    assert tool.folder != first


def test_wrong_hash(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path, digest="0" * 64)
    with pytest.raises(InstallFailed) as caught:
        tool.install(quiet)
    assert str(caught.value).startswith("installing tiny-1.0: uv pip install failed:\n")
    assert "Hash mismatch" in str(caught.value)
    assert not isinstance(caught.value, toolchains.ToolchainUnavailable)
    assert not tool.installed()


def test_proof_that_fails_is_no_installation(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path, worker="import tinypkg\nimport nothing_of_that_name\n")
    with pytest.raises(OperationFailed) as caught:
        tool.install(quiet)
    assert str(caught.value) == (
        "tiny-1.0 failed showing that it runs: "
        "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    )
    assert not tool.installed()
    fixed = tiny.make(tmp_path)
    fixed.install(quiet)
    assert fixed.installed()


def test_a_cache_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("K210_CACHE", str(tmp_path / "file"))
    with pytest.raises(toolchains.ToolchainError) as caught:
        tiny.make(tmp_path).install(quiet)
    assert str(caught.value) == (
        f"the cache folder {tmp_path / 'file'} cannot be used: Not a directory; make it "
        "writable for you, or set K210_CACHE to another folder"
    )


def test_no_interpreter(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tiny.make(tmp_path, pythons=("3.7",))
    with pytest.raises(toolchains.ToolchainUnavailable, match=r"tiny-1\.0 needs CPython 3\.7, and"):
        tool.install(quiet)
    assert not tool.installed()
    assert folders(cache) == []


def test_interpreter_that_went_away(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    tool.install(quiet)
    (tool.folder / "bin" / "python").unlink()
    assert not tool.installed()
    tool.install(quiet)
    assert tool.installed()


def test_foreign_code_stays_out(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user's variables would load into any Python does not reach a worker."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "tinypkg.py").write_text("ANSWER = 'evil'\n")
    (evil / "sitecustomize.py").write_text("import sys; sys.exit(66)\n")
    monkeypatch.setenv("PYTHONPATH", str(evil))
    monkeypatch.setenv("PYTHONSTARTUP", str(evil / "sitecustomize.py"))
    monkeypatch.chdir(evil)
    tool = tiny.make(tmp_path)
    tool.install(quiet)
    receipt = tool.receipt()
    assert receipt is not None
    assert receipt["proof"]["answer"] == 42


INSTALL = """
import sys
from pathlib import Path
from tests.toolchains import tiny
tool = tiny.made(Path(sys.argv[1]))
tool.install(lambda text: print(text, flush=True))
assert tool.installed()
"""


def installer(base: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL, str(base)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_two_at_once(cache: Path, tmp_path: Path) -> None:
    tiny.make(tmp_path)
    both = [installer(tmp_path) for _ in range(2)]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert sorted("making an environment" in text for text in said) == [False, True]
    for text in said:  # the second says why it does nothing, unless it came after the first
        others = [line for line in text.splitlines() if "another process" in line]
        assert others in ([], ["tiny-1.0: another process is installing it, waiting for that"])
    assert (tmp_path / "calls").read_text() == "hello\n"


def test_killed_installer_leaves_nothing_that_counts(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    (tmp_path / "hang").touch()
    first = installer(tmp_path)
    end = time.monotonic() + 60
    while not (tmp_path / "calls").exists():
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (tmp_path / "hang").unlink()
    assert not tool.installed()
    tool.install(quiet)
    assert tool.installed()
    assert folders(cache) == [tool.folder.name]


def test_python_tools_are_pinned_by_hash() -> None:
    """Every requirement has hashes; every Python of the tool is served; nothing is built."""
    for tool in TOOLS.values():
        if not isinstance(tool, PythonTool):
            continue
        text = tool.requirements_path.read_text()
        lines = re.sub(r"\\\n\s*", "", text).splitlines()
        wanted = [line for line in lines if line and not line.startswith("#")]
        assert wanted
        for line in wanted:
            assert re.match(r"[\w.-]+==[\w.]+ ", line), line
            assert "--hash=sha256:" in line, line
        assert "index" not in text
        main = next(line for line in wanted if line.startswith(tool.name.split("-")[0]))
        assert f"=={tool.version} " in main


def test_workers_parse_on_the_oldest_python() -> None:
    """Those of nncase run on CPython 3.7, those of TensorFlow on 3.10."""
    folder = Path(toolchains.__file__).parent / "workers"
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 7))
        names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert not [n for n in names if n and n.startswith("k210tasks")], path


def test_getting_one_is_cheap() -> None:
    code = (
        "import sys; import k210tasks.toolchains as t\n"
        "for n in ('nncase-1.9.0', 'tensorflow', 'ncc-0.2.0-beta4'): t.get(n).installed()\n"
        "heavy = {'numpy', 'PIL', 'rich', 'uv', 'urllib.request', 'tarfile', 'tflite'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from k210tasks.toolchains.cache import cache_root

    monkeypatch.setenv("K210_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("K210_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_root() == tmp_path / "xdg" / "k210tasks"
    assert os.environ.get("K210_CACHE") is None


def test_no_wheel_for_this_machine(cache: Path, tmp_path: Path) -> None:
    """The package is there, but for another system: that is no failure, it cannot be had."""
    tool = tiny.make(tmp_path)
    wheels = tmp_path / "wheels"
    (wheels / "tinypkg-1.0-py3-none-any.whl").rename(
        wheels / "tinypkg-1.0-py3-none-freebsd_12_0_sparc64.whl"
    )
    with pytest.raises(toolchains.ToolchainUnavailable) as caught:
        tool.install(quiet)
    assert str(caught.value).startswith(
        f"tiny-1.0 has no wheel for {sys.platform} and CPython "
        f"{sys.version_info[0]}.{sys.version_info[1]} ({sys.executable}); use another compiler:, "
        "or set optional: true on the models that need it\n"
    )
    assert not tool.installed()


def test_package_that_is_nowhere_is_a_failure(cache: Path, tmp_path: Path) -> None:
    tool = tiny.make(tmp_path)
    (tmp_path / "wheels" / "tinypkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(InstallFailed, match="uv pip install failed") as caught:
        tool.install(quiet)
    assert not isinstance(caught.value, toolchains.ToolchainUnavailable)
