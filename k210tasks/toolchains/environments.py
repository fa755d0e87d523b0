"""Making a Python environment for one tool, with uv, from a file of pinned hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from k210tasks.toolchains.errors import InstallFailed, ToolchainUnavailable
from k210tasks.toolchains.interpreters import Interpreter, uv

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
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Make the environment ``folder`` and install ``requirements`` into it, all or an error.

    Every package must match a hash in the file, so it does not matter which index or
    mirror it comes from. ``index`` names one: an address, or a ``file://`` folder of wheels.
    """
    say(f"{name}: making an environment with {interpreter.path}")
    # --relocatable because the folder is renamed once everything in it has been proved
    _run(name, ["venv", "--relocatable", "--python", str(interpreter.path), str(folder)], None)
    say(f"{name}: installing the pinned packages")
    command = ["pip", "install", "--python", str(python_of(folder)), "--require-hashes"]
    # the file is complete: looking up what packages ask for would bring in what it leaves out
    command += ["--no-deps", "--only-binary", ":all:", "--no-progress"]
    if index is not None and index.startswith("file://"):
        command += ["--no-index", "--find-links", index]
    elif index is not None:
        command += ["--default-index", index]
    _run(name, [*command, "-r", str(requirements)], interpreter)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without what would make another Python load foreign code."""
    dropped = {"LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k not in dropped}
    return {**kept, **extra}


def _run(name: str, arguments: list[str], interpreter: Interpreter | None) -> None:
    environment = clean_environment({})
    environment.pop("UV_PYTHON", None)
    done = subprocess.run(
        [uv(), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd=Path(arguments[-1]).parent if arguments[0] == "venv" else None,
    )
    if done.returncode == 0:
        return
    detail = done.stderr or done.stdout
    if interpreter is not None and any(text in detail for text in _NO_WHEEL):
        raise NoWheel(name, interpreter, detail)
    raise InstallFailed(name, f"uv {' '.join(arguments[:2])} failed", detail)
