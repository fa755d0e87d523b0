"""Calling a step's function: its job, its log, and what came of it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from k210tasks.engine import snapshot
from k210tasks.engine.decide import Decision
from k210tasks.engine.failures import (
    FULL,
    CannotWrite,
    DiskFull,
    InputChanged,
    OutputNotWritten,
    StepCrashed,
)
from k210tasks.engine.job import Folder, Job
from k210tasks.engine.pinning import pinned
from k210tasks.engine.placing import temporary
from k210tasks.engine.plan import Judge, SamplesInput, StepPlan
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.progress import Progress
from k210tasks.store.files import hash_file
from k210tasks.store.locks import WorkFolder


def open_log(project: Project, plan: StepPlan, mode: str) -> io.TextIOWrapper:
    """The full log file of a step; each line reaches the disk as it is written."""
    path = project.path(plan.log)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        raw = open(path, f"{mode}b")  # noqa: SIM115 (closed with its text wrapper)
        return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
    except OSError as error:
        raise CannotWrite(path, error) from error


def job_of(
    project: Project,
    plan: StepPlan,
    half: StepPlan | Judge,
    decision: Decision,
    work: WorkFolder,
    log: TextIO,
    say: Callable[[str], None],
    progress: Progress,
) -> Job:
    """What the function of the plan, or of its judge, is given.

    A judge also gets what the plan wrote.
    """
    inputs: dict[str, Path | Folder] = {}
    if half is not plan:
        inputs = {role: Path(project.path(path)) for role, path in plan.outputs.items()}
    for role, source in plan.inputs.items():
        path = Path(project.path(source.path))
        found = decision.inputs[role]["files"]
        try:
            path = Path(pinned(project, source, found, os.path.join(work.path, "inputs", role)))
        except (OSError, K210Error):
            raise InputChanged(plan.task, source.path) from None
        if isinstance(source, SamplesInput):
            inputs[role] = Folder.of(path, tuple(found), decision.ignored.get(role, 0))
        else:
            inputs[role] = path
    outputs = half.outputs.items()
    return Job(
        name=plan.task,
        model=plan.subject,
        settings=half.settings,
        inputs=inputs,
        outputs={role: Path(temporary(work, role, final, "")) for role, final in outputs},
        log=log,
        log_path=Path(project.path(plan.log)),
        progress=progress,
        root=Path(project.base or "."),
        toolchains=project.overrides,
        lock_path=Path(project.lock_path),
        say=say,
    )


def call(project: Project, plan: StepPlan, function: str, job: Job, log: TextIO) -> Any:
    """Import and call ``module:function``; whatever it raises comes as a K210Error."""
    module, _, name = function.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(job)
    except K210Error as error:
        error.args = (_as_named(project, plan, job, str(error)), *error.args[1:])
        with contextlib.suppress(OSError, ValueError):
            log.write(f"failed: {error}\n")
        raise
    except Exception as error:
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc(file=log)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(plan.task, project.root) from error
        raise StepCrashed(plan.task, error, project.path(plan.log)) from error


def _as_named(project: Project, plan: StepPlan, job: Job, text: str) -> str:
    """``text`` with the user's own paths for those of inputs that were pinned."""
    for role, source in plan.inputs.items():
        given, named = job.inputs[role], Path(project.path(source.path))
        if isinstance(given, Folder):
            if given.path.name != named.name:  # of one file its folder is told
                named = named.parent
            given = given.path
        if given != named:
            text = text.replace(str(given), str(named))
    return text


def collect(
    project: Project, plan: StepPlan, outputs: Mapping[str, str], job: Job
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Hashes and temporary places of what the body wrote, by role and relative path."""
    contents: dict[str, dict[str, str]] = {}
    places: dict[str, dict[str, str]] = {}
    for role, shown in outputs.items():
        path = str(job.outputs[role])
        files = {"": path}
        if shown.endswith("/"):
            files = {
                os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/"): (
                    os.path.join(folder, name)
                )
                for folder, _, names in os.walk(path)
                for name in names
            }
        if not files or not all(os.path.isfile(p) for p in files.values()):
            raise OutputNotWritten(plan.task, shown, project.path(plan.log))
        places[role] = dict(sorted(files.items()))
        contents[role] = {rel: hash_file(p) for rel, p in places[role].items()}
    return contents, places


def check_inputs(project: Project, plan: StepPlan, decision: Decision) -> None:
    """The result is worth nothing if an input changed while it was computed."""
    for role, source in plan.inputs.items():
        files = decision.inputs[role]["files"]
        try:
            fresh, changed = snapshot.look_again(project, source, files)
        except (OSError, K210Error):
            raise InputChanged(plan.task, source.path) from None
        if changed is not None:
            shown = f"{source.path}/{changed}" if changed else source.path
            raise InputChanged(plan.task, shown)
        decision.inputs[role]["files"] = fresh
