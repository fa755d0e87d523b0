"""Finished files, from a work folder to the places where the user sees them.

A file appears under its name whole or not at all; what is there already with the right
content is left alone, so that nothing below it has a reason to look again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from k210tasks.engine import snapshot
from k210tasks.engine.decide import same_content
from k210tasks.engine.failures import CannotWrite, OutputForeign
from k210tasks.engine.plan import StepPlan
from k210tasks.engine.project import Project
from k210tasks.store.files import hash_stamped, move_into_place, stamp_of_placed, temporary_name
from k210tasks.store.locks import WorkFolder
from k210tasks.store.records import Files, Place, Record, outputs_of, written
from k210tasks.store.results import Contents


def work_folder(project: Project) -> WorkFolder:
    """A folder for the unfinished files of one step."""
    try:
        return WorkFolder(project.work_folder)
    except OSError as error:
        raise CannotWrite(project.work_folder, error) from error


def temporary(work: WorkFolder, role: str, final: str, relative: str) -> str:
    """Where the file of an output is made: its own name, so that suffixes mean what they say."""
    path = os.path.join(work.path, role, os.path.basename(final.rstrip("/")))
    if relative:
        path = os.path.join(path, *relative.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def place(
    project: Project,
    plan: StepPlan,
    outputs: Mapping[str, str],
    contents: Contents,
    made: Contents,
    work: WorkFolder,
    record: Record | None,
) -> dict[str, Place]:
    """Rename the finished files into place; what is there already is left alone.

    Returns what a record says of outputs. Raises :class:`OutputForeign`, before anything is
    written, where a file of other content lies there that no record says is ours.
    """
    ours, wrong = written(record), []
    for role, shown in outputs.items():
        for relative, digest in contents[role].items():
            final = snapshot.place_of(project, shown, relative)
            if same_content(final, digest):
                continue
            wrong.append((role, relative))
            there = os.path.lexists(final) and not os.path.isdir(final)
            if there and (shown, relative) not in ours:
                raise OutputForeign(plan.task, _shown(shown, relative), _source(plan))
    if any((outputs[role], relative) not in ours for role, relative in wrong):
        _claim(project, plan, outputs, contents, record)
    placed: dict[str, Place] = {}
    for role, shown in outputs.items():
        files: Files = {}
        if shown.endswith("/"):
            _remove_former(project, shown, ours, contents[role])
        for relative, digest in contents[role].items():
            final = snapshot.place_of(project, shown, relative)
            try:
                if (role, relative) in wrong:
                    beside = temporary_name(final)
                    work.note(beside)
                    move_into_place(made[role][relative], final, beside)
                    files[relative] = [digest, stamp_of_placed(final)]
                else:
                    # The hash was taken just now, so its stamp may be too young to trust.
                    found, stamp = hash_stamped(final)
                    files[relative] = [found, stamp]
            except OSError as error:
                raise CannotWrite(final, error) from error
        placed[role] = {"path": shown, "files": files}
    return placed


def _claim(
    project: Project,
    plan: StepPlan,
    outputs: Mapping[str, str],
    contents: Contents,
    record: Record | None,
) -> None:
    """Note down what will be written before it is: who is killed then still knows it as ours."""
    places = outputs_of(record)
    for role, shown in outputs.items():
        before = places.get(role)
        files = before["files"] if before and before["path"] == shown else {}
        fresh: Files = {relative: [digest, []] for relative, digest in contents[role].items()}
        places[role] = {"path": shown, "files": {**fresh, **files}}
    claim: Record = {"outcome": "begun", "outputs": places}
    if record is not None and "key" in record:  # while it is judged, gc shall know its result
        claim["key"] = record["key"]
    project.states.save(plan.id, claim)


def _remove_former(
    project: Project, folder: str, ours: set[tuple[str, str]], wanted: Mapping[str, str]
) -> None:
    """In a folder that is an output, what an earlier result left and this one has not."""
    for shown, relative in ours:
        if shown == folder and relative not in wanted:
            with contextlib.suppress(OSError):
                os.unlink(snapshot.place_of(project, folder, relative))


def _shown(path: str, relative: str) -> str:
    return f"{path.rstrip('/')}/{relative}" if relative else path


def _source(plan: StepPlan) -> str:
    """What an output is made of, where that is one file of the user's."""
    sources = [source.path for source in plan.inputs.values()]
    return sources[0] if plan.step == "convert" else ""
