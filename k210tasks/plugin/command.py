"""``doit k210 VERB``: the name of a command is forbidden to tasks, so there is one."""

from __future__ import annotations

from doit.cmd_base import Command


class K210Command(Command):
    """``doit k210 VERB …`` is ``k210 VERB …``."""

    name = "k210"
    doc_purpose = "build, explain and inspect models for the Kendryte K210"
    doc_usage = "VERB [ARGUMENT...]"
    doc_description = "Type `doit k210 --help` for the verbs."

    def parse_execute(self, in_args: list[str]) -> int:
        """doit hands over what follows the command's name; its parser has no part in it."""
        from k210tasks.cli import main

        try:
            return main(in_args)
        except SystemExit as end:  # argparse, after --help or a usage error
            return end.code if isinstance(end.code, int) else 1
