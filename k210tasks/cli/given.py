"""Reading the files a verb is given, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from k210tasks.bounded import read_bounded
from k210tasks.errors import K210Error


class CannotRead(K210Error):
    def __init__(self, path: str, why: str):
        super().__init__(f"{path} cannot be read: {why}")


class CannotWrite(K210Error):
    def __init__(self, path: str, why: str):
        super().__init__(f"{path} cannot be written: {why}")


class UnreadableKmodel(K210Error):
    """What is wrong with a kmodel, the file's name in front and a way out behind."""

    def __init__(self, path: str, error: Exception):
        super().__init__(f"{path}: {error}{_way_out(error)}")


def _way_out(error: Exception) -> str:
    from k210tasks.kmodel import NotAKmodel, Truncated

    if isinstance(error, Truncated):
        return "; copy or build it again"
    if isinstance(error, NotAKmodel) and "TFLite" in error.problem:
        return "; k210 convert makes a kmodel of it"
    if isinstance(error, NotAKmodel) and "kfpkg" in error.problem:
        return "; k210 inspect lists what a kfpkg holds"
    return ""


def read_bytes(path: str) -> bytes:
    """A whole file; raises :class:`CannotRead` naming it."""
    if not path:
        raise CannotRead("''", "no file is named; is a variable of the shell empty?")
    try:
        if Path(path).is_dir():
            raise CannotRead(path, "it is a folder")
        data = read_bounded(path)
    except (OSError, ValueError) as error:
        raise CannotRead(path, getattr(error, "strerror", None) or str(error)) from error
    if not data:
        raise CannotRead(path, "it is empty")
    return data


class WouldOverwrite(K210Error):
    """A file of the user's where a result would be written."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(
            f"{path} is no {kind}, and it would be overwritten; move it away, or give another -o"
        )


def refuse_foreign(path: Path, kind: str, is_one: Callable[[bytes], bool]) -> None:
    """Raise :class:`WouldOverwrite` for a file with content that is none of ``kind``, which
    ``is_one`` tells by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512) if path.is_file() else b""
    except OSError:  # none there, or writing it will say what is wrong
        return
    if head and not is_one(head):
        raise WouldOverwrite(path, kind)


def is_kmodel(data: bytes) -> bool:
    """Whether a file is a kmodel, of any version."""
    from k210tasks.kmodel import KmodelError, detect

    try:
        detect(data)
    except KmodelError:
        return False
    return True
