"""Files written whole or not at all, hashed, copied, and stamped.

A stamp says "nobody touched this file" without reading it: size, mtime_ns, ctime_ns and
inode. A program can set the mtime back, but not the ctime.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from typing import BinaryIO

from k210tasks.store.locks import claim, create_locked, remove_locked

#: [size in bytes, mtime_ns, ctime_ns, inode]; a list, as JSON gives it back
Stamp = list[int]

#: A file system's clock ticks in steps of up to about 10 ms: two writes within one tick can leave
#: one stamp. A stamp younger than this when the content was read proves nothing.
RACY_NS = 50_000_000
#: The same where times are kept in whole seconds (ext3, NFS before that) or every other (FAT).
COARSE_NS = 2_000_000_000

_BLOCK = 1 << 20


def stamp_of(path: str) -> Stamp:
    """The stamp of a file, links followed. Raises OSError."""
    s = os.stat(path)
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def grain_of(stamp: Stamp) -> int:
    """How far apart two writes have to be to leave two stamps, in ns.

    A file system that keeps whole seconds shows it by the time of change, which no program can
    set; on another the time has a fraction but by chance, and then the file is hashed once more.
    """
    return RACY_NS if stamp[2] % 1_000_000_000 else COARSE_NS


def is_racy(stamp: Stamp, read_at_ns: int) -> bool:
    """Whether the file could have changed after being read at ``read_at_ns`` unseen."""
    return max(stamp[1], stamp[2]) + grain_of(stamp) > read_at_ns


def stamp_of_placed(path: str) -> Stamp:
    """The stamp of a file that was just put there, whose content is known; one that is racy for
    more than a tick has mtime -1. Raises OSError."""
    stamp = stamp_of(path)
    if grain_of(stamp) > RACY_NS and is_racy(stamp, time.time_ns()):
        stamp[1] = -1
    return stamp


def stays_inside(relative: str) -> bool:
    """Whether a POSIX path that a file tells stays below the folder it is joined to, on any
    system; "" is the folder itself."""
    odd = any(c in relative for c in "\\:\0") or relative.startswith("/")
    return not odd and (not relative or not {"", ".", ".."} & set(relative.split("/")))


def hash_file(path: str) -> str:
    """SHA-256 of the content, hex. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def hash_stamped(path: str) -> tuple[str, Stamp]:
    """Content hash and the stamp that vouches for it; a racy stamp has mtime -1.

    Reads again while the file changes under the reading.
    """
    for _ in range(10):
        before = stamp_of(path)
        read_at = time.time_ns()
        digest = hash_file(path)
        if stamp_of(path) == before:
            break
    if is_racy(before, read_at):
        before[1] = -1
    return digest, before


def copy_file(source: str, target: str, *, sync: bool = False) -> str:
    """Copy (by reflink where the file system can) and return the SHA-256 of the copy.

    ``target`` must not exist. Never a hard link: the two must not share later writes.
    Raises :class:`Unreadable` for the source, OSError for the target.
    """
    with _opened(source) as src, open(target, "xb") as dst:
        cloned = _reflink(src.fileno(), dst.fileno())
        digest = hashlib.sha256()
        while block := _read(src):
            digest.update(block)
            if not cloned:
                dst.write(block)
        if sync:
            dst.flush()
            os.fsync(dst.fileno())
    # A clone shares the blocks that were just read: hashing the source hashed the copy.
    return digest.hexdigest()


class Unreadable(OSError):
    """What was to be copied is missing or cannot be read; the error itself is the cause."""


#: errors of opening that tell of the process or the machine, and nothing of the file
_NOT_THE_FILE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        if error.errno in _NOT_THE_FILE:
            raise
        raise Unreadable(*error.args) from error


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(_BLOCK)
    except OSError as error:
        raise Unreadable(*error.args) from error


def _reflink(source: int, target: int) -> bool:
    try:
        from fcntl import ioctl
    except ImportError:  # Windows
        return False
    try:
        ioctl(target, 0x40049409, source)  # FICLONE; btrfs, xfs, bcachefs
    except OSError:
        return False
    return True


def write_atomically(path: str, data: bytes, *, sync: bool = False) -> None:
    """Write a file that is either the old one or the new one at every moment.

    Until it is whole it is called ".k210-….tmp" and locked; :func:`sweep_temporary` knows both.
    """
    temporary, fd = create_locked(lambda: temporary_name(path))
    try:
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            if sync:
                os.fsync(fd)
        finally:
            if os.name == "nt":  # an open file cannot be renamed there
                os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        if os.name != "nt":
            os.close(fd)


def temporary_name(path: str) -> str:
    """A new name beside ``path`` for what is to be renamed to it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".k210-{name}.{secrets.token_hex(4)}.tmp")


def sweep_temporary(folder: str) -> None:
    """Remove what :func:`write_atomically` left in a folder when its process died."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(".k210-") and name.endswith(".tmp"):
                path = os.path.join(folder, name)
                if (fd := claim(path)) is not None:
                    remove_locked(fd, path)


def move_into_place(source: str, target: str, beside: str) -> None:
    """``os.replace``, also from another file system: then by way of ``beside``.

    ``beside`` is a name in the target's folder which the caller has noted down, so that it
    can be swept when the process is killed half way.
    """
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            shutil.copyfile(source, beside)
            os.replace(beside, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
