"""doit's entry points: one command, ``doit k210 VERB``, and one loader.

The name of a command is forbidden to tasks in every repository of the environment, so
there is one. The loader serves projects without a dodo.py:
``[tool.doit] loader = "k210"`` in pyproject.toml.
"""

from __future__ import annotations

from typing import Any

from doit.cmd_base import Command, NamespaceTaskLoader


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


class K210Loader(NamespaceTaskLoader):
    """The tasks of models.yaml in the current folder, as if a dodo.py had named it."""

    cmd_options = (
        {
            "section": "task loader",
            "name": "manifest",
            "short": "f",
            "long": "file",
            "type": str,
            "default": "models.yaml",
            "env_var": "DOIT_FILE",
            "help": "load tasks from this models.yaml [default: %(default)s]",
        },
    )

    def setup(self, opt_values: Any) -> None:
        from k210tasks.graph import tasks as graph

        path = opt_values["manifest"]
        self.namespace = {
            "DOIT_CONFIG": graph.doit_config(path),
            "models": graph.Tasks(path),
        }
