"""A document as a scenario: its commands, one after the other, as they are printed.

Fenced blocks marked ``sh`` (commands only) or ``console`` (``$ command`` and what it prints)
are carried out. What readers need not see stands in HTML comments:

    <!-- test: clone -->         start in a copy of this repository
    <!-- test: empty -->         start in an empty folder
    <!-- test: own store -->     compute everything anew; else documents share their results
    <!-- test: run COMMAND -->   a command readers need not see; $REPOSITORY is where we are
    <!-- test: file PATH -->     the next block is the content of that file
    <!-- test: append PATH -->   the next block is added to that file, after an empty line
    <!-- test: status N -->      the last command of the next block ends with that status
    <!-- test: board -->         a board is connected: the pseudo-terminal of the firmware tests

Of a ``console`` block each printed line must come out, in that order, numbers aside; a line
``…`` stands for anything.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

#: languages of fenced blocks; the first two are carried out
LANGUAGES = ("sh", "console", "yaml", "toml", "python", "c", "json", "text")

_FENCE = re.compile(r"^( *)```(\S*)\s*$")
_DIRECTIVE = re.compile(r"^\s*<!-- test: (.*?) -->\s*$")


@dataclass(frozen=True, slots=True)
class Step:
    """``kind``: a directive's name. ``text``: command or content."""

    kind: str
    text: str
    line: int
    expected: tuple[str, ...] = ()
    status: int = 0
    path: str = ""
    hidden: bool = False
    expected_line: int = 0  # of the first line of ``expected`` in the document


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    lines: tuple[str, ...]
    line: int


def blocks_and_directives(text: str) -> Iterator[Block | tuple[str, int]]:
    """Fenced blocks, dedented, and directives, in order."""
    fence: tuple[int, str, int] | None = None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _FENCE.match(line)
        if fence is not None:
            if match and not match[2]:
                yield Block(fence[1], tuple(inside), fence[2])
                fence, inside = None, []
            else:
                inside.append(line[fence[0] :] if line[: fence[0]].isspace() else line)
        elif match:
            fence = (len(match[1]), match[2], number)
        elif directive := _DIRECTIVE.match(line):
            yield directive[1], number
    assert fence is None, f"the block of line {fence and fence[2]} does not end"


def blocks(text: str) -> list[Block]:
    return [found for found in blocks_and_directives(text) if isinstance(found, Block)]


def steps(text: str) -> list[Step]:
    """What a document does, in order."""
    found: list[Step] = []
    path, status, kind = "", 0, ""
    for item in blocks_and_directives(text):
        if isinstance(item, Block):
            if path:
                found.append(Step(kind, "\n".join(item.lines) + "\n", item.line, path=path))
            elif item.language in ("sh", "console"):
                commands = list(_commands(item))
                commands[-1] = replace(commands[-1], status=status)
                found += commands
            path, status = "", 0
            continue
        word, _, rest = item[0].partition(" ")
        if word in ("file", "append"):
            kind, path = word, rest
        elif word == "status":
            status = int(rest)
        elif word == "run":
            found.append(Step("run", rest, item[1], hidden=True))
        else:
            assert item[0] in ("clone", "empty", "own store", "board"), item[0]
            found.append(Step(item[0], "", item[1]))
    return found


def commands(text: str) -> list[str]:
    """The commands a reader sees."""
    return [step.text for step in steps(text) if step.kind == "run" and not step.hidden]


def _commands(block: Block) -> Iterator[Step]:
    """The commands of a block with what each is said to print."""
    current: list[str] = []
    printed: list[str] = []
    start = block.line

    def step() -> Step:
        at = start + len(current) if printed else 0
        return Step("run", "\n".join(current), start, tuple(printed), expected_line=at)

    for number, line in enumerate(block.lines, block.line + 1):
        if block.language == "sh":
            if not current and (not line.strip() or line.lstrip().startswith("#")):
                continue
            start = start if current else number
            current.append(line)
            if not line.endswith("\\"):
                yield Step("run", "\n".join(current), start)
                current = []
        elif line.startswith("$ "):
            if current:
                yield step()
            current, printed, start = [line[2:]], [], number
        elif line.startswith("> ") and current and not printed:
            current.append(line[2:])
        else:
            assert current, f"line {number}: output before any command"
            printed.append(line)
    if current:
        yield step()


def masked(line: str) -> str:
    """A line of output without what differs from machine to machine and run to run."""
    line = re.sub(r"\b[0-9a-f]{8,}\b", "#", line)
    line = re.sub(r"\d[\d.]*", "#", line)
    return " ".join(line.split())


def matches(expected: tuple[str, ...], output: str) -> Iterator[tuple[int, str | None]]:
    """Which line of ``output`` each printed line stands for, by its place in ``expected``.

    None where it did not come out, in that order; nothing for lines that stand for anything.
    """
    lines = output.splitlines()
    shown = [masked(line) for line in lines]
    at = 0
    for place, wanted in enumerate(expected):
        if not wanted.strip() or wanted.strip() == "…":
            continue
        try:
            found = shown.index(masked(wanted), at)
        except ValueError:
            yield place, None
            continue
        at = found + 1
        yield place, lines[found].rstrip()


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """The first printed line that did not come out, where it should have."""
    return next(
        (expected[place] for place, line in matches(expected, output) if line is None), None
    )


def copy_repository(target: Path) -> None:
    """What a fresh clone holds, with the changes of this working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode:  # an unpacked archive
        ignored = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY, target, ignore=ignored)
        return
    for name in listed.stdout.decode().split("\0"):
        source = REPOSITORY / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


#: what stands in for a virtual environment: the programs of the one the tests run in
_PROGRAMS = {
    "python": "",
    "python3": "",
    "doit": "-m doit",
    "pytest": "-m pytest",
    "ruff": "-m ruff",
    "mypy": "-m mypy",
    "k210": "-c 'import sys; from k210tasks.cli import main; sys.exit(main())'",
}


def make_venv(folder: Path) -> None:
    """A stand-in for ``python3 -m venv FOLDER && FOLDER/bin/pip install k210tasks``."""
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name, arguments in _PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        program.chmod(0o755)
    (programs / "activate").write_text(f"export PATH={shlex.quote(str(programs))}:$PATH\n")


class Shell:
    """Carries out commands one by one; folder and variables live on from one to the next."""

    def __init__(self, folder: Path, store: Path, scratch: Path) -> None:
        self._state = scratch / "state.sh"
        self._seconds = 300
        make_venv(scratch / "venv")
        dropped = ("K210_STORE", "K210_LOCKED", "DOIT_", "CI", "PYTEST_", "VIRTUAL_ENV")
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(dropped)},
            "PATH": f"{scratch / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "K210_STORE": str(store),
            "REPOSITORY": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "TERM": "dumb",
            "COLUMNS": "80",
        }
        self._state.write_text(f"cd {shlex.quote(str(folder))}\n")

    def folder(self) -> Path:
        """Where the next command would run."""
        return Path(self.run("pwd -P")[1].strip())

    def set(self, name: str, value: str) -> None:
        with self._state.open("a") as file:
            file.write(f"export {name}={shlex.quote(value)}\n")

    def run(self, command: str) -> tuple[int, str]:
        """Status and output, both kinds in the order they came."""
        state = shlex.quote(str(self._state))
        script = (
            f'. {state}\ntrap \'s=$?; {{ echo cd "$(printf %q "$PWD")"; export -p; }} >{state};'
            f" exit $s' EXIT\n{command}\n"
        )
        ended = subprocess.run(
            ["bash", "-c", script],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self._seconds,
            check=False,
        )
        return ended.returncode, ended.stdout.decode("utf-8", "replace")
