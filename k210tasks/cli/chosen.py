"""The steps a verb is about: by model or firmware image, perhaps by step."""

from __future__ import annotations

from collections.abc import Sequence

from k210tasks.engine.opening import open_project
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project
from k210tasks.errors import K210Error
from k210tasks.steps.chain import chain_of


class NoSuchName(K210Error):
    def __init__(self, file: str, name: str, names: Sequence[str]) -> None:
        super().__init__(
            f"{file} has no model or firmware image {name!r}; it has: {', '.join(names) or 'none'}"
        )


class NoSuchStep(K210Error):
    def __init__(self, name: str, step: str, steps: Sequence[str]) -> None:
        super().__init__(f"{name} has no step {step!r}; it has: {', '.join(steps)}")


def choose(file: str, names: Sequence[str]) -> tuple[Project, list[StepPlan]]:
    """The plans of the named subjects, in the order of the chain; no names: all.

    A name is ``MODEL``, or ``MODEL:STEP``, or ``STEP:MODEL`` as doit writes it.

    Raises:
        ManifestError: models.yaml cannot be used.
        NoSuchName, NoSuchStep: with what there is.
    """
    project, manifest = open_project(file)
    plans = list(chain_of(manifest).plans())
    # Vectors are made only when asked for: not spoken of until they have been.
    spoken = [p for p in plans if p.step != "vectors" or project.states.load(p.id)]
    if not names:
        return project, spoken
    subjects = list(dict.fromkeys(plan.subject for plan in plans))
    wanted: set[str] = set()
    for name in names:
        subject, step = _parted(name, subjects)
        if subject not in subjects:
            raise NoSuchName(file, subject, subjects)
        own = [plan for plan in plans if plan.subject == subject]
        if step is not None and step not in [plan.step for plan in own]:
            raise NoSuchStep(subject, step, [plan.step for plan in own])
        wanted |= {plan.id for plan in own if step == plan.step or (not step and plan in spoken)}
    return project, [plan for plan in plans if plan.id in wanted]


def _parted(name: str, subjects: Sequence[str]) -> tuple[str, str | None]:
    first, colon, second = name.partition(":")
    if not colon:
        return name, None
    return (first, second) if first in subjects else (second, first)
