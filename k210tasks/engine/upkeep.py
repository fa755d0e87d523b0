"""Forgetting what is known of a step, and clearing the store of what nobody uses."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection

from k210tasks.engine.decide import decide, key_of
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project
from k210tasks.engine.runner import lock_name
from k210tasks.errors import K210Error
from k210tasks.store.checked import unchecked
from k210tasks.store.locks import lock, sweep
from k210tasks.store.records import Record, outputs_of
from k210tasks.store.results import Result


def forget(project: Project, plan: StepPlan) -> int:
    """Drop the record of a step and its results of then and now; returns how many results.

    That its outputs are ours stays known, so that they may be replaced.
    """
    with lock(os.path.join(project.locks_folder, f"{lock_name(plan.id)}.lock")):
        record = project.states.load(plan.id)
        keys = set()
        if record is not None and "key" in record:
            keys.add(record["key"])
        # Where inputs or tools cannot be looked at there is no key of today.
        with contextlib.suppress(K210Error):
            decision = decide(project, plan, record)
            if decision.trouble is None:
                keys.add(key_of(plan, decision.inputs, decision.tools, decision.libraries))
        outputs = outputs_of(record)
        project.states.save(plan.id, {"outcome": "forgotten", "outputs": outputs})
    return sum(project.store.drop(key) for key in keys)


def collect(
    project: Project, tasks: Collection[str], *, dry_run: bool = False
) -> tuple[int, int, int]:
    """Remove what no task of ``tasks`` (nor any other with outputs in place) goes back to.

    In a store that several projects share, only what this project put there goes, and what
    was put there by projects that exist no more. Returns (results, files, bytes).
    """
    used: set[str | None] = set()

    def look() -> None:
        for record in list(project.states.all()):
            if str(record["task"]) in tasks or _in_place(project, record):
                used.add(record.get("key"))

    for record in list(project.states.all()):
        task = str(record["task"])
        kept = task in tasks or task.startswith("toolchain:") or _in_place(project, record)
        if not kept and not dry_run:
            project.states.remove(task)
    if not dry_run:
        sweep(project.work_folder)
        _forget_folders(project)

    def keep(result: Result) -> bool:
        owner = result.project or project.root
        if owner != project.root and os.path.isdir(owner):
            return True
        return result.key in used

    return project.store.collect(keep, dry_run=dry_run, look=look)


def _in_place(project: Project, record: Record) -> bool:
    return any(os.path.exists(project.path(place["path"])) for place in outputs_of(record).values())


def _forget_folders(project: Project) -> None:
    """Stamp caches of folders that are no more."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(project.stamps_folder):
            path = os.path.join(project.stamps_folder, name)
            with contextlib.suppress(OSError, ValueError):
                with open(path, "rb") as file:
                    folder = json.loads(unchecked(file.read()))["folder"]
                if not os.path.isdir(project.path(folder)):
                    os.unlink(path)
