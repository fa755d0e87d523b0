"""SUPPORTED_OPS.md says what the constraint table says."""

from __future__ import annotations

from pathlib import Path

from k210tasks.compiler import supported
from k210tasks.compiler.constraints import EVERY, RULES
from k210tasks.compiler.reader import HANDLERS

ROOT = Path(__file__).parents[2]


def test_the_file_is_current() -> None:
    assert (ROOT / "SUPPORTED_OPS.md").read_text("utf-8") == supported.text(), (
        "run: python -m k210tasks.compiler.supported > SUPPORTED_OPS.md"
    )


def test_every_op_in_the_table_is_read_and_no_other() -> None:
    folded = {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"}  # into the convolution between them
    assert set(RULES) - folded == set(HANDLERS)


def test_every_constraint_has_a_sentence() -> None:
    for constraint in {*EVERY, *(c for rule in RULES.values() for c in rule.constraints)}:
        assert (constraint.__doc__ or "").endswith("."), constraint
