"""Vendor tools: fetched, checked, isolated, proven to run, and spoken to as workers.

``get`` gives a toolchain without touching the network or anything heavy; the operations
are in the modules ``nncase``, ``tensorflow`` and ``ncc``.
"""

from k210tasks.toolchains.errors import ToolchainError, ToolchainUnavailable
from k210tasks.toolchains.toolchain import Toolchain, get

__all__ = ["Toolchain", "ToolchainError", "ToolchainUnavailable", "get"]
