"""Where the checks of a models.yaml put what they find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k210tasks.manifest.diagnostics import Mark, Problem
from k210tasks.manifest.document import Document

Path = tuple[Any, ...]  # keys and list indexes from the top of the file


def dotted(path: Path) -> str:
    """``models.nn_xo.inputs``, ``firmware.demo.parts[0]``."""
    out = ""
    for step in path:
        if isinstance(step, int):
            out += f"[{step}]"
        else:
            out += f".{step}" if out else str(step)
    return out


class Findings:
    """The problems found so far; places are given as paths into the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = list(document.problems)
        self._dropped: set[Path] = set()
        self._above: set[Path] = set()

    def add(
        self,
        path: Path,
        message: str,
        allowed: str = "",
        *,
        at_key: bool = False,
        label: str = "",
        also: Sequence[tuple[Path, str]] = (),
    ) -> None:
        """Note that what stands at ``path`` is wrong: ``message`` follows the path."""
        marks: tuple[Mark, ...] = (self.document.mark(path, at_key=at_key, label=label),)
        for place, text in also:
            node = self.document.find(place)[1]
            is_map = node is not None and node.items is not None
            marks += (self.document.mark(place, at_key=is_map, label=text),)
        self.problems.append(Problem(f"{dotted(path)}: {message}", marks, allowed))

    def drop(self, path: Path) -> None:
        """Note that what stood at ``path`` was refused and is not in the data any more."""
        self._dropped.add(path)
        self._above.update(path[:n] for n in range(1, len(path) + 1))

    def broken(self, path: Path) -> bool:
        """Whether something at, below or above ``path`` was refused: not to be judged again."""
        return path in self._above or any(path[:n] in self._dropped for n in range(1, len(path)))

    def written(self, path: Path) -> Path:
        """Where the value of a model's key was written: at the model, or under defaults."""
        for place in (path, ("defaults", *path[2:])):
            at = self.document.root
            for step in place:
                at = at.child(step) if at is not None else None
            if at is not None:
                return place
        return path
