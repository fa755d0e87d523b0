"""``k210 init``: dodo.py, models.yaml and .gitignore for a new project, nothing overwritten."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.manifest.guess import Guess

EXAMPLE = "k210 init --firmware maixpy my_project"

_DODO = """\
import k210tasks

DOIT_CONFIG = k210tasks.doit_config("models.yaml")
models = k210tasks.tasks_from("models.yaml")
"""

_IGNORED = (".k210/", "build/", "workspace/*.tflite", "workspace/*.kmodel")


class NoPlace(K210Error):
    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"{folder} cannot hold a project: {why}")


class NoCompiler(K210Error):
    def __init__(self, firmware: str) -> None:
        super().__init__(f"no compiler here writes a kmodel that {firmware} loads")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.profiles import PROFILES

    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="default: here")
    parser.add_argument(
        "--firmware",
        choices=PROFILES,
        metavar="PROFILE",
        help=f"what the board runs: {', '.join(PROFILES)}",
    )


def run(args: argparse.Namespace) -> int:
    from k210tasks.manifest import guess

    root = Path(args.folder)
    compiler, firmware = guess.default_pair()
    if args.firmware:
        firmware = args.firmware
        usable = guess.usable_compiler(firmware)
        if usable is None:
            raise NoCompiler(firmware)
        compiler = usable
    try:
        root.mkdir(parents=True, exist_ok=True)
        found = guess.models_in(root)
        text = guess.text_for(found, compiler, firmware, root)
        written = _new(root / "models.yaml", text)
        if written:
            print(f"wrote {root / 'models.yaml'}: {_told(found, text)}")
        else:
            print(f"kept {root / 'models.yaml'}, which is there already")
        _dodo(root / "dodo.py")
        # Beside a models.yaml that was there, a .tflite may be what doit made of its source.
        _gitignore(root / ".gitignore", [g.source for g in found] if written else [])
    except OSError as error:
        raise NoPlace(root, error.strerror or str(error)) from None
    return 0


def _told(found: list[Guess], text: str) -> str:
    """What became of the models that lie there."""
    if not found:
        return "no model found; an example is in it as a comment"
    active = [g.name for g in found if f"\n  {g.name}:\n" in text or f'\n  "{g.name}":\n' in text]
    waiting = [g.name for g in found if g.name not in active]
    told = []
    if active:
        told.append(", ".join(active))
    if waiting:
        told.append(f"as a comment, for want of samples: {', '.join(waiting)}")
    return "; ".join(told)


def _new(path: Path, text: str) -> bool:
    """Write a file that is not there yet."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as out:
            out.write(text)
    except FileExistsError:
        return False
    return True


def _dodo(path: Path) -> None:
    if _new(path, _DODO):
        print(f"wrote {path}")
        return
    print(f"kept {path}, which is there already")
    if b"k210tasks" not in path.read_bytes():
        print("put this into it:\n" + "".join(f"    {line}\n" for line in _DODO.splitlines()))


def _gitignore(path: Path, sources: list[str]) -> None:
    """Add what doit writes, but keep sources that look like it."""
    old = path.read_bytes() if path.exists() else b""
    there = {line.strip() for line in old.decode("utf-8", "replace").splitlines()}
    kept = [
        f"!{source}"
        for source in sources
        if source.startswith("workspace/") and source.endswith(".tflite")
    ]
    lines = [line for line in (*_IGNORED, *kept) if line not in there]
    if not lines:
        return
    gap = b"\n" if old and not old.endswith(b"\n") else b""
    with path.open("ab") as out:
        out.write(gap + "".join(f"{line}\n" for line in lines).encode())
    print(f"added to {path}: {' '.join(lines)}")
