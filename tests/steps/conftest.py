"""Where the shared real models are; a test that wants them is skipped without them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def fixtures() -> Path:
    path = Path(__file__).resolve().parents[2].parent / "shared/fixtures"
    if not path.is_dir():
        pytest.skip(f"no real models: {path} is not there")
    return path
