"""Finding a Python of the right version that really starts.

Looked for in this order: the interpreter named in models.yaml, the one named in the
tool's environment variable, ``python3.X`` on PATH, pyenv's versions folder, what ``uv
python find`` knows; and last, ``uv python install``, which needs the network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k210tasks.toolchains.errors import NoInterpreter

_ASK = (
    "import json,platform,struct,sys;"
    "print(json.dumps({'executable': sys.executable, 'version': list(sys.version_info[:3]),"
    "'implementation': platform.python_implementation(), 'bits': struct.calcsize('P') * 8}))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: Path
    version: tuple[int, int, int]

    @property
    def minor(self) -> str:
        """``3.10``."""
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that was looked at: an interpreter, or why there is none to be used."""

    where: str
    interpreter: Interpreter | None = None
    why_not: str = ""

    def __str__(self) -> str:
        if self.interpreter is not None:
            version = ".".join(map(str, self.interpreter.version))
            return f"{self.where}: CPython {version}"
        return f"{self.where}: {self.why_not}"


def ask(path: Path | str, where: str, versions: Sequence[str]) -> Finding:
    """Start ``path`` and see what it is. A pyenv shim, say, may exist and not start."""
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return Finding(where, why_not="no such file")
    except OSError as error:
        return Finding(where, why_not=f"does not start: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Finding(where, why_not="does not answer within 20 s")
    try:
        said = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (ValueError, IndexError):
        said = None
    if not isinstance(said, dict):
        lines = (done.stderr or done.stdout).strip().splitlines()
        return Finding(where, why_not=f"does not start: {lines[0] if lines else 'no answer'}")
    version = tuple(said["version"])
    found = f"{said['implementation']} {'.'.join(map(str, version))}"
    if said["implementation"] != "CPython" or said["bits"] != 64:
        return Finding(where, why_not=f"is {found}, {said['bits']} bit; needed is 64-bit CPython")
    if f"{version[0]}.{version[1]}" not in versions:
        return Finding(where, why_not=f"is {found}; needed is {', '.join(versions)}")
    return Finding(where, Interpreter(Path(said["executable"]), version))


def search(
    versions: Sequence[str],
    *,
    chosen: str | None = None,
    variable: str | None = None,
    install: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Finding]:
    """Every place in turn, lazily: stop at the first usable one to look no further.

    A place the user named is the only one looked at. ``install`` allows the download of
    an interpreter as the last resort.
    """
    named = os.environ.get(variable) if variable else None
    if chosen:
        yield ask(Path(chosen).expanduser(), f"{chosen} (models.yaml)", versions)
        return
    if named:
        yield ask(Path(named).expanduser(), f"{named} (${variable})", versions)
        return
    for version in versions:
        name = f"python{version}"
        paths = _on_path(name)
        if not paths:
            yield Finding(f"{name} on PATH", why_not="not there")
        for path in paths:
            yield ask(path, str(path), versions)
    yield from _pyenv(versions)
    yield from _uv_find(versions)
    if install:
        yield _uv_install(versions[0], say)


def find(
    name: str,
    versions: Sequence[str],
    *,
    chosen: str | None = None,
    variable: str,
    say: Callable[[str], None] = lambda text: None,
) -> Interpreter:
    """The first usable interpreter; :class:`NoInterpreter` lists every place looked at."""
    looked = []
    for finding in search(versions, chosen=chosen, variable=variable, install=True, say=say):
        if finding.interpreter is not None:
            return finding.interpreter
        looked.append(str(finding))
    raise NoInterpreter(name, versions, looked, variable)


def _on_path(name: str) -> list[str]:
    """Every file of that name on PATH: the first may be a shim, a later one a real Python."""
    found = []
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = shutil.which(name, path=folder) if folder else None
        if path and path not in found:
            found.append(path)
    return found


def _pyenv(versions: Sequence[str]) -> Iterator[Finding]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    where = f"pyenv's {root}"
    if not root.is_dir():
        yield Finding(where, why_not="no such folder")
        return
    relative = "python.exe" if sys.platform == "win32" else "bin/python"
    met = False
    for version in versions:
        folders = sorted(root.glob(f"{version}.*"), key=_newest, reverse=True)
        for folder in folders:
            if (folder / relative).exists():
                met = True
                yield ask(folder / relative, str(folder / relative), versions)
    if not met:
        yield Finding(where, why_not=f"has none of {', '.join(versions)}")


def _newest(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.name.split(".") if part.isdigit())


def uv() -> str:
    """The path of the uv program that is installed beside us."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def _uv_find(versions: Sequence[str]) -> Iterator[Finding]:
    for version in versions:
        try:
            done = subprocess.run(
                [
                    uv(),
                    "python",
                    "find",
                    "--system",
                    "--no-project",
                    "--no-python-downloads",
                    version,
                ],
                capture_output=True,
                text=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Finding(f"uv python find {version}", why_not=str(error))
            continue
        where = f"uv python find {version}"
        path = done.stdout.strip()
        if done.returncode or not path:
            yield Finding(where, why_not="finds none")
        else:
            yield ask(path, f"{where}: {path}", versions)


def _cause(lines: Sequence[str]) -> str:
    """What uv says last is the deepest cause of its error."""
    return lines[-1].removeprefix("cause: ") if lines else ""


def _uv_install(version: str, say: Callable[[str], None]) -> Finding:
    where = f"uv python install {version}"
    say(f"no usable Python found; {where}")
    try:
        done = subprocess.run(
            [uv(), "python", "install", "--no-progress", version],
            capture_output=True,
            text=True,
            timeout=1200,
            stdin=subprocess.DEVNULL,
            # The last resort, and asked again on every run that still lacks it: where there is
            # no way out to the network, uv's usual three retries are eight seconds of nothing.
            env={"UV_HTTP_RETRIES": "1", **os.environ},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(where, why_not=str(error))
    if done.returncode:
        lines = [line.strip() for line in done.stderr.strip().splitlines()]
        return Finding(where, why_not=_cause(lines) or f"exit code {done.returncode}")
    return next(_uv_find([version]))
