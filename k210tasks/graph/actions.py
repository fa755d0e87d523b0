"""What doit calls to carry a task out or to clean up after it.

Functions of modules, not closures, so that every start method of multiprocessing can pickle
them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from doit.exceptions import TaskFailed

from k210tasks.engine import watch
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project, say
from k210tasks.engine.snapshot import place_of
from k210tasks.errors import K210Error
from k210tasks.manifest.model import Manifest
from k210tasks.steps import report
from k210tasks.store.records import written


def execute(project: Project, plan: StepPlan, task: Any) -> TaskFailed | None:
    """Carry out a step. Its failure is told here, once, and only counted by doit."""
    from k210tasks.engine.runner import Runner
    from k210tasks.progress import shown

    watch.in_task()
    quiet = task.verbosity == 0
    try:
        with shown(plan.task, quiet=quiet) as progress:
            Runner(project, progress.tell, progress).run(plan)
    except (K210Error, OSError) as error:
        return failed(project, plan.task, error, plan.log)
    return None


def settle() -> None:
    """Nothing to do but to have waited."""


def write_report(
    project: Project, manifest: Manifest, plans: list[StepPlan], task: Any
) -> TaskFailed | None:
    """Write the pages, whatever results there are."""
    watch.in_task()
    try:
        report.write(project, manifest, plans)
    except (K210Error, OSError) as error:
        return failed(project, task.name, error)
    return None


def clean_report(project: Project, dryrun: bool) -> None:
    """Remove the pages and their folders."""
    paths = [project.path(page) for page in report.pages(project)]
    for path in paths:
        if os.path.isfile(path):
            print(f"report - removing file '{path}'")
            if not dryrun:
                os.remove(path)
    for folder in sorted({os.path.dirname(path) for path in paths}, reverse=True):
        if not dryrun:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def install(project: Project, tool: str, task: Any) -> TaskFailed | None:
    """Fetch and prove a toolchain, or note for its users in this run that it cannot be had."""
    from k210tasks.progress import shown
    from k210tasks.toolchains.cache import cache_root

    watch.in_task()
    state = f"toolchain:{tool}"
    try:
        with shown(state, quiet=task.verbosity == 0) as progress:
            project.toolchain(tool).install(progress.tell, progress)
    except (K210Error, OSError) as error:
        with contextlib.suppress(OSError):  # a project on a read-only disk
            project.states.save(state, {"outcome": "failed", "run": project.run_id})
        return failed(project, task.name, error, folder=str(cache_root()))
    project.states.remove(state)
    return None


def failed(
    project: Project, task: str, error: K210Error | OSError, log: str = "", folder: str = ""
) -> TaskFailed:
    """Tell a failure on stderr, with the log's path, and keep doit from telling it again.

    ``folder``: where was written, if not in the project.
    """
    if isinstance(error, OSError):
        from k210tasks.engine.failures import told

        error = told(task, error, folder or project.root)
    text = str(error)
    if not text.startswith(f"{task}: "):
        text = f"{task}: {text}"
    if log:
        path = project.path(log)
        if path not in text and os.path.exists(path):
            text += f"\nfull log: {path}"
    say(f"!! {text}")
    return TaskFailed(text, report=False)


def clean(project: Project, plan: StepPlan, dryrun: bool) -> None:
    """Remove what the step wrote, as far as a record says so; its result stays in the store."""
    record = project.states.load(plan.id)
    files = [place_of(project, *ours) for ours in sorted(written(record))]
    if files:
        files.append(project.path(plan.log))
    folders = {os.path.dirname(file) for file in files}
    for file in files:
        if os.path.isfile(file):
            print(f"{plan.task} - removing file '{file}'")
            if not dryrun:
                os.remove(file)
    build = project.path(f"build/{plan.subject}")
    for folder in sorted(folders, reverse=True):
        if f"{folder}/".startswith((f"{build}/", f"{build}.firmware/")) and not dryrun:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
