"""Both READMEs say the same: the same commands and files, the same headings and tables."""

from __future__ import annotations

import re

from k210tasks.profiles import PROFILES
from tests.docs.scenario import REPOSITORY, blocks_and_directives, commands

ENGLISH = (REPOSITORY / "README.md").read_text("utf-8")
CHINESE = (REPOSITORY / "README.zh-CN.md").read_text("utf-8")


def test_the_same_blocks_and_directions() -> None:
    """So that carrying out the one is carrying out the other."""

    def found(text: str) -> list[object]:
        return [
            item[0] if isinstance(item, tuple) else (item.language, item.lines)
            for item in blocks_and_directives(text)
        ]

    assert commands(ENGLISH)
    assert found(ENGLISH) == found(CHINESE)


def test_the_same_structure() -> None:
    def levels(text: str) -> list[str]:
        text = re.sub(r"^```.*?^```$", "```", text, flags=re.MULTILINE | re.DOTALL)
        return re.findall(r"^#+(?= )|^```", text, flags=re.MULTILINE)

    assert levels(ENGLISH) == levels(CHINESE)


def test_the_same_pages_are_named() -> None:
    def links(text: str) -> set[str]:
        return set(re.findall(r"\]\(((?!README)[^)]+)\)", text))

    assert links(ENGLISH) == links(CHINESE)


def test_the_firmware_tables_hold_the_profiles() -> None:
    how_to = (REPOSITORY / "docs" / "how-to" / "firmware.md").read_text("utf-8")
    for text in (ENGLISH, CHINESE, how_to):
        rows = re.findall(r"^\| `([\w-]+)` \|[^|]+\| ([\d, 、]+) \|", text, flags=re.MULTILINE)
        told = {name: tuple(map(int, re.findall(r"\d", versions))) for name, versions in rows}
        assert told == {name: profile.kmodels for name, profile in PROFILES.items()}
    places = dict(re.findall(r"^\| `([\w-]+)` .* \| (0x\w+) \|$", how_to, flags=re.MULTILINE))
    assert {name: int(at, 16) for name, at in places.items()} == {
        name: profile.model_base for name, profile in PROFILES.items()
    }
