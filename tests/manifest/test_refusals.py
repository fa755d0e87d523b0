"""Every refusal, by its whole text: refusals.txt holds manifests and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from k210tasks import manifest
from k210tasks.manifest import document
from tests.manifest.conftest import Write


def cases() -> list[tuple[str, str, str]]:
    """Name, text of models.yaml, text of the error."""
    text = (Path(__file__).parent / "refusals.txt").read_text(encoding="utf-8")
    found = []
    for block in text.removeprefix("== ").split("\n== "):
        name, _, rest = block.partition("\n")
        source, _, said = rest.partition("-- refused\n")
        found.append((name, source, said.strip("\n")))
    return found


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize(("name", "text", "said"), cases(), ids=[c[0] for c in cases()])
def test_refused_in_these_words_and_nothing_is_touched(
    name: str, text: str, said: str, project: Path, write: Write
) -> None:
    path = write(text)
    before = snapshot(project)
    with pytest.raises(manifest.ManifestError) as error:
        manifest.check_files(manifest.load(path))
    assert str(error.value) == said
    assert snapshot(project) == before


@pytest.mark.parametrize("text", [c[1] for c in cases()], ids=[c[0] for c in cases()])
def test_the_parser_in_python_says_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML has no C parser, its other one is used."""
    fast = document.parse(text)
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    slow = document.parse(text)
    assert slow.problems == fast.problems
    assert repr(slow.root and slow.root.data()) == repr(fast.root and fast.root.data())
