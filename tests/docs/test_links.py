"""Every relative link of the documentation leads somewhere, headings included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.scenario import REPOSITORY

PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
_FENCED = re.compile(r"^( *)```.*?^\1```\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCED.sub("", path.read_text("utf-8")))


def anchors(path: Path) -> set[str]:
    """Of the headings, as the usual hosts make them."""
    text = _FENCED.sub("", path.read_text("utf-8"))
    headings = re.findall(r"^#+\s+(.*?)\s*$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    broken = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        there = (page.parent / target).resolve() if target else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_index() -> None:
    index = prose(REPOSITORY / "docs" / "README.md")
    linked = {(REPOSITORY / "docs" / link).resolve() for link in _LINK.findall(index)}
    missing = [p for p in PAGES if p.startswith("docs/") and (REPOSITORY / p) not in linked]
    assert missing == ["docs/README.md"]
