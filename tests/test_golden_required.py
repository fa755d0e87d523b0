"""Continuous integration fails where recorded results are at hand and were not compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "K210_TEST_GOLDEN": "required", "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_run_without_them_fails() -> None:
    done = suite("tests/test_house.py", "-k", "room")
    assert done.returncode == 1
    assert "FAILED: golden results were not compared: any of tests/simulator/test" in done.stdout


def test_a_run_with_one_that_skips_fails(tmp_path: Path) -> None:
    test = tmp_path / "test_golden_like.py"
    test.write_text(
        "import pytest\n"
        "def test_compared(): pass\n"
        "@pytest.mark.skip(reason='needs ../shared/fixtures')\n"
        "def test_other(): pass\n"
    )
    done = suite("-c", str(REPOSITORY / "pyproject.toml"), "-p", "tests.conftest", str(test))
    assert done.returncode == 1
    assert "FAILED: golden results were not compared:" in done.stdout
    assert "test_other" in done.stdout


@pytest.mark.skipif(
    not (REPOSITORY.parent / "shared" / "fixtures").is_dir(), reason="needs ../shared/fixtures"
)
def test_a_run_with_them_passes() -> None:
    done = suite("tests/simulator/test_golden.py", "-k", "iris")
    assert done.returncode == 0, done.stdout
