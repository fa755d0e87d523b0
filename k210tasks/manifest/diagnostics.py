"""What is wrong in a models.yaml, shown with the lines it is about.

A :class:`Problem` points at places in the text; :class:`ManifestError` holds all
problems of a file and renders them once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k210tasks.errors import K210Error

#: The most columns of an offending line that are shown; longer lines are cut around the caret.
_SHOWN = 96


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A stretch of one line, all counted from 1; ``end`` is the column after the last."""

    line: int
    column: int
    end: int
    label: str = ""  # what this place says, where a problem has several


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. The first mark is where; the others explain."""

    message: str  # begins with the key, as models.nn_xo.inputs
    marks: tuple[Mark, ...] = ()
    allowed: str = ""  # what may stand there, or what to do


def lines_of(text: str) -> list[str]:
    """The lines as a YAML 1.1 parser counts them."""
    return re.split("\r\n|[\n\r\x85\u2028\u2029]", text)


class ManifestError(K210Error):
    """Everything that is wrong in one models.yaml; ``str()`` is the text to show."""

    def __init__(self, path: str, problems: Iterable[Problem], text: str = "") -> None:
        unique = dict.fromkeys(problems)
        self.path = path
        self.problems: tuple[Problem, ...] = tuple(
            sorted(unique, key=lambda p: (p.marks[:1], p.message))
        )
        lines = lines_of(text)
        blocks = [_render(path, problem, lines) for problem in self.problems]
        if len(blocks) > 1:
            blocks.insert(0, f"{path}: {len(blocks)} problems")
        super().__init__("\n\n".join(blocks))


def _render(path: str, problem: Problem, lines: Sequence[str]) -> str:
    where = path
    if problem.marks:
        where += f":{problem.marks[0].line}:{problem.marks[0].column}"
    out = [f"{where}: {problem.message}"]
    shown = sorted({mark for mark in problem.marks if mark.line <= len(lines)})
    width = max((len(str(mark.line)) for mark in shown), default=0)
    previous = None
    for mark in shown:
        if previous is not None and mark.line > previous + 1:
            out.append(f"  {'.' * width} |")
        line, caret = _excerpt(lines[mark.line - 1], mark)
        if mark.line != previous:
            out.append(f"  {mark.line:>{width}} | {line}".rstrip())
        out.append(f"  {'':>{width}} | {caret}" + (f" {mark.label}" if mark.label else ""))
        previous = mark.line
    if problem.allowed:
        out.append(f"  {problem.allowed}")
    return "\n".join(out)


def _excerpt(line: str, mark: Mark) -> tuple[str, str]:
    """The line made printable, cut to size, and the carets below it."""
    start = min(mark.column - 1, len(line))
    end = max(start + 1, min(mark.end - 1, max(len(line), start + 1)))
    first = 0
    if len(line) > _SHOWN and start > _SHOWN // 2:
        first = start - _SHOWN // 3
    last = first + _SHOWN
    before = _printable(line[first:start])
    marked = _printable(line[start : min(end, last)])
    after = _printable(line[min(end, last) : last])
    lead = "…" if first else ""
    tail = "…" if last < len(line) else ""
    caret = " " * (_width(before) + len(lead)) + "^" * max(1, _width(marked))
    return lead + before + marked + after + tail, caret


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in text)


def _width(text: str) -> int:
    """Columns on a terminal: east Asian letters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``; did you mean X?`` for the word nearest to ``word``, or nothing."""
    from difflib import get_close_matches

    by_case = {w.casefold(): w for w in words}
    near = get_close_matches(word.casefold(), by_case, 1, 0.6)
    return f'; did you mean "{by_case[near[0]]}"?' if near else ""
