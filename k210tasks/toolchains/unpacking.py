"""Unpacking an archive from the network without trusting it."""

from __future__ import annotations

import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from k210tasks.toolchains.errors import ToolchainError

MAX_BYTES = 1 << 30  # unpacked, in all
MAX_FILES = 20_000
_BLOCK = 1 << 20


class BadArchive(ToolchainError):
    """It is damaged, or holds what no release archive would."""

    def __init__(self, archive: Path, why: str):
        super().__init__(f"{archive.name} was not unpacked: {why}")


def unpack(
    archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES
) -> None:
    """Unpack a .tar(.xz|.gz|.bz2) or .zip, told by its content, into the empty ``folder``.

    Refuses absolute paths and ``..``, links that lead out, devices and pipes, two entries of
    one name, more than ``max_files`` entries, and more than ``max_bytes`` however few bytes
    the archive claims to hold. Owners and odd permissions are not taken over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, folder, max_bytes, max_files)
        else:
            _untar(archive, folder, max_bytes, max_files)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression method that Python does not know
    ) as error:
        raise BadArchive(archive, f"it is damaged or no archive ({error})") from error


class _Taker:
    """Counts what was taken and decides where an entry may go."""

    def __init__(self, archive: Path, folder: Path, max_bytes: int, max_files: int):
        self.archive = archive
        self.folder = folder
        self.left = max_bytes
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.entries = 0
        self.taken: set[str] = set()

    def refuse(self, why: str) -> BadArchive:
        return BadArchive(self.archive, why)

    def place(self, name: str) -> Path:
        """The path of an entry inside our folder, its parents made."""
        self.entries += 1
        if self.entries > self.max_files:
            raise self.refuse(f"it has more than {self.max_files} entries")
        pure = PurePosixPath(name.replace("\\", "/"))
        parts = pure.parts
        if pure.is_absolute() or ".." in parts or ":" in name or "\0" in name:
            raise self.refuse(f"its entry {name!r} lies outside its folder")
        path = self.folder.joinpath(*parts)
        for parent in path.parents:  # a link put there by an earlier entry must not be followed
            if parent == self.folder:
                break
            if parent.is_symlink():
                raise self.refuse(f"its entry {name!r} lies behind a link")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def new(self, name: str, path: Path) -> None:
        key = path.as_posix().casefold()
        if key in self.taken or path.is_symlink():
            raise self.refuse(f"it holds {name!r} twice")
        self.taken.add(key)

    def copy(self, name: str, source: IO[bytes], path: Path, executable: bool) -> None:
        self.new(name, path)
        with path.open("xb") as out:
            while block := source.read(min(_BLOCK, self.left + 1)):
                self.left -= len(block)
                if self.left < 0:
                    raise self.refuse(f"it unpacks to more than {self.max_bytes} bytes")
                out.write(block)
        path.chmod(0o755 if executable else 0o644)

    def link(self, name: str, target: str, path: Path) -> None:
        """A relative link to a place inside the folder."""
        pure = PurePosixPath(target)
        inside = posixpath.normpath((path.parent.relative_to(self.folder) / target).as_posix())
        if pure.is_absolute() or inside == ".." or inside.startswith(("../", "..\\")):
            raise self.refuse(f"its link {name!r} leads out of its folder, to {target!r}")
        self.new(name, path)
        path.symlink_to(target)


def _untar(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    taker = _Taker(archive, folder, max_bytes, max_files)
    with tarfile.open(archive, "r:*") as tar:
        for entry in _entries(tar, taker):
            path = taker.place(entry.name)
            if entry.isdir():
                path.mkdir(exist_ok=True)
            elif entry.isreg():
                source = tar.extractfile(entry)
                assert source is not None
                taker.copy(entry.name, source, path, bool(entry.mode & 0o100))
            elif entry.issym():
                taker.link(entry.name, entry.linkname, path)
            elif entry.islnk():
                first = taker.place(entry.linkname)
                if not first.is_file() or first.is_symlink():
                    raise taker.refuse(f"its hard link {entry.name!r} leads to no earlier file")
                with first.open("rb") as source:
                    taker.copy(entry.name, source, path, os.access(first, os.X_OK))
            else:
                raise taker.refuse(f"its entry {entry.name!r} is a device or a pipe")
    if not taker.entries:
        raise taker.refuse("it is empty")


def _entries(tar: tarfile.TarFile, taker: _Taker) -> Iterator[tarfile.TarInfo]:
    """One by one: a hostile archive is not listed whole before the first check."""
    for entry in tar:
        if entry.size > taker.max_bytes:
            raise taker.refuse(
                f"its entry {entry.name!r} claims {entry.size} bytes, the limit is "
                f"{taker.max_bytes}"
            )
        yield entry


def _unzip(archive: Path, folder: Path, max_bytes: int, max_files: int) -> None:
    taker = _Taker(archive, folder, max_bytes, max_files)
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            path = taker.place(entry.filename)
            mode = entry.external_attr >> 16
            if entry.is_dir():
                path.mkdir(exist_ok=True)
            elif stat.S_ISLNK(mode):
                if entry.file_size > 4096:
                    raise taker.refuse(f"its link {entry.filename!r} is no link")
                taker.link(entry.filename, file.read(entry).decode("utf-8", "replace"), path)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise taker.refuse(f"its entry {entry.filename!r} is a device or a pipe")
            else:
                with file.open(entry) as source:
                    taker.copy(entry.filename, source, path, bool(mode & 0o100))
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
