"""Bits flipped in what is kept; all of them: ``python tests/flip_trials.py``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.flip_trials import trials
from tests.graph.conftest import Toy


@pytest.mark.parametrize("removed", [False, True])
def test_the_next_build_gives_the_same_bytes(tmp_path: Path, removed: bool) -> None:
    found = list(trials(Toy(tmp_path, ("one",)), 271, random.Random(1), removed=removed))
    assert len(found) > 40
    assert [wrong for wrong in found if wrong] == []
