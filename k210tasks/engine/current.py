"""Is a step's result in place? The usual case, at the price of one stat per file.

Imports nothing that is only needed when there is something to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from k210tasks.engine import snapshot
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project, library_version
from k210tasks.store.files import stamp_of
from k210tasks.store.records import Place, Record


def unchanged(project: Project, plan: StepPlan, record: Record | None) -> bool:
    """Whether settings, tools and every stamp are the recorded ones."""
    if record is None or record["outcome"] != "done" or skipped_before(project, plan):
        return False
    if record["version"] != plan.version or record["settings"] != plan.settings:
        return False
    tools = record["tools"]
    if len(tools) != len(plan.tools) or any(tools.get(t) != project.pin(t) for t in plan.tools):
        return False
    libraries = record["libraries"]
    if len(libraries) != len(plan.libraries) or any(
        libraries.get(name) != library_version(name) for name in plan.libraries
    ):
        return False
    inputs = record["inputs"]
    if len(inputs) != len(plan.inputs):
        return False
    for role, source in plan.inputs.items():
        known = inputs.get(role)
        if known is None or known["path"] != source.path:
            return False
        if not snapshot.same_stamps(project, source, known["files"]):
            return False
    if not _same_outputs(project, record["outputs"], plan.outputs):
        return False
    if plan.judge is None:
        return True
    judged = record.get("judge")
    return (
        judged is not None
        and judged["ok"]
        and judged["version"] == plan.judge.version
        and judged["settings"] == plan.judge.settings
        and _same_outputs(project, judged["outputs"], plan.judge.outputs)
    )


def skipped_before(project: Project, plan: StepPlan) -> str | None:
    """Why a step before an optional one was skipped: what it left there is out of date."""
    if not plan.optional:
        return None
    # A record's name is the task's without the user's prefix.
    prefix = plan.task.removesuffix(plan.id)
    for task in plan.after:
        record = project.states.load(task.removeprefix(prefix))
        if record is not None and record["outcome"] == "skipped":
            return str(record["because"])
    return None


def _same_outputs(project: Project, known: Mapping[str, Place], outputs: Mapping[str, str]) -> bool:
    if len(known) != len(outputs):
        return False
    try:
        for role, path in outputs.items():
            place = known[role]
            if place["path"] != path:
                return False
            for relative, entry in place["files"].items():
                place_now = snapshot.place_of(project, path, relative)
                stamp = project.seen[place_now] = stamp_of(place_now)
                if entry[1] != stamp:
                    return False
    except (OSError, KeyError):
        return False
    return True
