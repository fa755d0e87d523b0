"""Brings the figures that the documents print up to date: what a compiler's change moves.

    python -m tests.docs.figures [--write] [DOCUMENT ...]

Carries the documents out as the tests do and lists every printed line that differs in its
numbers from what came out now; with ``--write`` puts the new ones in their place, in both
READMEs. Look at the difference before you commit it: prose may speak of a number, and times
differ from run to run. ``bench/`` measures what the tables say.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from tests.docs.scenario import REPOSITORY, Step, matches, steps
from tests.docs.test_commands import DOCUMENTS, Scenario, text_of

#: Held to the English one block by block.
TRANSLATION = {"README.md": "README.zh-CN.md"}


class Recording(Scenario):
    """Notes what is printed otherwise than the document says, and goes on."""

    def __init__(self, scratch: Path, store: Path, end: contextlib.ExitStack) -> None:
        super().__init__(scratch, store, end)
        self.current: dict[tuple[int, int], str] = {}  # line of the command, place -> line

    def compare(self, step: Step, output: str) -> None:
        for place, line in matches(step.expected, output):
            if line is None:
                print(f"  line {step.expected_line + place}: gone: {step.expected[place]}")
            elif line != step.expected[place]:
                self.current[step.line, place] = line


def changes(name: str) -> list[tuple[int, int, str]]:
    """The lines of a document that are out of date: number of its step, place, new line."""
    todo = steps(text_of(name))
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as end:
        scenario = Recording(Path(scratch), Path(scratch, "store"), end)
        for step in todo:
            scenario.take(step)
    places = {step.line: number for number, step in enumerate(todo)}
    return [(places[line], place, new) for (line, place), new in scenario.current.items()]


def apply(name: str, found: list[tuple[int, int, str]]) -> None:
    """Put the new lines into a document, at the same steps."""
    text = text_of(name)
    todo, lines = steps(text), text.split("\n")
    for number, place, new in found:
        step = todo[number]
        at = step.expected_line + place - 1
        lines[at] = lines[at].replace(step.expected[place], new)
    (REPOSITORY / name).write_text("\n".join(lines), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="change the documents")
    parser.add_argument("documents", nargs="*", default=DOCUMENTS, metavar="DOCUMENT")
    args = parser.parse_args()
    for name in args.documents:
        print(name)
        found = changes(name)
        todo = steps(text_of(name))
        for number, place, new in found:
            step = todo[number]
            print(f"  line {step.expected_line + place}: {step.expected[place]}\n    now: {new}")
        if args.write:
            apply(name, found)
            if name in TRANSLATION:
                apply(TRANSLATION[name], found)


if __name__ == "__main__":
    main()
