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
from collections.abc import Iterator

#: [size in bytes, mtime_ns, ctime_ns, inode]; a list, as JSON gives it back
Stamp = list[int]

#: A file system's clock ticks in steps of up to about 10 ms (2 s on FAT): two writes within
#: one tick can leave one stamp. A stamp younger than this when the content was read proves
#: nothing.
RACY_NS = 50_000_000

_BLOCK = 1 << 20


def stamp_of(path: str) -> Stamp:
    """The stamp of a file, links followed. Raises OSError."""
    s = os.stat(path)
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def is_racy(stamp: Stamp, read_at_ns: int) -> bool:
    """Whether the file could have changed after being read at ``read_at_ns`` unseen."""
    return max(stamp[1], stamp[2]) + RACY_NS > read_at_ns


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
    """
    with open(source, "rb") as src, open(target, "xb") as dst:
        cloned = _reflink(src.fileno(), dst.fileno())
        digest = hashlib.sha256()
        while block := src.read(_BLOCK):
            digest.update(block)
            if not cloned:
                dst.write(block)
        if sync:
            dst.flush()
            os.fsync(dst.fileno())
    # A clone shares the blocks that were just read: hashing the source hashed the copy.
    return digest.hexdigest()


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

    The temporary name starts with ".k210-" and ends with the process id and ".tmp";
    :func:`sweep_temporary` knows it.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".k210-{name}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        try:
            file = open(temporary, "xb")  # noqa: SIM115 (closed below, on either path)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            file = open(temporary, "xb")  # noqa: SIM115
        with file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_files(folder: str) -> Iterator[str]:
    """What :func:`write_atomically` left in a folder when its process died."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".k210-") and entry.name.endswith(".tmp"):
                    pid = entry.name.rsplit(".", 2)[1]
                    if pid.isdigit() and not alive(int(pid)):
                        yield entry.path
    except FileNotFoundError:
        return


def sweep_temporary(folder: str) -> None:
    """Remove the temporary files of dead processes from a folder."""
    for path in temporary_files(folder):
        with contextlib.suppress(OSError):
            os.unlink(path)


def alive(pid: int) -> bool:
    """Whether a process of that number exists (where it cannot be known: yes)."""
    if os.name == "nt":
        return True  # os.kill would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
