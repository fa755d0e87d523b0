"""Making a Python environment for one tool, with uv, from a file of pinned hashes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from k210tasks.toolchains.errors import InstallFailed, ToolchainUnavailable
from k210tasks.toolchains.interpreters import Interpreter, uv
from k210tasks.toolchains.program import run

#: what uv says when the index has the package, but no wheel for this machine
_NO_WHEEL = (
    "no wheels with a matching",
    "has no usable wheels",
    "has no wheels with a matching",
)


class NoWheel(ToolchainUnavailable):
    """The pinned packages have no wheel for this machine's platform."""

    def __init__(self, name: str, interpreter: Interpreter, detail: str):
        super().__init__(
            f"{name} has no wheel for {sys.platform} and CPython {interpreter.minor} "
            f"({interpreter.path}); use another compiler:, or set optional: true on the models "
            f"that need it\n  {detail.strip().splitlines()[-1].strip()}"
        )


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``."""
    if sys.platform == "win32":
        return folder / "Scripts" / "python.exe"
    return folder / "bin" / "python"


def create(
    name: str,
    folder: Path,
    interpreter: Interpreter,
    requirements: Path,
    *,
    index: str | None = None,
    megabytes: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make the environment ``folder`` and install ``requirements`` into it, all or an error.

    Every package must match a hash in the file, so it does not matter which index or
    mirror it comes from. ``index`` names one: an address, or a ``file://`` folder of wheels.
    """
    say(f"{name}: making an environment with {interpreter.path}")
    # --relocatable because the folder is renamed once everything in it has been proved
    venv = ["venv", "--relocatable", "--no-project", "--python", str(interpreter.path)]
    _run(name, [*venv, str(folder)], folder.parent, None)
    size = f" (about {megabytes} MB on disk)" if megabytes >= 10 else ""
    say(f"{name}: installing the pinned packages{size}")
    command = ["pip", "install", "--python", str(python_of(folder)), "--require-hashes"]
    # the file is complete: looking up what packages ask for would bring in what it leaves out
    command += ["--no-deps", "--only-binary", ":all:", "--no-progress"]
    if index is not None and index.startswith("file://"):
        command += ["--no-index", "--find-links", index]
    elif index is not None:
        command += ["--default-index", index]
    _run(name, [*command, "-r", str(requirements)], folder.parent, interpreter)


def _run(name: str, arguments: list[str], folder: Path, interpreter: Interpreter | None) -> None:
    """Run uv in ``folder``, where no project's settings are found; it dies with us."""
    # Its own settings, an index behind a password for one; not which Python, which we say.
    told = {k: v for k, v in os.environ.items() if k.startswith("UV_") and k != "UV_PYTHON"}
    ending = run([uv(), *arguments], environment=told, folder=folder)
    if ending.code == 0:
        return
    if interpreter is not None and any(text in ending.printed for text in _NO_WHEEL):
        raise NoWheel(name, interpreter, ending.printed)
    raise InstallFailed(name, f"uv {' '.join(arguments[:2])} failed", ending.printed)
