"""Jobs for step bodies, as the framework would make them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from k210tasks.engine.job import Folder, Job
from k210tasks.samples.folder import evenly_spaced, scan


def folder(path: Path, count: int | None = None) -> Folder:
    """A folder of samples as the framework hands it over."""
    found = scan(path)
    files = found.files if count is None else evenly_spaced(found.files, count)
    return Folder(path, tuple(files), found.ignored)


def job(
    step: str,
    model: str,
    log: TextIO,
    inputs: Mapping[str, Path | Folder],
    outputs: Mapping[str, Path],
    settings: Mapping[str, Any],
) -> Job:
    return Job(
        name=f"{step}:{model}",
        model=model,
        settings=settings,
        inputs=inputs,
        outputs=outputs,
        log=log,
        log_path=Path(f"build/{model}/{step}.log"),
    )
