"""``report``: when it is fresh, and how it is written.

It is no step like the others: it reads whatever results there are, of failed models too, the
history and the store, so it has no key and is never restored. Its record holds what it has
read; the history counts only by what it tells about failures, for it grows in every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from k210tasks.engine.current import unchanged
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project
from k210tasks.jsondata import known, plain
from k210tasks.manifest.model import Manifest
from k210tasks.steps.versions import VERSIONS
from k210tasks.store.files import Stamp, stamp_of
from k210tasks.store.history import Line
from k210tasks.store.records import Place, file_name

TASK = "report"
INDEX = "build/report/index.html"
#: What a record of a step says that a page shows; stamps are not among it.
_SHOWN = ("outcome", "because", "key", "finished", "settings")


class ReportRecord(TypedDict):
    """What the last report was made from; beside what every record has."""

    outcome: str
    version: int
    made_from: str  # of the manifest
    manifest: str  # its digest
    history: int  # bytes of it that were read
    failures: dict[str, str]  # task -> message
    read: dict[str, list[Any]]  # path -> [digest, stamp]
    pages: dict[str, Stamp | None]
    outputs: dict[str, Place]


def _recorded(project: Project) -> ReportRecord | None:
    """The last report's record, where this version wrote it."""
    record: Any = project.states.load(TASK)
    return record if record is not None and record.get("version") == VERSIONS[TASK] else None


def is_fresh(project: Project, manifest: Manifest, plans: Iterable[StepPlan]) -> bool:
    """Whether the pages are in place and show what there is."""
    record = _recorded(project)
    if record is None:
        return False
    failures = dict(record["failures"])
    size, changed = _follow(project, record["history"], failures)
    if record.get("made_from") != manifest.made_from:
        if record["manifest"] != _manifest_digest(manifest):
            return False
        record["made_from"], changed = manifest.made_from, True
    if failures != record["failures"]:
        return False
    by_id = {plan.id: plan for plan in plans} if failures else {}
    for task in failures:
        plan = by_id.get(task)
        # Failed, and mended since without running: put back as it was.
        if plan is None or unchanged(project, plan):
            return False
    for path, (digest, stamp) in record["read"].items():
        place = project.path(path)
        now = project.seen.get(place) or _stamp(place)
        if now != stamp:
            if _digest(project, path) != digest:
                return False
            record["read"][path] = [digest, now]
            changed = True
    if any(_stamp(project.path(path)) != stamp for path, stamp in record["pages"].items()):
        return False
    if changed:
        record["history"] = size
        with contextlib.suppress(OSError):
            project.states.save(TASK, record)
    return True


def write(project: Project, manifest: Manifest, plans: Iterable[StepPlan]) -> str:
    """Write every page; returns the path of the first one, as this process can open it.

    Raises OSError where they cannot be written.
    """
    from pathlib import Path

    from k210tasks.report.gather import collect
    from k210tasks.report.pages import write_pages
    from k210tasks.report.past import last_failures
    from k210tasks.version import __version__

    plans = list(plans)
    by_id = {plan.id: plan for plan in plans}
    size = _size(project)
    # Before the files: what changes while they are read makes the report stale again.
    read = {path: [_digest(project, path), _stamp(project.path(path))] for path in _read(manifest)}
    entries = list(project.history.entries())
    failures = {
        task: message
        for task, message in last_failures(entries).items()
        if task in by_id and not unchanged(project, by_id[task])
    }
    facts = collect(
        manifest,
        Path(project.root),
        project.states,
        project.store,
        entries,
        failures,
        tasks=[plan.id for plan in plans if plan.step != "vectors"],
        written=time.time(),
        version=__version__,
    )
    pages = write_pages(facts, Path(project.root))
    record: ReportRecord = {
        "outcome": "done",
        "version": VERSIONS[TASK],
        "made_from": manifest.made_from,
        "manifest": _manifest_digest(manifest),
        "history": size,
        "failures": failures,
        "read": read,
        "pages": {path: _stamp(project.path(path)) for path in pages},
        "outputs": {"index": {"path": INDEX, "files": {}}},
    }
    project.states.save(TASK, record)
    return project.path(INDEX)


def pages(project: Project) -> list[str]:
    """The pages the last report wrote, relative to the project."""
    record: Any = project.states.load(TASK)
    return list((record or {}).get("pages", {}))


# -- what it depends on ----------------------------------------------------------------------


def _read(manifest: Manifest) -> Iterator[str]:
    """The files whose content decides; those they stand for are not named again."""
    state = ".k210/state"
    for model in manifest.models:
        for step in ("convert", "calibrate", "kmodel", "verify"):
            yield f"{state}/{file_name(f'{step}:{model.name}')}"
        yield f"workspace/{model.name}.kmodel"
        yield f"build/{model.name}/verify.json"
    for image in manifest.firmware:
        yield f"{state}/{file_name(f'firmware:{image.name}')}"
        yield f"build/{image.name}.kfpkg"


def _digest(project: Project, path: str) -> str | None:
    """Of a file's content; of a step's record, only of what a page shows."""
    try:
        with open(project.path(path), "rb") as file:
            data = file.read()
    except OSError:
        return None
    if path.endswith(".json") and path.startswith(".k210"):
        with contextlib.suppress(ValueError, AttributeError):
            record = json.loads(data)
            shown = {key: record.get(key) for key in _SHOWN}
            judge = record.get("judge") or {}
            shown["judge"] = [judge.get("ok"), judge.get("message"), judge.get("settings")]
            data = json.dumps(shown, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _stamp(path: str) -> list[int] | None:
    try:
        return list(stamp_of(path))
    except OSError:
        return None


def _size(project: Project) -> int:
    try:
        return os.stat(project.history.path).st_size
    except OSError:
        return 0


def _follow(project: Project, seen: int, failures: dict[str, str]) -> tuple[int, bool]:
    """Bring ``failures`` up to date with what the history tells since it had ``seen`` bytes.

    Returns its size, and whether that is another one.
    """
    size = _size(project)
    if size == seen:
        return size, False
    from k210tasks.report.past import note_outcome

    with contextlib.suppress(OSError), open(project.history.path, "rb") as file:
        if size > seen:
            file.seek(seen)
        for line in file:
            if (entry := known(Line, line)) is not None:
                note_outcome(failures, entry)
    return size, True


def _manifest_digest(manifest: Manifest) -> str:
    """Of what models.yaml says: comments, order of keys and lines do not count."""
    said = [plain(entry, compared=True) for entry in (*manifest.models, *manifest.firmware)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
