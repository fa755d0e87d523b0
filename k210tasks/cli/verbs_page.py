"""The verbs for readers: docs/verbs.md, from the command line's own parser.

``python -m k210tasks.cli.verbs_page`` writes it; a test says when it is old.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from k210tasks.cli import VERBS, build_parser

PATH = Path(__file__).resolve().parents[2] / "docs" / "verbs.md"

_HEAD = """\
# Verbs of `k210`

<!-- Written by `python -m k210tasks.cli.verbs_page`; do not edit. -->
<!-- test: clone -->
<!-- test: run doit firmware:demo -->
<!-- test: board -->

`k210 VERB` is also `doit k210 VERB`. `k210 VERB --help` shows what stands here.
Exit status: 0 done, 1 refused or failed, with a sentence on standard error, 2 not a command
line of `k210`, 130 interrupted, 141 where nobody reads on (`k210 … | head`).

| verb | |
|---|---|
"""


def document() -> str:
    """The text of docs/verbs.md."""
    verbs = VERBS
    parsers = _verbs_of(build_parser())
    parts = [_HEAD + "".join(f"| [`{v}`](#{v}) | {text} |\n" for v, text in verbs.items())]
    for verb, text in verbs.items():
        parts.append(f"\n## {verb}\n\n{text[0].upper()}{text[1:]}.\n\n")
        parts.append("".join(_arguments(parsers[verb])))
        example = str(parsers[verb].epilog or "").partition("\n  ")[2].replace("\n  ", "\n")
        parts.append(f"```sh\n{example}\n```\n")
    return "".join(parts)


def _verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise LookupError("the parser has no verbs")


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table of the arguments, group after group."""
    rows = []
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
        usual = group.title in ("positional arguments", "options", "optional arguments")
        if actions and not usual:
            rows.append(f"| | *{_cell(group.title or '')}* |\n")
        rows += [f"| `{_cell(_spelled(a))}` | {_cell(_meant(a))} |\n" for a in actions]
    if rows:
        yield "| argument | meaning |\n|---|---|\n"
        yield from rows
        yield "\n"


def _spelled(action: argparse.Action) -> str:
    """``-o OUT, --output OUT`` or ``FILE…``."""
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if isinstance(name, tuple):
        name = " ".join(name)
    if action.choices is not None and action.metavar is None:
        name = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    if not action.option_strings:
        return f"{name}…" if action.nargs in ("*", "+") else name
    takes = "" if action.nargs == 0 else f" {name}"
    return ", ".join(f"{option}{takes}" for option in action.option_strings)


def _meant(action: argparse.Action) -> str:
    facts = {**vars(action), "prog": "k210"}
    return (action.help or "") % facts if action.help else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(document(), "utf-8")
