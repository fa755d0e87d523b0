"""What PyYAML says of text that is no YAML, in words that say what to do."""

from __future__ import annotations

import yaml

from k210tasks.manifest.diagnostics import Mark, Problem, lines_of

#: What PyYAML says, beginning of -> what we say, and what to do.
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    (
        "mapping values are not allowed",
        "a second colon on this line, or a wrong indentation",
        'put text with ": " in it in quotes; indent the keys of one map equally',
    ),
    (
        "did not find expected key",
        "a key was expected here",
        "indent the keys of one map equally, and end text in quotes at its quote",
    ),
    (
        "did not find expected '-' indicator",
        "an entry of the list was expected here",
        "begin each entry with '- ', equally indented",
    ),
    (
        "did not find expected ',' or ']'",
        "the list is not closed",
        "put ',' between its entries and ']' at its end",
    ),
    (
        "did not find expected ',' or '}'",
        "the map is not closed",
        "put ',' between its entries and '}' at its end",
    ),
    (
        "expected ',' or ']'",
        "the list is not closed",
        "put ',' between its entries and ']' at its end",
    ),
    (
        "expected ',' or '}'",
        "the map is not closed",
        "put ',' between its entries and '}' at its end",
    ),
    (
        "expected <block end>",
        "a key was expected here",
        "indent the keys of one map equally, and end text in quotes at its quote",
    ),
    ("could not find expected ':'", "a key without a colon", "write KEY: VALUE"),
    ("found unexpected end of stream", "text in quotes does not end", "add the closing quote"),
)


def explain(error: yaml.YAMLError, text: str) -> Problem:
    """One sentence for what the YAML parser refused."""
    mark = getattr(error, "problem_mark", None)
    raw = str(getattr(error, "problem", None) or error).splitlines()[0]
    lines = lines_of(text)
    if mark is None:
        return Problem(f"not valid YAML: {raw}")
    line, column = mark.line, mark.column
    marks: list[Mark] = []
    context = getattr(error, "context_mark", None)
    if line >= len(lines) or (line == len(lines) - 1 and not lines[line].strip()):
        # The text ended too early: what began and did not end is the better place to look.
        if context is not None:
            line, column, context = context.line, context.column, None
        else:
            line, column = max(0, len(lines) - 1), 0
    marks.append(Mark(line + 1, column + 1, column + 2))
    if context is not None and context.line != line:
        marks.append(Mark(context.line + 1, context.column + 1, context.column + 2, "began here"))
    found = lines[line][column : column + 1] if line < len(lines) else ""
    if "cannot start any token" in raw:
        if found == "\t":
            return Problem("not valid YAML: a tab", tuple(marks), "indent with spaces")
        return Problem(
            f"not valid YAML: text cannot begin with {found}", tuple(marks), "put it in quotes"
        )
    for begin, message, allowed in _SYNTAX:
        if raw.startswith(begin):
            return Problem(f"not valid YAML: {message}", tuple(marks), allowed)
    return Problem(f"not valid YAML: {raw}", tuple(marks))
