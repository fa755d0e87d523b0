from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
