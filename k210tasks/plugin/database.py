"""doit's own bookkeeping in one JSON file that can neither be torn nor stand in the way.

doit's stock backends raise a traceback on a file of another Python's dbm, write their file
in place, and forget the other's entries when two runs end one after the other. What our
tasks need to remember is in ``.k210/state``; this file only serves the user's own tasks.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from k210tasks.store.files import write_atomically
from k210tasks.store.locks import lock


class Database:
    """A doit backend; see ``doit.dependency.JsonDB`` for the meaning of the methods."""

    desc = "JSON, replaced atomically; an unreadable file is discarded"

    def __init__(self, name: str, codec: Any, *, module_name: str | None = None) -> None:
        self.name = name
        self.codec = codec
        self._tasks = self._load(complain=True)
        self._changed: set[str] = set()
        self._all_removed = False

    def _load(self, *, complain: bool) -> dict[str, dict[str, Any]]:
        try:
            with open(self.name, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._complain(complain, error.strerror or str(error))
            return {}
        try:
            tasks = self.codec.decode(data.decode("utf-8"))
        except (ValueError, RecursionError):
            self._complain(complain, "it is not JSON; another program or Python wrote it")
            return {}
        if not isinstance(tasks, dict) or not all(isinstance(t, dict) for t in tasks.values()):
            self._complain(complain, "it does not hold doit's bookkeeping")
            return {}
        return tasks

    def _complain(self, aloud: bool, why: str) -> None:
        if aloud:
            sys.stderr.write(f"{self.name} is unreadable and discarded: {why}\n")

    def dump(self) -> None:
        """Write what this run changed into what is on disk by now."""
        if not self._changed and not self._all_removed:
            return
        folder = os.path.dirname(os.path.abspath(self.name))
        try:
            os.makedirs(folder, exist_ok=True)
            with lock(f"{self.name}.lock"):
                tasks: dict[str, Mapping[str, Any]] = {}
                if not self._all_removed:
                    tasks.update(self._load(complain=False))
                for task in self._changed:
                    if task in self._tasks:
                        tasks[task] = self._tasks[task]
                    else:
                        tasks.pop(task, None)
                write_atomically(self.name, self.codec.encode(tasks).encode("utf-8"))
        except OSError as error:
            sys.stderr.write(f"{self.name} cannot be written: {error.strerror or error}\n")
        self._changed.clear()
        self._all_removed = False

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        value = json.loads(json.dumps(value))
        known = self._tasks.setdefault(task_id, {})
        if dependency not in known or known[dependency] != value:
            known[dependency] = value
            self._changed.add(task_id)

    def get(self, task_id: str, dependency: str) -> Any:
        task = self._tasks.get(task_id)
        return None if task is None else task.get(dependency)

    def in_(self, task_id: str) -> bool:
        return task_id in self._tasks

    def remove(self, task_id: str) -> None:
        if self._tasks.pop(task_id, None) is not None:
            self._changed.add(task_id)

    def remove_all(self) -> None:
        self._tasks = {}
        self._changed.clear()
        self._all_removed = True
