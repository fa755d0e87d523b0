"""How a change of toolchain is said: by version, not by the whole pin."""

from __future__ import annotations

from typing import Any

import pytest

from k210tasks.engine.decide import _tool_reasons

PIN = {"name": "nncase-1.9.0", "version": "1.9.0.20230322", "requirements": "3144c5d9"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PIN, None, ["toolchain nncase-1.9.0: 1.9.0.20230322 → none"]),
        (None, PIN, ["toolchain nncase-1.9.0: none → 1.9.0.20230322"]),
        (
            PIN,
            PIN | {"requirements": "77"},
            ["toolchain nncase-1.9.0, requirements: 3144c5d9 → 77"],
        ),
    ],
)
def test_what_is_said(old: Any, new: Any, said: list[str]) -> None:
    assert [str(reason) for reason in _tool_reasons("nncase-1.9.0", old, new)] == said
