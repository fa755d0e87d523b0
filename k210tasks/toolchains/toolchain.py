"""One toolchain as the rest of the project sees it: pinned, perhaps installed, installable.

Imports nothing that only installing or running needs: every doit asks for pins.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.progress import Progress, no_progress
from k210tasks.store.locks import lock
from k210tasks.store.records import Pin
from k210tasks.toolchains import receipts
from k210tasks.toolchains.cache import cache_root
from k210tasks.toolchains.catalogue import START, PythonTool, Tool, ToolchainOverride
from k210tasks.toolchains.errors import CacheUnusable, NotInstalled

if TYPE_CHECKING:
    from k210tasks.toolchains.worker import Worker

Say = Callable[[str], None]


class Toolchain:
    """What all toolchains have in common; ``toolchains.get`` makes one."""

    tool: Tool

    def __init__(self, tool: Tool, override: ToolchainOverride | None):
        self.tool = tool
        self.override = override or ToolchainOverride(tool.name)

    @property
    def name(self) -> str:
        return self.tool.name

    def pin(self) -> Pin:
        """What identifies the tool in the key of a result: JSON values, no network."""
        raise NotImplementedError

    @property
    def folder(self) -> Path:
        """Where it is, or would be, installed."""
        raise NotImplementedError

    def installed(self) -> bool:
        """Whether a receipt says that exactly this pin was installed and proved to run."""
        raise NotImplementedError

    def install(self, say: Say, progress: Progress = no_progress) -> None:
        """Fetch, check, unpack and prove the tool, unless that was done.

        Safe with several processes at once: one installs, the others wait. Raises
        :class:`ToolchainUnavailable` where it cannot be had on this machine at all, another
        :class:`ToolchainError` where something failed.
        """
        raise NotImplementedError

    @contextmanager
    def _alone(self, name: str, say: Say) -> Iterator[None]:
        """The right to install, which one process has at a time. Raises :class:`CacheUnusable`."""
        with ExitStack() as held:
            try:
                held.enter_context(
                    lock(
                        str(cache_root() / "locks" / name),
                        lambda: say(
                            f"{self.name}: another process is installing it, waiting for that"
                        ),
                    )
                )
            except OSError as error:
                raise CacheUnusable(cache_root(), error) from error
            yield

    def receipt(self) -> receipts.Receipt | None:
        """What was recorded when it was installed."""
        return receipts.read(self.folder)

    def require(self) -> None:
        """Raise :class:`NotInstalled` unless it is installed."""
        if not self.installed():
            raise NotInstalled(self.name)


def _key(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class PythonToolchain(Toolchain):
    """A tool in a Python environment of its own."""

    tool: PythonTool

    def pin(self) -> Pin:
        return self.tool.pin()

    @property
    def folder(self) -> Path:
        facts = [self.pin(), self._chosen() or ""]
        return cache_root() / "toolchains" / f"{self.name}-{_key(facts)}"

    def _chosen(self) -> str | None:
        return self.override.python or os.environ.get(self.tool.variable) or None

    def installed(self) -> bool:
        receipt = self.receipt()
        if receipt is None or receipt.get("pin") != self.pin():
            return False
        from k210tasks.toolchains import environments

        return environments.python_of(self.folder).exists()  # its interpreter may be gone

    def install(self, say: Say, progress: Progress = no_progress) -> None:
        if self.installed():
            return
        from k210tasks.toolchains import environments, interpreters
        from k210tasks.toolchains.worker import Worker

        folder = self.folder
        with self._alone(f"{folder.name}.lock", say):
            if self.installed():
                return
            interpreter = interpreters.find(
                self.name,
                self.tool.pythons,
                chosen=self.override.python,
                variable=self.tool.variable,
                say=say,
            )
            # A name of its own: what a killed installer started may still be writing to its.
            fresh = folder.with_name(f"{folder.name}.new-{os.getpid()}")
            for leftover in folder.parent.glob(folder.name + "*"):
                shutil.rmtree(leftover, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            environments.create(
                self.name,
                fresh,
                interpreter,
                self.tool.requirements_path,
                index=self.override.url,
                megabytes=self.tool.megabytes,
                say=say,
            )
            fresh.rename(folder)
            say(f"{self.name}: trying it")
            worker = Worker(self.name, self._command(), self._environment())
            try:
                proof = worker.call("hello", {}, doing="showing that it runs")
            finally:
                worker.close()
            proof.pop("printed")
            facts: receipts.Facts = {
                "proof": proof,
                "interpreter": str(interpreter.path),
                "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "bytes": size_of(folder),
            }
            receipts.write(folder, self.pin(), facts)
            say(f"{self.name}: ready")

    def worker(self) -> Worker:
        """This process's worker of the tool, which must be installed."""
        from k210tasks.toolchains.worker import shared

        self.require()
        return shared(self.name, self._command(), self._environment())

    def _command(self) -> list[str]:
        from k210tasks.toolchains import environments

        # -I: no site of the user, no variables, no current folder
        python = environments.python_of(self.folder)
        return [str(python), "-I", "-X", "utf8", str(START), str(self.tool.worker_path)]

    def _environment(self) -> dict[str, str]:
        from k210tasks.toolchains.program import clean_environment

        return clean_environment(self.tool.environment)


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            total += (Path(base) / name).lstat().st_size
    return total
