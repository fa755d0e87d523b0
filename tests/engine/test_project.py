"""A project crosses to other processes as its places and settings, and does nothing on the way."""

from __future__ import annotations

import pickle
import threading

from k210tasks.engine.project import Project
from k210tasks.toolchains.catalogue import ToolchainOverride


def test_pickling_starts_no_thread_and_keeps_the_run() -> None:
    project = Project("sub/", [ToolchainOverride("tensorflow", python="/opt/python")])
    before = threading.enumerate()
    project.listings["folder"] = None  # type: ignore[assignment]
    there = pickle.loads(pickle.dumps(project))
    assert threading.enumerate() == before
    assert (there.base, there.run_id) == (project.base, project.run_id)
    assert there.overrides == project.overrides
    assert there.listings == {}  # a child looks for itself
