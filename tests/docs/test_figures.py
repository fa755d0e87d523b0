"""The tool that brings printed figures up to date finds the lines it is to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import figures, test_commands
from tests.docs.scenario import matches, steps

PAGE = """\
# Page

<!-- test: empty -->

   ```console
   $ printf 'size 12\\n'
   size 10
   $ printf 'a 1\\nb 2\\n' \\
   > | cat
   …
   b 7
   ```
"""


def test_lines_are_matched_but_for_their_numbers() -> None:
    assert list(matches(("a 1", "…", "b 2", "c"), "x\na 3\nb 4\n")) == [
        (0, "a 3"),
        (2, "b 4"),
        (3, None),
    ]


def test_the_place_of_what_is_printed_is_known() -> None:
    lines = PAGE.splitlines()
    found = [step for step in steps(PAGE) if step.expected]
    assert [lines[step.expected_line - 1].strip() for step in found] == ["size 10", "…"]


def test_new_figures_take_the_place_of_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text(PAGE, "utf-8")
    monkeypatch.setattr(figures, "REPOSITORY", tmp_path)
    for module in (figures, test_commands):
        monkeypatch.setattr(module, "text_of", lambda name: (tmp_path / name).read_text("utf-8"))
    found = figures.changes("page.md")
    assert [(place, new) for _, place, new in found] == [(0, "size 12"), (1, "b 2")]
    figures.apply("page.md", found)
    now = PAGE.replace("   size 10", "   size 12").replace("   b 7", "   b 2")
    assert (tmp_path / "page.md").read_text("utf-8") == now
    assert figures.changes("page.md") == []
