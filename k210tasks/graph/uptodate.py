"""Whether there is anything to do: what doit asks of a task, answered from our own records.

One picklable object a task; doit's own database has no part in it.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import Any

from doit.dependency import FileChangedChecker

from k210tasks.engine import watch
from k210tasks.engine.current import keep, skipped_before, unchanged
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.manifest.model import Manifest
from k210tasks.steps import report
from k210tasks.store.files import hash_stamped, stamp_of
from k210tasks.store.records import Record


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
        if self._is_current():
            self.project.found = task.targets
            return True
        self.project.seen.clear()
        watch.before_task()
        return False

    def _is_current(self) -> bool:
        project, plan = self.project, self.plan
        try:
            if plan.made_by:
                for source in plan.inputs.values():
                    project.forget_looks(source.path)
            if unchanged(project, plan):
                return True
            if because := skipped_before(project, plan):
                self.reasons = [f"what it reads was skipped: {because}"]
                return False
        except K210Error as error:
            self.reasons = [str(error)]
            return False
        return self._explain(project.states.load(plan.id))

    def _explain(self, record: Record | None) -> bool:
        """Look closer: whether all is equal but the stamps; else there are reasons now."""
        from k210tasks.engine.decide import decide
        from k210tasks.engine.reasons import listing

        project, plan = self.project, self.plan
        try:
            decision = decide(project, plan, record)
        except K210Error as error:  # the action says it properly
            self.reasons = [str(error)]
            return False
        if decision.refreshed is not None:
            with contextlib.suppress(OSError):
                keep(project, plan, decision.refreshed)
            return True
        self.reasons = listing([*decision.reasons, *decision.judge], 50)
        if plan.tools:
            from k210tasks.engine.runner import would_compute

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
        self.project.sweep()  # here as well: a run that has nothing to do starts no runner
        return report.is_fresh(self.project, self.manifest, self.plans)

    def __repr__(self) -> str:
        return "what the report shows"


class StampChecker(FileChangedChecker):
    """doit's look at a ``file_dep``: a file counts as unchanged if its stamp or its content is.

    doit's own checker believes a file whose mtime was set back.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def exists(self, file_path: str) -> bool:
        return file_path in self._project.found or os.path.exists(file_path)

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
