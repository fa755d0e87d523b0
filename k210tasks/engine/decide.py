"""What is to be done for a step, and because of what.

Asked when :mod:`k210tasks.engine.current` has not already said that nothing changed: this
reads what has another stamp than recorded, and gives reasons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k210tasks.engine import reasons as r
from k210tasks.engine import snapshot
from k210tasks.engine.plan import FileInput, OptionalInput, SamplesInput, StepPlan
from k210tasks.engine.project import Project, library_version
from k210tasks.errors import K210Error
from k210tasks.store.files import hash_file, hash_stamped, stamp_of
from k210tasks.store.records import Files, Judged, Pin, Place, Record


@dataclass(slots=True)
class Decision:
    """``reasons``: why the result is to be made (or restored); ``judge``: why it is judged anew.

    ``inputs``, ``tools`` and ``libraries`` are what a record holds. ``trouble`` is the error
    of the first input that cannot be read.
    """

    reasons: list[r.Reason] = field(default_factory=list)
    judge: list[r.Reason] = field(default_factory=list)
    inputs: dict[str, Place] = field(default_factory=dict)
    tools: dict[str, Pin] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    trouble: K210Error | None = None
    refreshed: Record | None = None  # the record with today's stamps, where all else is equal

    @property
    def current(self) -> bool:
        return not self.reasons and not self.judge


def decide(
    project: Project,
    plan: StepPlan,
    record: Record | None,
    *,
    fresh: bool = False,
    assumed: Mapping[str, str] | None = None,
) -> Decision:
    """Reasons for the result and for the judgement; none: nothing to do.

    ``fresh``: look at folders anew. ``assumed``: path -> hash of files about to be made.
    Raises the toolchains' errors where a pin cannot be told.
    """
    found = Decision()
    _look_at_inputs(project, plan, record, found, fresh, assumed or {})
    found.tools = {name: project.pin(name) for name in plan.tools}
    found.libraries = {name: library_version(name) for name in plan.libraries}
    if record is None or record["outcome"] == "begun":
        found.reasons.append(r.NeverRun())
        return found
    if record["outcome"] == "forgotten":
        found.reasons.append(r.Forgotten())
        return found
    if record["outcome"] == "skipped":
        found.reasons.append(r.WasSkipped(record.get("because", "")))
        return found
    if record["version"] != plan.version:
        found.reasons.append(r.StepChanged(plan.step, record["version"], plan.version))
    found.reasons += r.differences("", record["settings"], dict(plan.settings))
    for tool in sorted({*record["tools"], *found.tools}):
        old, new = record["tools"].get(tool), found.tools.get(tool)
        if old != new:
            found.reasons += _tool_reasons(tool, old, new)
    for name in sorted({*record["libraries"], *found.libraries}):
        was, now = record["libraries"].get(name), found.libraries.get(name)
        if was != now:
            found.reasons.append(r.LibraryChanged(name, was, now))
    for role in sorted({*record["inputs"], *found.inputs}):
        found.reasons += _input_reasons(
            role, record["inputs"].get(role), found.inputs.get(role), plan
        )
    outputs = _look_at_outputs(project, record["outputs"], plan.outputs, found.reasons)
    judged = _decide_judge(project, plan, record, found)
    if found.current:
        found.refreshed = {**record, "inputs": found.inputs, "outputs": outputs, "judge": judged}
    return found


def _look_at_inputs(
    project: Project,
    plan: StepPlan,
    record: Record | None,
    found: Decision,
    fresh: bool,
    assumed: Mapping[str, str],
) -> None:
    recorded = {} if record is None else record.get("inputs", {})
    for role, source in plan.inputs.items():
        if source.path in assumed and isinstance(source, FileInput):
            files: Files = {"": [assumed[source.path], []]}
            found.inputs[role] = {"path": source.path, "files": files}
            continue
        if fresh and not isinstance(source, FileInput):
            project.forget_looks(source.path)
        known = recorded.get(role)
        before = known["files"] if known is not None and known["path"] == source.path else None
        try:
            files, ignored = snapshot.take(project, source, before)
        except K210Error as error:
            found.trouble = found.trouble or error
            path = getattr(error, "path", source.path)
            found.reasons.append(r.InputMissing(role, path))
            continue
        found.inputs[role] = {"path": source.path, "files": files}
        found.ignored[role] = ignored


def _tool_reasons(tool: str, old: Any, new: Any) -> list[r.Reason]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            r.ToolChanged(f"{tool}, {change.field}", change.old, change.new)
            for change in r.differences("", old, new)
        ]
    # One of them is none: its version says enough of the other.
    return [r.ToolChanged(tool, _version(old), _version(new))]


def _version(pin: Any) -> Any:
    return pin["version"] if isinstance(pin, dict) and "version" in pin else pin


def _input_reasons(
    role: str, old: Place | None, new: Place | None, plan: StepPlan
) -> list[r.Reason]:
    if new is None:
        if role in plan.inputs or old is None:  # unreadable: said already
            return []
        return [r.FileRemoved(role, old["path"])]
    if old is None:
        return [r.FileAdded(role, new["path"])]
    found: list[r.Reason] = []
    for relative in sorted({*old["files"], *new["files"]}):
        shown = f"{new['path']}/{relative}" if relative else new["path"]
        was, now = old["files"].get(relative), new["files"].get(relative)
        if was is None:
            found.append(r.FileAdded(role, shown))
        elif now is None:
            found.append(r.FileRemoved(role, shown))
        elif was[0] != now[0]:
            found.append(r.ContentChanged(role, shown, was[0], now[0]))
    return found


def _look_at_outputs(
    project: Project, known: Mapping[str, Place], outputs: Mapping[str, str], into: list[r.Reason]
) -> dict[str, Place]:
    """What stands at the outputs' places, with today's stamps; differences go ``into``."""
    fresh: dict[str, Place] = {}
    for role in sorted({*known, *outputs}):
        old = known[role]["path"] if role in known else None
        new = outputs.get(role)
        if old != new or new is None:
            into.append(r.OutputMoved(role, old, new))
            continue
        files: Files = {}
        for relative, (digest, stamp) in known[role]["files"].items():
            path = snapshot.place_of(project, new, relative)
            shown = f"{new.rstrip('/')}/{relative}" if relative else new
            try:
                now, now_digest = stamp_of(path), digest
                if now != stamp:
                    now_digest, now = hash_stamped(path)
            except OSError:
                into.append(r.OutputMissing(shown))
                continue
            if now_digest != digest:
                into.append(r.OutputTampered(shown, digest, now_digest))
            files[relative] = [digest, now]
        fresh[role] = {"path": new, "files": files}
    return fresh


def _decide_judge(
    project: Project, plan: StepPlan, record: Record, found: Decision
) -> Judged | None:
    """Reasons to judge go into ``found.judge``; returns the record's part with today's stamps."""
    judged = record.get("judge")
    if plan.judge is None:
        return None
    if judged is None:
        found.judge.append(r.NotJudged())
        return None
    if judged["version"] != plan.judge.version:
        found.judge.append(r.StepChanged("judge", judged["version"], plan.judge.version))
    found.judge += r.differences("", judged["settings"], dict(plan.judge.settings))
    if not judged["ok"] and not found.judge:
        found.judge.append(r.JudgedBadly(judged["message"]))
    outputs = _look_at_outputs(project, judged["outputs"], plan.judge.outputs, found.judge)
    return {**judged, "outputs": outputs}


def key_of(
    plan: StepPlan,
    inputs: Mapping[str, Place],
    tools: Mapping[str, Pin],
    libraries: Mapping[str, str],
) -> str:
    """The SHA-256 of everything that shapes the result, as canonical JSON.

    A single input file counts by content; files of folders also by relative path, and samples
    by their file's name.
    """
    contents: dict[str, object] = {}
    for role, source in plan.inputs.items():
        files: Files = inputs[role]["files"]
        if isinstance(source, FileInput):
            contents[role] = files[""][0]
        elif isinstance(source, OptionalInput):
            contents[role] = files[""][0] if files else None
        else:
            kind = "samples" if isinstance(source, SamplesInput) else "tree"
            name = source.path.rpartition("/")[2]
            contents[role] = {kind: [[r or name, entry[0]] for r, entry in files.items()]}
    whole = {
        "step": plan.step,
        "version": plan.version,
        "settings": dict(plan.settings),
        "inputs": contents,
        "tools": dict(tools),
        "libraries": dict(libraries),
        "outputs": sorted(plan.outputs),
    }
    text = json.dumps(
        whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def same_content(path: str, digest: str) -> bool:
    """Whether a file is there with that content."""
    try:
        return hash_file(path) == digest
    except OSError:
        return False
