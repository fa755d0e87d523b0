"""Is a step's result in place? The usual case, at the price of one stat per file.

Imports nothing that is only needed when there is something to do.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from k210tasks.engine import snapshot
from k210tasks.engine.plan import FileInput, Input, StepPlan
from k210tasks.engine.project import Project, library_version
from k210tasks.errors import K210Error
from k210tasks.store.files import Stamp, stamp_of
from k210tasks.store.records import SEAL_LENGTH, Files, Pin, Record, outputs_of

#: relative path ("" for a single file) and stamp of every file of an input or an output
Stamps = list[tuple[str, Stamp]]


def unchanged(project: Project, plan: StepPlan) -> bool:
    """Whether settings, tools and every stamp are those under which the step was done, and
    judged good: whether its seal is the recorded one."""
    known = project.states.seal(plan.id)
    if not known or skipped_before(project, plan):
        return False
    try:
        places = [
            *(_looked_at(project, source) for source in plan.inputs.values()),
            *(_placed(project, path) for path in plan.outputs.values()),
            *(_placed(project, path) for path in _judged(plan).values()),
        ]
        tools = {name: dict(project.pin(name)) for name in plan.tools}
    except (OSError, K210Error):
        return False
    libraries = {name: library_version(name) for name in plan.libraries}
    return _seal(plan, tools, libraries, places) == known


def keep(project: Project, plan: StepPlan, record: Record) -> None:
    """Save a step's record, sealed where it was done and judged good."""
    judged = record.get("judge")
    seal = ""
    if record["outcome"] == "done" and (plan.judge is None or (judged and judged["ok"])):
        outputs = outputs_of(record)
        places = [
            *(_recorded(record["inputs"][role]["files"]) for role in plan.inputs),
            *(_recorded(outputs[role]["files"]) for role in (*plan.outputs, *_judged(plan))),
        ]
        seal = _seal(plan, record["tools"], record["libraries"], places)
    project.states.save(plan.id, record, seal)


def _judged(plan: StepPlan) -> Mapping[str, str]:
    return {} if plan.judge is None else plan.judge.outputs


def _seal(
    plan: StepPlan, tools: Mapping[str, Pin], libraries: Mapping[str, str], places: list[Stamps]
) -> str:
    """A digest of all that has to stay for a result to be up to date. Of its bytes nothing is
    read back: they have to be made fast, thousands of times, and marshal takes a quarter of
    repr's time. Only its format 0 does not depend on which equal strings are one object."""
    judge = plan.judge
    settings = (plan.version, plan.settings, judge and (judge.version, judge.settings))
    paths = ([source.path for source in plan.inputs.values()], plan.outputs, _judged(plan))
    told: Any = (settings, tools, libraries, paths, places)
    data = marshal.dumps(told, 0)
    return blake2b(data, digest_size=SEAL_LENGTH // 2).hexdigest()


def _recorded(files: Files) -> Stamps:
    return [(relative, entry[1]) for relative, entry in sorted(files.items())]


def _looked_at(project: Project, source: Input) -> Stamps:
    """Names and stamps of an input: one stat a file, no reading. Raises OSError, K210Error."""
    if isinstance(source, FileInput):
        path = project.path(source.path)
        return [("", project.seen.get(path) or stamp_of(path))]
    found, stamps = [], project.stamps.setdefault(source.path, {})
    prefix = f"{project.path(source.path)}/"
    for relative in sorted(snapshot.names(project, source)[0]):
        stamp = stamps.get(relative)
        if stamp is None:
            # place_of, in few words: there may be ten thousands
            path = prefix + relative if relative else prefix[:-1]
            stamp = stamps[relative] = stamp_of(path)
        found.append((relative, stamp))
    return found


def _placed(project: Project, path: str) -> Stamps:
    """Names and stamps of what stands at an output's place. Raises OSError, K210Error."""
    found = []
    for relative in snapshot.tree(project.path(path), path) if path.endswith("/") else ("",):
        place = snapshot.place_of(project, path, relative)
        stamp = project.seen[place] = stamp_of(place)
        found.append((relative, stamp))
    return found


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
