"""What would run, and because of what, without running anything.

Steps are looked at in the order of the chain. Where a step would only be restored from the
store, its outputs are known and the next step is judged by them; where it would compute,
what follows can only be said to wait for its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from k210tasks.engine.decide import decide, key_of
from k210tasks.engine.plan import FileInput, StepPlan
from k210tasks.engine.project import Project
from k210tasks.engine.reasons import AfterTask, InputMissing, Json, Reason
from k210tasks.errors import K210Error

#: status -> how it is said
STATUS = {
    "current": "up to date",
    "runs": "would run",
    "restored": "would be restored from the store",
    "judged": "would be judged anew",
    "waits": "depends on what comes before",
    "failed": "cannot run",
}


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What one task would do; ``status`` is a key of :data:`STATUS`."""

    task: str
    status: str
    reasons: tuple[Reason, ...] = ()
    trouble: str = ""  # why it cannot run

    def to_json(self) -> Json:
        found: Json = {
            "task": self.task,
            "status": self.status,
            "reasons": [reason.to_json() for reason in self.reasons],
        }
        return found | ({"trouble": self.trouble} if self.trouble else {})


def foresee(project: Project, plans: Iterable[StepPlan]) -> Iterator[tuple[StepPlan, Foreseen]]:
    """One answer per plan. ``plans`` in the order of the chain."""
    known: dict[str, str] = {}  # path -> hash of what would be restored there
    unknown: dict[str, str] = {}  # path -> the task that would make it anew
    for plan in plans:
        found = _one(project, plan, known, unknown)
        if found.status in ("runs", "waits", "failed"):
            unknown |= dict.fromkeys(plan.outputs.values(), plan.task)
        yield plan, found


def _one(
    project: Project, plan: StepPlan, known: dict[str, str], unknown: dict[str, str]
) -> Foreseen:
    waits = [
        unknown[source.path]
        for source in plan.inputs.values()
        if isinstance(source, FileInput) and source.path in unknown
    ]
    try:
        decision = decide(project, plan, project.states.load(plan.id), assumed=known)
    except K210Error as error:
        return Foreseen(plan.task, "failed", (), str(error))
    reasons = tuple(
        reason
        for reason in decision.reasons
        if not (isinstance(reason, InputMissing) and reason.path in unknown)
    )
    if waits:
        if reasons:  # its own, whatever comes from before
            return Foreseen(plan.task, "runs", reasons)
        later = tuple(AfterTask(task) for task in dict.fromkeys(waits))
        return Foreseen(plan.task, "waits", later)
    if decision.trouble is not None:
        if plan.made_by:
            return Foreseen(plan.task, "waits", tuple(AfterTask(task) for task in plan.made_by))
        return Foreseen(plan.task, "failed", reasons, str(decision.trouble))
    if not reasons:
        if decision.judge:
            return Foreseen(plan.task, "judged", tuple(decision.judge))
        return Foreseen(plan.task, "current")
    if plan.run is None:
        return Foreseen(plan.task, "judged", reasons)
    key = key_of(plan, decision.inputs, decision.tools, decision.libraries)
    stored = project.store.find(key)
    if stored is None:
        return Foreseen(plan.task, "runs", reasons)
    for role, path in plan.outputs.items():
        digest = stored.outputs.get(role, {}).get("")
        if digest:
            known[path] = digest
    return Foreseen(plan.task, "restored", reasons)
