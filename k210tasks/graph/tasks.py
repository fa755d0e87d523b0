"""models.yaml as doit tasks: the only module that knows doit's task dictionaries.

doit orders the tasks and reports; whether one runs is decided in ``graph_uptodate``, and what
it does is in ``graph_actions``. Intermediate files are ordered by ``task_dep``; only what comes
from outside the chain is a ``file_dep``, so that a user's own task may make it.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from doit.exceptions import InvalidDodoFile

from k210tasks.engine import watch
from k210tasks.engine.opening import open_project
from k210tasks.engine.plan import FileInput, StepPlan
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.graph.actions import clean, clean_report, execute, install, settle, write_report
from k210tasks.graph.uptodate import Installed, ReportFresh, StampChecker, UpToDate
from k210tasks.manifest.model import Manifest
from k210tasks.steps import report
from k210tasks.steps.chain import Chain, chain_of

#: doit's own forms: a task, and the DOIT_CONFIG of a dodo.py
TaskDict = dict[str, Any]
DoitConfig = dict[str, Any]

#: the groups of ``doit list``, in the order of the chain
GROUPS = {
    "toolchain": "vendor tools, fetched into the user's cache when a task needs them",
    "convert": "source graphs → workspace/MODEL.tflite",
    "calibrate": "images → build/MODEL/calibration.npz",
    "kmodel": ".tflite + calibration → workspace/MODEL.kmodel",
    "verify": "the kmodel against the float model → build/MODEL/verify.json",
    "model": "the whole chain of a model",
    "vectors": "raw inputs and expected outputs → build/MODEL/vectors/",
    "firmware": "verified models and binaries → build/IMAGE.kfpkg",
}

REPORT = "what there is to see, of failed models too → build/report/index.html"

#: What ``doit_config`` has read and ``create_doit_tasks`` is about to use: doit wants its settings
#: and the tasks from two variables of dodo.py, and models.yaml is read once for both.
_loaded: dict[str, tuple[Project, Manifest]] = {}


# -- what a dodo.py calls ------------------------------------------------------------------


class Tasks:
    """The tasks of one models.yaml, for a dodo.py: doit calls ``create_doit_tasks``."""

    def __init__(self, path: str = "models.yaml", prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix

    def create_doit_tasks(self) -> Iterator[TaskDict]:
        """Tasks of a models.yaml"""  # shown by doit for an empty file
        yield from tasks_of(self.path, self.prefix, self.chain)

    def chain(self, manifest: Manifest) -> Chain:
        """The plans the tasks are made of."""
        return chain_of(manifest, self.prefix)


def doit_config(path: str = "models.yaml", prefix: str = "") -> DoitConfig:
    """The DOIT_CONFIG of a project: default tasks, going on past a failure, our bookkeeping.

    Raises doit's InvalidDodoFile with everything that is wrong in models.yaml.
    """
    project, manifest = _loaded[os.path.abspath(path)] = _load(path)
    return {
        # The ends of the chains: of a group, doit would report the failure once more.
        "default_tasks": [
            *(f"{prefix}verify:{model.name}" for model in manifest.models),
            *(f"{prefix}firmware:{image.name}" for image in manifest.firmware),
            f"{prefix}report",
        ],
        "continue": True,
        "backend": "k210",
        "dep_file": os.path.join(".k210", "doit.json"),
        "check_file_uptodate": functools.partial(StampChecker, project),
    }


def _load(path: str) -> tuple[Project, Manifest]:
    try:
        return open_project(path)
    except K210Error as error:
        raise InvalidDodoFile(str(error)) from None


# -- task dictionaries ---------------------------------------------------------------------


def tasks_of(path: str, prefix: str, chain_from: Callable[[Manifest], Chain]) -> Iterator[TaskDict]:
    """Every task of a models.yaml, as doit wants them."""
    full = os.path.abspath(path)
    project, manifest = _loaded.pop(full) if full in _loaded else _load(path)
    watch.together()
    # Tens of thousands of objects that live to the end: nothing for the collector to find.
    collecting = gc.isenabled()
    gc.disable()
    try:
        chain = chain_from(manifest)
        yield from _tasks(project, chain, prefix)
        yield from _report_tasks(project, manifest, chain, prefix)
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


def _tasks(project: Project, chain: Chain, prefix: str) -> Iterator[TaskDict]:
    yield from _groups(chain, prefix)
    yield from _toolchain_tasks(project, prefix)
    made = {path for plan in chain.plans() for path in plan.outputs.values()}
    for plan in chain.plans():
        if plan.even_if_failed:
            yield _settled_task(plan.task, plan.after)
        yield step_task(project, plan, made, prefix)
    for name, plans in chain.models.items():
        yield {
            "basename": f"{prefix}model",
            "name": name,
            "actions": None,
            "task_dep": [plan.task for plan in plans],
            "doc": " → ".join(plan.step for plan in plans),
        }


def _groups(chain: Chain, prefix: str) -> Iterator[TaskDict]:
    used = {plan.step for plan in chain.plans()} | {"toolchain"}
    if chain.models:
        used.add("model")
    for name, doc in GROUPS.items():
        if name in used:
            yield {"basename": f"{prefix}{name}", "name": None, "doc": doc}


def step_task(project: Project, plan: StepPlan, made: Iterable[str], prefix: str) -> TaskDict:
    """The task of one step. ``made``: paths our own tasks write."""
    outputs = [*plan.outputs.values(), *(plan.judge.outputs.values() if plan.judge else ())]
    after = [_settled(plan.task)] if plan.even_if_failed else plan.after
    task: TaskDict = {
        "basename": plan.task.rpartition(":")[0],
        "name": plan.subject,
        "doc": plan.doc,
        "actions": [(execute, [project, plan])],
        "uptodate": [UpToDate(project, plan)],
        "task_dep": [*plan.made_by, *after],
        "targets": [project.path(path.rstrip("/")) for path in outputs],
        "clean": [(clean, [project, plan])],
        # What a step says goes straight to stderr: captured, the lines of threads would mix.
        "io": {"capture": False},
        "meta": {"k210": {"step": plan.step, "subject": plan.subject}},
    }
    # A file that a task was to make and did not is better explained by us than by doit.
    if not plan.made_by:
        task["file_dep"] = [
            project.path(source.path)
            for source in plan.inputs.values()
            if isinstance(source, FileInput) and source.path not in made
        ]
    # A failed setup task fails the run; an optional step fetches for itself, or is skipped.
    if plan.tools and not plan.optional:
        task["setup"] = [f"{prefix}toolchain:{tool}" for tool in plan.tools]
    return task


def _settled(task: str) -> str:
    return f"_before-{task.replace(':', '-')}"


def _settled_task(task: str, after: Iterable[str]) -> TaskDict:
    """A hidden task that ends well when all it waits for has ended, well or not.

    A failed ``task_dep`` keeps a task from running, a failed ``setup`` does not; but what is
    named in ``setup`` runs only after the task's own ``uptodate`` was asked, hence the go-between.
    """
    return {
        "basename": _settled(task),
        "actions": [settle],
        "uptodate": [False],
        "setup": list(after),
        "doc": f"wait for what {task} reads",
    }


def _report_tasks(
    project: Project, manifest: Manifest, chain: Chain, prefix: str
) -> Iterator[TaskDict]:
    """The report, after every step whose result it shows, good or bad."""
    plans = [plan for plan in chain.plans() if plan.step != "vectors"]
    task = f"{prefix}report"
    yield _settled_task(task, [p.task for p in plans if p.step in ("verify", "firmware")])
    yield {
        "basename": task,
        "doc": REPORT,
        "actions": [(write_report, [project, manifest, plans])],
        "uptodate": [ReportFresh(project, manifest, plans)],
        "task_dep": [_settled(task)],
        "targets": [project.path(report.INDEX)],
        "clean": [(clean_report, [project])],
        "io": {"capture": False},
        "meta": {"k210": {"step": "report", "subject": ""}},
    }


def _toolchain_tasks(project: Project, prefix: str) -> Iterator[TaskDict]:
    from k210tasks.toolchains.catalogue import TOOLS

    for name in sorted(TOOLS):
        yield {
            "basename": f"{prefix}toolchain",
            "name": name,
            "doc": TOOLS[name].title,
            "actions": [(install, [project, name])],
            "uptodate": [Installed(project, name)],
            "io": {"capture": False},
        }
