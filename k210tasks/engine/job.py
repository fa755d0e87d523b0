"""What a step of the chain is given: files in, files out, settings, a log, progress.

A step body is a module-level function ``run(job: Job) -> None``. It reads only what
``job.inputs`` and ``job.settings`` name, writes only to ``job.outputs`` (temporary
paths; the framework moves them into place when the function returns), and raises a
:class:`~k210tasks.errors.K210Error` when it cannot keep its promise. It never learns
the final place of a file, so a killed step leaves nothing half written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

from k210tasks.engine.plan import Settings
from k210tasks.errors import K210Error
from k210tasks.jsondata import read
from k210tasks.progress import Progress, no_progress
from k210tasks.toolchains.catalogue import ToolchainOverride

T = TypeVar("T")


class StepFailed(K210Error):
    """A step that ended without a result, in a sentence of the step's own."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of samples as the store saw it: the relative POSIX paths it hashed."""

    path: Path
    files: tuple[str, ...]  # sorted, relative to ``path``; already sampled where a step samples
    ignored: int = 0  # other files in the folder

    @staticmethod
    def of(path: Path, files: tuple[str, ...], ignored: int = 0) -> Folder:
        """``files`` ("",): ``path`` is itself the one file, as ``samples.folder.scan`` says it."""
        if files == ("",):
            return Folder(path.parent, (path.name,), ignored)
        return Folder(path, files, ignored)


def no_saying(text: str) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Job:
    name: str  # the task, e.g. "calibrate:nn_xo"
    model: str
    settings: Settings  # part of the key of the result
    inputs: Mapping[str, Path | Folder]  # by role: "source", "tflite", "images", "calibration", …
    outputs: Mapping[str, Path]  # by role: "tflite", "kmodel", "listing", …
    log: TextIO  # the full log file of the step
    log_path: Path  # named in errors
    progress: Progress = no_progress
    # not in the key:
    root: Path = Path()  # of the project
    toolchains: Mapping[str, ToolchainOverride] = field(default_factory=dict)
    lock_path: Path | None = None  # k210.lock
    say: Callable[[str], None] = no_saying  # one line to the user

    def told(self, kind: type[T]) -> T:
        """The settings as the type the step declares for them."""
        return read(kind, self.settings)

    def file(self, role: str) -> Path:
        """The input file of that role."""
        path = self.inputs[role]
        assert isinstance(path, Path), role
        return path

    def folder(self, role: str) -> Folder:
        """The input folder of that role."""
        folder = self.inputs[role]
        assert isinstance(folder, Folder), role
        return folder
