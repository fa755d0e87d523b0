"""Build, prove and pack neural-network models for the Kendryte K210, as doit tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k210tasks.version import __version__

if TYPE_CHECKING:
    from k210tasks.graph.tasks import Tasks

__all__ = ["__version__", "doit_config", "tasks_from"]


def doit_config(path: str = "models.yaml", prefix: str = "") -> dict[str, Any]:
    """The DOIT_CONFIG for a dodo.py; see :func:`k210tasks.graph.tasks.doit_config`."""
    from k210tasks.graph import tasks as graph

    return graph.doit_config(path, prefix)


def tasks_from(path: str = "models.yaml", prefix: str = "") -> Tasks:
    """The tasks of a models.yaml: keep the result in a variable of dodo.py.

    ``prefix`` stands before every task's name, where one of the user's tasks has it already.
    """
    from k210tasks.graph import tasks as graph

    return graph.Tasks(path, prefix)
