from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from k210tasks import toolchains
from k210tasks.toolchains.environments import python_of
from k210tasks.toolchains.toolchain import Toolchain
from tests.toolchains.loopback import Site, serving


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and an environment that neither locks nor names interpreters."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("K210_CACHE", str(folder))
    for name in ("CI", "K210_LOCKED", "K210_PYTHON_NNCASE", "K210_PYTHON_TENSORFLOW"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server of our own, on the loopback address."""
    with serving(Site()) as own:
        yield own


def real(name: str) -> Toolchain:
    """The vendor's real environment, in the user's own cache; skips where it cannot be had."""
    tool = toolchains.get(name)
    try:
        tool.install(lambda text: None)
    except toolchains.ToolchainError as error:
        pytest.skip(f"{name} cannot be installed here: {str(error).splitlines()[0]}")
    return tool


@pytest.fixture(scope="session")
def tensorflow_tool() -> Toolchain:
    return real("tensorflow")


@pytest.fixture(scope="session")
def nncase_tool() -> Toolchain:
    return real("nncase-1.9.0")


@pytest.fixture(scope="session")
def zoo(tensorflow_tool: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind, made by TensorFlow, and what they compute."""
    folder = tmp_path_factory.mktemp("zoo")
    python = python_of(tensorflow_tool.folder)
    script = Path(__file__).with_name("make_models.py")
    subprocess.run([str(python), "-I", str(script), str(folder)], check=True, capture_output=True)
    return folder
