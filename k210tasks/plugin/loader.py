"""The loader for projects without a dodo.py: ``[tool.doit] loader = "k210"`` in pyproject.toml."""

from __future__ import annotations

from typing import Any

from doit.cmd_base import NamespaceTaskLoader


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
