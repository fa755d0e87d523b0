"""docs/verbs.md says what the parser says, of every verb."""

from __future__ import annotations

import subprocess
import sys

from k210tasks.cli import VERBS, build_parser, verbs_page


def test_the_reference_is_current() -> None:
    fresh = "run: python -m k210tasks.cli.verbs_page"
    assert verbs_page.PATH.read_text("utf-8") == verbs_page.document(), fresh


def test_every_verb_and_argument_is_in_it() -> None:
    text = verbs_page.document()
    for verb, parser in verbs_page._verbs_of(build_parser()).items():
        assert f"\n## {verb}\n" in text
        assert f"```sh\nk210 {verb}" in text.partition(f"\n## {verb}\n")[2]
        for action in parser._actions:
            assert all(
                option in text for option in action.option_strings if option not in "-h--help"
            )
    assert list(VERBS) == sorted(VERBS)


def test_help_shows_the_example() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from k210tasks.cli import main; main()", "why", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.endswith("example:\n  k210 why nn_xo\n")
