"""The report as files: written whole or not at all, pages of models that are gone removed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from k210tasks.report.facts import ReportFacts
from k210tasks.report.page import index_page, one_model_page
from k210tasks.store.files import write_atomically

FOLDER = "build/report"
INDEX = f"{FOLDER}/index.html"


def page_path(model: str) -> str:
    """A model's page, relative to the project."""
    return f"{FOLDER}/models/{model}.html"


def write_pages(facts: ReportFacts, root: Path) -> list[str]:
    """Write every page; returns their paths relative to the project. Raises OSError."""
    written = []
    for model in facts.models:
        path = page_path(model.name)
        _write(root / path, one_model_page(facts, model))
        written.append(path)
    # Last, so that it never names a page that is not there.
    _write(root / INDEX, index_page(facts))
    written.append(INDEX)
    _remove_others(root / FOLDER / "models", {f"{model.name}.html" for model in facts.models})
    return written


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate, from a file name of another encoding, can be in no page.
    write_atomically(str(path), text.encode("utf-8", "replace"))


def _remove_others(folder: Path, wanted: set[str]) -> None:
    with contextlib.suppress(OSError):
        for page in folder.glob("*.html"):
            if page.name not in wanted:
                page.unlink()
