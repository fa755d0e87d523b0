"""Unpacking an archive from the network without trusting it."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from k210tasks.toolchains.errors import ToolchainError

MAX_BYTES = 1 << 30  # unpacked, in all
MAX_FILES = 20_000
MAX_NAME, MAX_PATH = 255, 1000  # bytes of UTF-8 that file systems hold, the latter below ours
_BLOCK = 1 << 20
#: first bytes -> what reads a tar that is packed so
_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"]\0\0": lzma.open,
}  # fmt: skip
#: errno of the disk that is unpacked to, not of what the archive asks for
_OF_THE_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE,
    errno.ENFILE, errno.ESTALE,
}  # fmt: skip


class BadArchive(ToolchainError):
    """It is damaged, or holds what no release archive would."""

    def __init__(self, archive: Path, why: str):
        super().__init__(f"{archive.name} was not unpacked: {why}")


class CannotUnpack(ToolchainError):
    """The archive is not to blame."""

    def __init__(self, archive: Path, error: OSError):
        where = f" at {error.filename}" if error.filename else ""
        super().__init__(
            f"{archive.name} was not unpacked: {error.strerror}{where}. Mend that, or set "
            "K210_CACHE to a folder for tools elsewhere"
        )


def unpack(
    archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a .tar(.xz|.gz|.bz2) or .zip, told by its content, into the empty ``folder``.

    Refuses absolute paths and ``..``, names that not every file system holds, links that lead
    out, devices and pipes, two entries whose names are equal but for case, more than
    ``max_files`` entries, and more than ``max_bytes`` however few bytes the archive claims to
    hold. Owners and odd permissions are not taken over.

    Raises :class:`BadArchive`, or :class:`CannotUnpack` where the disk is the trouble.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder, max_bytes, max_files)
        else:
            _untar(archive, folder, max_bytes, max_files)
    except BadArchive:
        raise
    except Exception as error:  # damaged ones make Python's readers raise nearly anything
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise CannotUnpack(archive, error) from error
        why = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, OSError) and error.strerror:
            why = error.strerror
        elif isinstance(error, MemoryError):
            why = "it takes more memory than there is"
        raise BadArchive(archive, f"it is damaged or no archive ({why})") from error


class _Taker:
    """Counts what was taken and decides where an entry may go."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int, max_files: int):
        self.archive = archive
        self.folder = folder
        self.left = max_bytes
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.entries = 0
        #: path without regard to case -> as it is written, and what is there
        self.taken: dict[str, tuple[PurePosixPath, str]] = {}

    def refuse(self, why: str) -> BadArchive:
        return BadArchive(self.archive, why)

    def path(self, name: str) -> PurePosixPath:
        """Where an entry wants to be, relative to our folder."""
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or ".." in pure.parts or ":" in name or "\0" in name:
            raise self.refuse(f"its entry {_shown(name)} lies outside its folder")
        sizes = [len(part.encode("utf-8", "surrogatepass")) for part in pure.parts]
        if max(sizes, default=0) > MAX_NAME or sum(sizes) + len(sizes) > MAX_PATH:
            raise self.refuse(
                f"its entry {_shown(name)} has a longer name than file systems hold: {MAX_NAME} "
                f"bytes, and {MAX_PATH} with its folders"
            )
        return pure

    def new(self, name: str, kind: str) -> Path:
        """The place of an entry, a "file", "link" or "folder": its parents are made, and
        nothing is there."""
        self.entries += 1
        if self.entries > self.max_files:
            raise self.refuse(f"it has more than {self.max_files} entries")
        path = self.path(name)
        if not path.parts and kind != "folder":
            raise self.refuse(f"its entry {_shown(name)} has no name")
        for parent in reversed(path.parents[:-1]):
            had = self._there(parent, "folder")
            if had not in (None, "folder"):  # a link that an earlier entry put there, too
                raise self.refuse(f"its entry {_shown(name)} lies behind a {had}")
        if self._there(path, kind) not in (None, "folder" if kind == "folder" else ""):
            raise self.refuse(f"it holds {_shown(name)} twice")
        full = self.folder / path
        (full if kind == "folder" else full.parent).mkdir(parents=True, exist_ok=True)
        return full

    def _there(self, path: PurePosixPath, kind: str) -> str | None:
        """What is there already under that name; None: nothing, and it is ``kind`` now."""
        key = path.as_posix().casefold()
        if key not in self.taken:
            self.taken[key] = (path, kind)
            return None
        spelled, had = self.taken[key]
        if spelled != path:
            two = f"{_shown(str(spelled))} and {_shown(str(path))}"
            raise self.refuse(f"the names of its entries {two} differ by case only")
        return had

    def is_file(self, name: str) -> bool:
        path = self.path(name)
        return self.taken.get(path.as_posix().casefold()) == (path, "file")

    def copy(self, name: str, source: IO[bytes], executable: bool) -> None:
        path = self.new(name, "file")
        with path.open("xb") as out:
            while block := source.read(min(_BLOCK, self.left + 1)):
                self.left -= len(block)
                if self.left < 0:
                    raise self.refuse(f"it unpacks to more than {self.max_bytes} bytes")
                out.write(block)
        path.chmod(0o755 if executable else 0o644)

    def link(self, name: str, target: str) -> None:
        """A relative link to a place inside the folder: ``..`` in front only, since behind
        another link it would not lead where it seems to."""
        pure = PurePosixPath(target)
        if not target or "\0" in target:
            raise self.refuse(f"its link {_shown(name)} leads nowhere")
        inside = posixpath.normpath((self.path(name).parent / target).as_posix())
        down = [part for part in pure.parts if part != ".."]
        if (
            pure.is_absolute()
            or inside.split("/")[0] == ".."
            or "\\" in target
            or pure.parts[len(pure.parts) - len(down) :] != tuple(down)
        ):
            raise self.refuse(
                f"its link {_shown(name)} leads out of its folder, to {_shown(target)}"
            )
        self.new(name, "link").symlink_to(target)


def _shown(name: str) -> str:
    """A name from an archive; of a long one the beginning."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


class _Meted:
    """A stream of which nobody reads much at a time: Python's tar reader takes long names and
    headers at once, as large as they claim to be."""

    def __init__(self, stream: IO[bytes], taker: _Taker):
        self.stream = stream
        self.taker = taker
        self.tell, self.seek, self.close = stream.tell, stream.seek, stream.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 16 * _BLOCK:
            raise self.taker.refuse(f"one of its headers claims {size} bytes")
        return self.stream.read(size)


def _untar(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    taker = _Taker(archive, folder, max_bytes, max_files)
    with archive.open("rb") as file:
        head = file.read(6)
    opened = next((how for mark, how in _PACKED.items() if head.startswith(mark)), None)
    with opened(archive) if opened is not None else archive.open("rb") as stream:
        meted: Any = _Meted(stream, taker)
        tar = tarfile.open(fileobj=meted, mode="r:")  # noqa: SIM115
        for entry in _entries(tar, taker):
            if entry.isdir():
                taker.new(entry.name, "folder")
            elif entry.isreg():
                source = tar.extractfile(entry)
                assert source is not None
                taker.copy(entry.name, source, bool(entry.mode & 0o100))
            elif entry.issym():
                taker.link(entry.name, entry.linkname)
            elif entry.islnk():
                if not taker.is_file(entry.linkname):
                    raise taker.refuse(
                        f"its hard link {_shown(entry.name)} leads to no earlier file"
                    )
                first = folder / taker.path(entry.linkname)
                with first.open("rb") as source:
                    taker.copy(entry.name, source, os.access(first, os.X_OK))
            else:
                raise taker.refuse(f"its entry {_shown(entry.name)} is a device or a pipe")
    if not taker.entries:
        raise taker.refuse("it is empty")


def _entries(tar: tarfile.TarFile, taker: _Taker) -> Iterator[tarfile.TarInfo]:
    """One by one: a hostile archive is not listed whole before the first check."""
    for entry in tar:
        if entry.size > taker.max_bytes:
            raise taker.refuse(
                f"its entry {_shown(entry.name)} claims {entry.size} bytes, the limit is "
                f"{taker.max_bytes}"
            )
        yield entry


def _unzip(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    taker = _Taker(archive, folder, max_bytes, max_files)
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            mode = entry.external_attr >> 16
            if entry.is_dir():
                taker.new(entry.filename, "folder")
            elif stat.S_ISLNK(mode):
                if entry.file_size > 4096:
                    raise taker.refuse(f"its link {_shown(entry.filename)} is no link")
                with file.open(entry) as source:
                    target = source.read(4096).decode("utf-8", "replace")
                taker.link(entry.filename, target)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise taker.refuse(f"its entry {_shown(entry.filename)} is a device or a pipe")
            else:
                with file.open(entry) as source:
                    taker.copy(entry.filename, source, bool(mode & 0o100))
    if not taker.entries:
        raise taker.refuse("it is empty")


def find_program(folder: Path, name: str, archive: Path) -> Path:
    """The one file ``name`` (or ``name.exe``) below ``folder``, made executable."""
    found = sorted(p for p in folder.rglob("*") if p.name in (name, name + ".exe") and p.is_file())
    if not found:
        raise BadArchive(archive, f"it holds no file {name}")
    program = min(found, key=lambda p: (len(p.parts), str(p)))
    program.chmod(0o755)
    return program


def remove(folder: Path) -> None:
    """Delete a folder tree, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
