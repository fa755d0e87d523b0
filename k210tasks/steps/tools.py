"""A step's toolchains, as models.yaml may override them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k210tasks.engine.job import Job

if TYPE_CHECKING:
    from k210tasks.toolchains.toolchain import Toolchain


def toolchain(job: Job, name: str) -> Toolchain:
    """The toolchain ``name``; it is installed before a step that names it runs."""
    from k210tasks import toolchains

    return toolchains.get(name, job.toolchains.get(name), job.lock_path)
