"""Everything the report shows of a project, read from the files that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from k210tasks.manifest.model import Manifest
from k210tasks.profiles import PROFILES
from k210tasks.report.facts import ReportFacts
from k210tasks.report.images import image_facts
from k210tasks.report.models import STEPS, Known, addresses, model_facts
from k210tasks.report.past import Previous, last_run
from k210tasks.report.recorded import recorded
from k210tasks.store.history import Line
from k210tasks.store.records import TaskStates
from k210tasks.store.results import Store


def collect(
    manifest: Manifest,
    root: Path,
    states: TaskStates,
    store: Store,
    entries: list[Line],
    failures: Mapping[str, str],
    *,
    tasks: Iterable[str],
    written: float,
    version: str,
) -> ReportFacts:
    """``entries``: of the history, oldest first. ``failures``: task -> what it failed with
    last and would again. ``tasks``: the steps of the chain. ``written``: the time, now."""
    previous = Previous(entries, store)
    images = tuple(
        image_facts(
            image,
            root,
            recorded(states, f"firmware:{image.name}"),
            failures.get(f"firmware:{image.name}"),
        )
        for image in manifest.firmware
    )
    placed = {
        part.name: part.address
        for image in reversed(images)
        for part in image.parts
        if part.is_model
    }
    where = addresses(manifest.firmware, placed)
    models = []
    for model in manifest.models:
        known = Known(
            {step: recorded(states, f"{step}:{model.name}") for step in STEPS},
            {s: failures[f"{s}:{model.name}"] for s in STEPS if f"{s}:{model.name}" in failures},
            where.get(model.name, PROFILES[model.firmware].model_base),
        )
        models.append(model_facts(model, root, known, previous))
    return ReportFacts(
        project=root.resolve().name,
        written=written,
        version=version,
        models=tuple(models),
        images=images,
        run=last_run(entries, tasks),
    )
