"""Locks between processes that the operating system frees when their holder dies.

A lock is an open file (``flock`` or, on Windows, ``msvcrt.locking``): no lock survives
a killed process. The file is removed while the lock is held, so none pile up. Unfinished
files are locked by whoever writes them, so that what the dead left can be told from what
the living make, also from another container, where process ids say nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator

from k210tasks.errors import K210Error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: seconds between two tries where waiting cannot be left to the kernel
_PAUSE = 0.05
_BINARY = getattr(os, "O_BINARY", 0)


#: errno of a file system that has no locks
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class NoLocks(K210Error):
    def __init__(self, path: str, error: OSError) -> None:
        super().__init__(
            f"{os.path.dirname(os.path.abspath(path))} lies on a file system without locks "
            f"({error.strerror}), so that two runs could not be kept apart; use a folder on "
            "another one: K210_STORE names it for the store, K210_CACHE for tools, and a project's "
            ".k210 may be a link to it"
        )


def _try_lock(fd: int) -> bool:
    if fcntl is not None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    import msvcrt

    try:
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True


def _wait_lock(fd: int) -> None:
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return
    while not _try_lock(fd):
        time.sleep(_PAUSE)


def _is_file(fd: int, path: str) -> bool:
    """Whether the path still names the open file: its last holder may have removed it."""
    try:
        on_disk = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (on_disk.st_ino, on_disk.st_dev) == (opened.st_ino, opened.st_dev)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)


def create_locked(name: Callable[[], str]) -> tuple[str, int]:
    """A new file, locked: its path, one that ``name()`` made, and its open descriptor.

    :func:`claim` leaves it alone until the descriptor is closed, or its process ends.
    """
    while True:
        path = name()
        fd = _open(path)
        try:
            ours = _try_lock(fd)
        except OSError:  # a file system without locks: nobody can claim it either
            return path, fd
        # Between opening and locking a sweeper may have taken it for a dead one's.
        if ours and _is_file(fd, path):
            return path, fd
        os.close(fd)


def _ours(fd: int, path: str) -> int | None:
    """``fd``, of the file at ``path``, now locked by us; None, and closed, where another has it."""
    with contextlib.suppress(OSError):
        if _try_lock(fd) and _is_file(fd, path):
            return fd
    os.close(fd)
    return None


def claim(path: str) -> int | None:
    """The descriptor of a file whose maker is dead, now locked by us; None: it is in use."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return None
    return _ours(fd, path)


def remove_locked(fd: int, path: str) -> None:
    """Remove a file that we hold locked, and close it."""
    if os.name == "nt":  # an open file cannot be removed there: after closing, if we are lucky
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
    os.close(fd)


def try_locked(path: str) -> int | None:
    """The descriptor of the lock named by ``path``, now ours; None where another has it."""
    try:
        fd = _open(path)
    except OSError:
        return None
    return _ours(fd, path)


@contextlib.contextmanager
def lock(path: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock named by ``path``; ``waiting()`` is called once if another has it.

    Raises :class:`NoLocks` where the file system has none.
    """
    told = False
    while True:
        fd = _open(path)
        try:
            if not _try_lock(fd):
                if waiting is not None and not told:
                    waiting()
                    told = True
                _wait_lock(fd)
            if _is_file(fd, path):
                break
        except OSError as error:
            os.close(fd)
            if error.errno in _NO_LOCKS:
                raise NoLocks(path, error) from error
            raise
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    try:
        yield
    finally:
        remove_locked(fd, path)


class WorkFolder:
    """A folder for unfinished files that is swept when its process is dead.

    Its lock file stands beside it for as long as the process lives. ``note`` writes down
    temporary files that must stand elsewhere, so that :func:`sweep` finds them too.
    """

    def __init__(self, base: str) -> None:
        self._lock, self._fd = create_locked(
            lambda: os.path.join(base, f"{secrets.token_hex(8)}.lock")
        )
        self.path = self._lock.removesuffix(".lock")
        os.mkdir(self.path)

    def note(self, path: str) -> None:
        """Remember a temporary file outside of this folder. Call before creating it."""
        with open(os.path.join(self.path, "elsewhere"), "a", encoding="utf-8") as file:
            file.write(os.path.abspath(path) + "\n")

    def __enter__(self) -> WorkFolder:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        remove_locked(self._fd, self._lock)


def sweep(base: str) -> int:
    """Remove the work folders of dead processes; how many there were."""
    swept = 0
    try:
        names = os.listdir(base)
    except FileNotFoundError:
        return 0
    for name in names:
        if not name.endswith(".lock"):
            continue
        path = os.path.join(base, name)
        if (fd := claim(path)) is None:
            continue
        folder = path[: -len(".lock")]
        with (
            contextlib.suppress(OSError),
            open(os.path.join(folder, "elsewhere"), encoding="utf-8") as noted,
        ):
            for line in noted:
                with contextlib.suppress(OSError):
                    os.unlink(line.rstrip("\n"))
        shutil.rmtree(folder, ignore_errors=True)
        remove_locked(fd, path)
        swept += 1
    return swept
