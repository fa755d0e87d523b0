"""Every toolchain: what it is, what is pinned, and where it comes from. Data only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k210tasks.store.records import Pin

HERE = Path(__file__).parent
#: runs the module of a worker
START = HERE / "workers" / "start.py"


@dataclass(frozen=True, slots=True)
class PythonTool:
    """A package from a Python index, in an environment of its own with pinned hashes.

    ``pythons`` are the CPython versions its wheels exist for, the preferred one first.
    """

    name: str
    title: str
    version: str
    pythons: tuple[str, ...]
    requirements: str  # file in requirements/, valid for every one of ``pythons``
    worker: str  # module in workers/; its operation "hello" proves that the tool really runs
    megabytes: int  # on disk, about
    environment: Mapping[str, str] = field(default_factory=dict)  # of its worker

    @property
    def requirements_path(self) -> Path:
        return HERE / "requirements" / self.requirements

    @property
    def worker_path(self) -> Path:
        return HERE / "workers" / self.worker

    @property
    def variable(self) -> str:
        """The environment variable that names its interpreter."""
        word = "".join(c if c.isalnum() else "_" for c in self.name.split("-")[0])
        return f"K210_PYTHON_{word.upper()}"

    def pin(self) -> Pin:
        """The identity of what is installed, whichever of ``pythons`` runs it."""
        text = self.requirements_path.read_bytes().replace(b"\r\n", b"\n")
        return {
            "name": self.name,
            "version": self.version,
            "requirements": hashlib.sha256(text).hexdigest(),
        }


@dataclass(frozen=True, slots=True)
class ArchiveTool:
    """A program from a release archive. ``urls``: platform -> address."""

    name: str
    title: str
    version: str
    urls: Mapping[str, str]
    program: str  # file name of the executable inside the archive
    cli: str  # which command line it understands: "0.1" or "0.2"
    megabytes: int  # on disk, about
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolchainOverride:
    """What models.yaml says of a tool: a mirror, a local copy, a hash, a chosen interpreter."""

    name: str
    url: str | None = None
    sha256: str | None = None
    python: str | None = None


Tool = PythonTool | ArchiveTool

_RELEASES = "https://github.com/kendryte/nncase/releases/download"

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        PythonTool(
            name="nncase-1.9.0",
            title="nncase 1.9.0, compiler and simulator of kmodel 5",
            version="1.9.0.20230322",
            pythons=("3.10", "3.9", "3.8", "3.7"),
            requirements="nncase-1.9.0.txt",
            worker="nncase_worker.py",
            megabytes=95,
        ),
        PythonTool(
            name="tensorflow",
            title="TensorFlow 2.21 for CPU and tf_keras, converter of graphs",
            version="2.21.0",
            pythons=("3.11", "3.12", "3.10", "3.13"),
            requirements="tensorflow.txt",
            worker="tensorflow_worker.py",
            megabytes=1500,
            environment={
                "CUDA_VISIBLE_DEVICES": "-1",
                "TF_CPP_MIN_LOG_LEVEL": "1",
                "TF_ENABLE_ONEDNN_OPTS": "0",  # constant folding rounds the same on every CPU
            },
        ),
        ArchiveTool(
            name="ncc-0.2.0-beta4",
            title="ncc 0.2.0-beta4, compiler of kmodel 4",
            version="0.2.0-beta4",
            urls={"linux-x86_64": f"{_RELEASES}/v0.2.0-beta4/ncc_linux_x86_64.tar.xz"},
            program="ncc",
            cli="0.2",
            megabytes=30,
        ),
        ArchiveTool(
            name="ncc-0.1.0-rc5",
            title="ncc 0.1.0-rc5, compiler of kmodel 3",
            version="0.1.0-rc5",
            urls={"linux-x86_64": f"{_RELEASES}/v0.1.0-rc5/ncc-linux-x86_64.tar.xz"},
            program="ncc",
            cli="0.1",
            megabytes=100,
            # a .NET program that else insists on a system ICU
            environment={"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"},
        ),
    )
}
