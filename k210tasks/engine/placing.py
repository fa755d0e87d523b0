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
from k210tasks.store.files import hash_stamped, move_into_place, stamp_of, temporary_name
from k210tasks.store.locks import WorkFolder
from k210tasks.store.records import Files, Place, Record, outputs_of
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

    Returns what a record says of outputs.
    """
    placed: dict[str, Place] = {}
    for role, shown in outputs.items():
        files: Files = {}
        if shown.endswith("/"):
            _remove_strangers(project, shown, contents[role])
        for relative, digest in contents[role].items():
            final = snapshot.place_of(project, shown, relative)
            try:
                if not same_content(final, digest):
                    if plan.guards_outputs and os.path.lexists(final):
                        _refuse_foreign(plan, shown, record)
                    beside = temporary_name(final)
                    work.note(beside)
                    move_into_place(made[role][relative], final, beside)
                    files[relative] = [digest, stamp_of(final)]
                else:
                    # The hash was taken just now, so its stamp may be too young to trust.
                    found, stamp = hash_stamped(final)
                    files[relative] = [found, stamp]
            except OSError as error:
                raise CannotWrite(final, error) from error
        placed[role] = {"path": shown, "files": files}
    return placed


def _remove_strangers(project: Project, folder: str, wanted: Mapping[str, str]) -> None:
    """In a folder that is an output, what an earlier result left and this one has not."""
    path = project.path(folder.rstrip("/"))
    for inside, _, names in os.walk(path):
        for name in names:
            full = os.path.join(inside, name)
            if os.path.relpath(full, path).replace(os.sep, "/") not in wanted:
                with contextlib.suppress(OSError):
                    os.unlink(full)


def _refuse_foreign(plan: StepPlan, shown: str, record: Record | None) -> None:
    known = [place["path"] for place in outputs_of(record).values()]
    if shown not in known:
        sources = [source.path for source in plan.inputs.values()]
        raise OutputForeign(plan.task, shown, sources[0] if sources else "")
