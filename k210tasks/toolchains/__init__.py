"""Vendor tools: fetched, checked, isolated, proven to run, and spoken to as workers.

``get`` gives a toolchain without touching the network or anything heavy; the operations
are in the modules ``nncase``, ``tensorflow`` and ``ncc``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from k210tasks.toolchains.catalogue import TOOLS, PythonTool, ToolchainOverride
from k210tasks.toolchains.errors import ToolchainError, ToolchainUnavailable, UnknownToolchain

if TYPE_CHECKING:
    from k210tasks.toolchains.toolchain import Toolchain

__all__ = ["ToolchainError", "ToolchainUnavailable", "get"]


def get(
    name: str, override: ToolchainOverride | None = None, lock_path: Path | None = None
) -> Toolchain:
    """The toolchain ``name``, as models.yaml may override it. Cheap; touches no network.

    ``lock_path`` is the k210.lock beside models.yaml; None: one in the user's cache. Raises
    :class:`UnknownToolchain`.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise UnknownToolchain(name, sorted(TOOLS))
    if isinstance(tool, PythonTool):
        from k210tasks.toolchains.toolchain import PythonToolchain

        return PythonToolchain(tool, override)
    from k210tasks.toolchains.archive import ArchiveToolchain

    return ArchiveToolchain(tool, override, lock_path)
