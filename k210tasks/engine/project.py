"""One project for one ``doit``: where things are, and what is looked up once.

Picklable: a child process gets the places and settings and starts with empty caches.
"""

from __future__ import annotations

import functools
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k210tasks.engine import watch
from k210tasks.errors import visible
from k210tasks.samples.folder import Samples
from k210tasks.store import results as store_module
from k210tasks.store.files import Stamp, sweep_temporary
from k210tasks.store.history import History
from k210tasks.store.locks import sweep
from k210tasks.store.records import Pin, TaskStates
from k210tasks.toolchains.catalogue import ToolchainOverride


def say(text: str) -> None:
    """One message to the user, in one write, so that lines of several processes do not mix."""
    if not text.endswith("\n"):
        text += "\n"
    sys.stderr.write(visible(text))
    sys.stderr.flush()


class Project:
    """``base`` is prepended to a plan's paths; it is "" or ends in "/"."""

    def __init__(
        self,
        base: str = "",
        overrides: Iterable[ToolchainOverride] = (),
        run_id: str | None = None,
    ) -> None:
        self.base = base
        self.overrides: Mapping[str, ToolchainOverride] = {o.name: o for o in overrides}
        self.run_id = run_id or f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}"
        self.root = os.path.abspath(base or ".")
        hidden = os.path.join(self.root, ".k210")
        self.states = TaskStates(os.path.join(hidden, "state"), say)
        self.history = History(os.path.join(hidden, "history.jsonl"))
        self.stamps_folder = os.path.join(hidden, "stamps")
        self.locks_folder = os.path.join(hidden, "locks")
        self.work_folder = os.path.join(hidden, "tmp")
        self.store = store_module.Store(store_module.place(self.root))
        #: folder -> its listing and the stamps of the files looked at, in this process
        self.listings: dict[str, Samples] = {}
        self.stamps: dict[str, dict[str, Stamp]] = {}
        #: stamps of outputs found in place; forgotten as soon as any task is to run
        self.seen: dict[str, Stamp] = {}
        #: targets of the task just found up to date: doit asks once more whether they exist
        self.found: Sequence[str] = ()
        #: toolchain -> whether a task that names it will really compute; absent: nobody asked
        self.demand: dict[str, bool] = {}
        self._pins: dict[str, Pin] = {}
        self._swept = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (_arrived, (self.base, tuple(self.overrides.values()), self.run_id))

    def path(self, relative: str) -> str:
        """A plan's path, as this process can open it and as messages show it."""
        if not self.base or os.path.isabs(relative):
            return relative
        return self.base + relative

    @property
    def lock_path(self) -> str:
        """``k210.lock`` beside models.yaml: hashes of what was downloaded."""
        return self.base + "k210.lock"

    def pin(self, tool: str, *, anew: bool = False) -> Pin:
        """What identifies a toolchain in keys. Raises the toolchain's own errors."""
        if anew or tool not in self._pins:
            self._pins[tool] = self.toolchain(tool).pin()
        return self._pins[tool]

    def toolchain(self, tool: str) -> Any:
        """The toolchain of that name, with the project's override."""
        from pathlib import Path

        from k210tasks import toolchains

        return toolchains.get(tool, self.overrides.get(tool), Path(self.lock_path))

    def sweep(self) -> None:
        """Once a process: remove what killed processes left behind."""
        if not self._swept:
            self._swept = True
            sweep(self.work_folder)
            hidden = os.path.dirname(self.work_folder)
            report = self.path("build/report")
            for folder in (
                hidden,
                self.states.folder,
                self.stamps_folder,
                os.path.join(hidden, "manifest"),
                report,
                os.path.join(report, "models"),
            ):
                sweep_temporary(folder)
            self.store.sweep()

    def forget_looks(self, folder: str) -> None:
        """Look at a folder afresh next time."""
        self.listings.pop(folder, None)
        self.stamps.pop(folder, None)


def _arrived(base: str, overrides: Iterable[ToolchainOverride], run_id: str) -> Project:
    """A project as another process is given it: the first of ours that a spawned child runs."""
    watch.arrived()
    return Project(base, overrides, run_id)


@functools.cache
def library_version(distribution: str) -> str:
    """The installed version of a distribution; "none" where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"
