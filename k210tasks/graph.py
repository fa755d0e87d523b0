"""models.yaml as doit tasks: the only module that knows doit's task dictionaries.

Whether a task runs is decided by one picklable ``uptodate`` object from our own records;
doit orders the tasks and reports. Intermediate files are ordered by ``task_dep``; only what
comes from outside the chain is a ``file_dep``, so that a user's own task may make it.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from doit.dependency import FileChangedChecker
from doit.exceptions import InvalidDodoFile, TaskFailed

from k210tasks.errors import K210Error
from k210tasks.manifest.model import Manifest
from k210tasks.state import Record
from k210tasks.steps import report, watch
from k210tasks.steps.chain import Chain, chain_of
from k210tasks.steps.current import skipped_before, unchanged
from k210tasks.steps.opening import open_project
from k210tasks.steps.plan import FileInput, StepPlan
from k210tasks.steps.project import Project, say
from k210tasks.store_io import hash_stamped, stamp_of

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

#: what ``doit_config`` has read and ``create_doit_tasks`` is about to use
_loaded: dict[str, tuple[Project, Manifest]] = {}


# -- what a dodo.py calls ------------------------------------------------------------------


class Tasks:
    """The tasks of one models.yaml, for a dodo.py: doit calls ``create_doit_tasks``."""

    def __init__(self, path: str = "models.yaml", prefix: str = "") -> None:
        self.path = path
        self.prefix = prefix

    def create_doit_tasks(self) -> Iterator[dict[str, Any]]:
        """Tasks of a models.yaml"""  # shown by doit for an empty file
        yield from tasks_of(self.path, self.prefix, self.chain)

    def chain(self, manifest: Manifest) -> Chain:
        """The plans the tasks are made of."""
        return chain_of(manifest, self.prefix)


def doit_config(path: str = "models.yaml", prefix: str = "") -> dict[str, Any]:
    """The DOIT_CONFIG of a project: default tasks, going on past a failure, our bookkeeping.

    Raises doit's InvalidDodoFile with everything that is wrong in models.yaml.
    """
    _, manifest = _loaded[os.path.abspath(path)] = _load(path)
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
        "check_file_uptodate": StampChecker,
    }


def _load(path: str) -> tuple[Project, Manifest]:
    try:
        return open_project(path)
    except K210Error as error:
        raise InvalidDodoFile(str(error)) from None


# -- task dictionaries ---------------------------------------------------------------------


def tasks_of(
    path: str, prefix: str, chain_from: Callable[[Manifest], Chain]
) -> Iterator[dict[str, Any]]:
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


def _tasks(project: Project, chain: Chain, prefix: str) -> Iterator[dict[str, Any]]:
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


def _groups(chain: Chain, prefix: str) -> Iterator[dict[str, Any]]:
    used = {plan.step for plan in chain.plans()} | {"toolchain"}
    if chain.models:
        used.add("model")
    for name, doc in GROUPS.items():
        if name in used:
            yield {"basename": f"{prefix}{name}", "name": None, "doc": doc}


def step_task(project: Project, plan: StepPlan, made: Iterable[str], prefix: str) -> dict[str, Any]:
    """The task of one step. ``made``: paths our own tasks write."""
    outputs = [*plan.outputs.values(), *(plan.judge.outputs.values() if plan.judge else ())]
    after = [_settled(plan.task)] if plan.even_if_failed else plan.after
    task: dict[str, Any] = {
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


def _settled_task(task: str, after: Iterable[str]) -> dict[str, Any]:
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
) -> Iterator[dict[str, Any]]:
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


def _toolchain_tasks(project: Project, prefix: str) -> Iterator[dict[str, Any]]:
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


# -- is there anything to do? --------------------------------------------------------------


class UpToDate:
    """Whether a step's result is in place and judged good, from our own record of it."""

    #: doit asks for the signature of every object on every run; this answers at once.
    __signature__ = inspect.Signature(
        [inspect.Parameter("task", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    )

    def __init__(self, project: Project, plan: StepPlan) -> None:
        self.project = project
        self.plan = plan
        self.reasons: list[str] = []

    def __call__(self, task: Any) -> bool:
        # Its file_dep has served to order the tasks. doit's own look at the file would run
        # the task whenever doit's database is lost, and our record knows more.
        task.file_dep = set()
        project, plan = self.project, self.plan
        record = project.states.load(plan.id)
        try:
            if plan.made_by:
                for source in plan.inputs.values():
                    project.forget_looks(source.path)
            if unchanged(project, plan, record):
                return True
            if because := skipped_before(project, plan):
                self.reasons = [f"what it reads was skipped: {because}"]
                return False
        except K210Error as error:
            self.reasons = [str(error)]
        else:
            if self._explain(record):
                return True
        project.seen.clear()
        return False

    def _explain(self, record: Record | None) -> bool:
        """Look closer: whether all is equal but the stamps; else there are reasons now."""
        from k210tasks.steps.decide import decide
        from k210tasks.steps.reasons import listing

        project, plan = self.project, self.plan
        try:
            decision = decide(project, plan, record)
        except K210Error as error:  # the action says it properly
            self.reasons = [str(error)]
            return False
        if decision.refreshed is not None:
            with contextlib.suppress(OSError):
                project.states.save(plan.id, decision.refreshed)
            return True
        self.reasons = listing([*decision.reasons, *decision.judge], 50)
        if plan.tools:
            from k210tasks.steps.runner import would_compute

            computes = would_compute(project, plan, decision)
            for tool in plan.tools:
                project.demand[tool] = computes or project.demand.get(tool, False)
        return False

    def __repr__(self) -> str:
        return "; ".join(self.reasons) or f"the record of {self.plan.task}"


class Installed:
    """Whether a toolchain's receipt matches its pin, or nobody needs it in this run."""

    __signature__ = inspect.Signature()

    def __init__(self, project: Project, tool: str) -> None:
        self.project = project
        self.tool = tool

    def __call__(self) -> bool:
        # The tasks that name it have been looked at first, unless it was asked for by name.
        if self.project.demand.get(self.tool) is False:
            return True
        try:
            return bool(self.project.toolchain(self.tool).installed())
        except K210Error:
            return False

    def __repr__(self) -> str:
        return f"the receipt of {self.tool}"


class ReportFresh:
    """Whether the report shows what there is."""

    __signature__ = inspect.Signature()

    def __init__(self, project: Project, manifest: Manifest, plans: list[StepPlan]) -> None:
        self.project = project
        self.manifest = manifest
        self.plans = plans

    def __call__(self) -> bool:
        return report.is_fresh(self.project, self.manifest, self.plans)

    def __repr__(self) -> str:
        return "what the report shows"


class StampChecker(FileChangedChecker):
    """doit's look at a ``file_dep``: a file counts as unchanged if its stamp or its content is.

    doit's own checker believes a file whose mtime was set back.
    """

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: Any) -> bool:
        try:
            digest, stamp = state
        except (TypeError, ValueError):
            return True
        if stamp == stamp_of(file_path):
            return False
        return bool(hash_stamped(file_path)[0] != digest)

    def get_state(self, dep: str, current_state: Any) -> list[Any] | None:
        if current_state and current_state[1] == stamp_of(dep):
            return None
        return list(hash_stamped(dep))


# -- actions: module-level, so that every start method can pickle them -----------------------


def execute(project: Project, plan: StepPlan, task: Any) -> TaskFailed | None:
    """Carry out a step. Its failure is told here, once, and only counted by doit."""
    from k210tasks.progress import shown
    from k210tasks.steps.runner import Runner

    quiet = task.verbosity == 0
    try:
        with shown(plan.task, quiet=quiet) as progress:
            Runner(project, progress.tell, progress).run(plan)
    except K210Error as error:
        return failed(project, plan.task, error, plan.log)
    except OSError as error:
        from k210tasks.steps.failures import FULL, DiskFull

        full = error.errno in FULL
        told = DiskFull(plan.task, project.root) if full else K210Error(str(error))
        return failed(project, plan.task, told, plan.log)
    return None


def settle() -> None:
    """Nothing to do but to have waited."""


def write_report(
    project: Project, manifest: Manifest, plans: list[StepPlan], task: Any
) -> TaskFailed | None:
    """Write the pages, whatever results there are."""
    try:
        report.write(project, manifest, plans)
    except (K210Error, OSError) as error:
        return failed(project, task.name, K210Error(str(error)))
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

    state = f"toolchain:{tool}"
    try:
        with shown(state, quiet=task.verbosity == 0) as progress:
            project.toolchain(tool).install(progress.tell, progress)
    except K210Error as error:
        project.states.save(state, {"outcome": "failed", "run": project.run_id})
        return failed(project, task.name, error)
    project.states.remove(state)
    return None


def failed(project: Project, task: str, error: K210Error, log: str = "") -> TaskFailed:
    """Tell a failure on stderr, with the log's path, and keep doit from telling it again."""
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
    """Remove what the step wrote; its result stays in the store."""
    record = project.states.load(plan.id)
    ours = {place["path"] for place in (record or {}).get("outputs", {}).values()}
    outputs = [*plan.outputs.values(), *(plan.judge.outputs.values() if plan.judge else ())]
    folders: set[str] = set()
    for shown in [*outputs, plan.log]:
        path = project.path(shown)
        if plan.guards_outputs and shown in plan.outputs.values() and shown not in ours:
            continue
        inside = [path]
        if shown.endswith("/"):
            inside = sorted(os.path.join(d, n) for d, _, names in os.walk(path) for n in names)
            folders.update(d for d, _, _ in os.walk(path))
        for file in inside:
            if os.path.isfile(file):
                print(f"{plan.task} - removing file '{file}'")
                if not dryrun:
                    os.remove(file)
        folders.add(os.path.dirname(path.rstrip("/")))
    build = project.path(f"build/{plan.subject}")
    for folder in sorted(folders, reverse=True):
        if f"{folder}/".startswith((f"{build}/", f"{build}.firmware/")) and not dryrun:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
