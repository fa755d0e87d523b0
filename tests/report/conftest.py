from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report import project
from tests.report.chromium import NAMES, Chromium, find


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile project after ``doit``: do not change it."""
    root = tmp_path_factory.mktemp("report") / "project"
    root.mkdir()
    project.make(root)
    project.doit(root, status=2)  # two models fail, what follows one of them is not tried
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    program = find()
    if program is None:
        why = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("K210_TEST_CHROMIUM") == "required":
            pytest.fail(why)
        pytest.skip(why)
    with Chromium(program) as chromium:
        yield chromium
