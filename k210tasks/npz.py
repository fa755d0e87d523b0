"""Writing an ``.npz`` sample by sample: same arrays, same bytes, and never all in memory; reading
``.npz`` and ``.npy`` that may be damaged.

Numpy's own readers raise nearly anything, and take the memory that a file claims.
"""

from __future__ import annotations

import io
import math
import shutil
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.process_wide import unwarned

#: The oldest time a zip can name: the clock must not get into the bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
_PIECE = 1 << 18
#: version of a head -> its reader
_HEADS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class BadArrays(ValueError):
    """A file that holds no arrays, or others than it says; the text is why, in a line."""


def mapped(path: Path) -> NDArray[Any]:
    """The array of an ``.npy``, mapped, so that a head that lies about its size allocates nothing.

    Raises :class:`BadArrays`, and OSError for a file that cannot be opened.
    """
    try:
        with path.open("rb"):
            pass
        with unwarned:  # of heads that Python 2 may have written
            found = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # heads are read as Python, renamed archives unpacked
        raise BadArrays((str(error).splitlines() or ["damaged"])[0]) from error
    if not isinstance(found, np.ndarray):  # a renamed .npz
        found.close()
        raise BadArrays("it is an archive of arrays")
    return found


def read(source: Path | IO[bytes], names: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` that is not compressed, or those of them that are named.

    Raises :class:`BadArrays`, and OSError for a file that cannot be read; more memory than the
    file has bytes is never taken.
    """
    with _members(source) as (archive, infos):
        return {name: _array(archive, infos[name]) for name in names or infos}


@contextmanager
def _members(
    source: Path | IO[bytes],
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """An ``.npz`` and its arrays by name; whatever its readers raise meanwhile is its fault."""
    try:
        with zipfile.ZipFile(source) as archive:
            infos = {info.filename[:-4]: info for info in archive.infolist()}
            if isinstance(source, Path):
                size = source.stat().st_size
            else:
                size = source.seek(0, io.SEEK_END)
            if sum(info.file_size for info in infos.values()) > size:
                raise BadArrays("its arrays are larger than the file")
            yield archive, infos
    except (BadArrays, OSError):
        raise
    except Exception as error:
        text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadArrays((text.splitlines() or [type(error).__name__])[0]) from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    member: Any
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADS:
            raise BadArrays(f"its array {info.filename} has an unknown form")
        with unwarned:
            shape, fortran, kind = _HEADS[version](member)
        size = math.prod(shape) * kind.itemsize
        if kind.hasobject or min(shape, default=0) < 0 or member.tell() + size != info.file_size:
            raise BadArrays(f"its array {info.filename} is not what its head says")
        data = np.empty(size, np.uint8)
        whole = data.data
        # In pieces that stay in the processor's cache: zipfile copies each of them twice.
        while whole and (taken := member.readinto(whole[:_PIECE])):
            whole = whole[taken:]
        if whole:
            raise BadArrays(f"its array {info.filename} ends early")
        return data.view(kind).reshape(shape, order="F" if fortran else "C")


class NpzWriter:
    """An uncompressed ``.npz`` whose bytes depend on the arrays alone. A context manager."""

    def __init__(self, path: Path | IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def __enter__(self) -> NpzWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def array(self, name: str, array: NDArray[Any]) -> None:
        """Add one array that is in memory."""
        self.stack(name, array.shape, array.dtype, [array])

    def stack(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any] | type[Any],
        parts: Iterable[NDArray[Any]],
    ) -> None:
        """Add an array of ``shape`` given as its consecutive parts, each taken when written."""
        header = io.BytesIO()
        kind = np.dtype(dtype)
        np.lib.format.write_array_header_1_0(
            header,
            {
                "descr": np.lib.format.dtype_to_descr(kind),
                "fortran_order": False,
                "shape": tuple(int(n) for n in shape),
            },
        )
        info = zipfile.ZipInfo(f"{name}.npy", _TIME)
        info.create_system = 3  # the same on Windows
        # Known beforehand, so that zipfile need not reserve 64-bit fields, which CPython
        # 3.10 and later ones write differently.
        info.file_size = len(header.getvalue()) + math.prod(shape) * kind.itemsize
        with self._zip.open(info, "w") as member:
            member.write(header.getvalue())
            for part in parts:
                member.write(np.ascontiguousarray(part, dtype=kind).tobytes())


def extract(npz: Path, name: str, to: Path) -> None:
    """Copy one array of an ``.npz`` into an ``.npy`` of its own, without loading it.

    Raises :class:`BadArrays`, and OSError where ``to`` cannot be written.
    """
    with (
        _members(npz) as (archive, infos),
        archive.open(infos[name]) as member,
        to.open("wb") as file,
    ):
        shutil.copyfileobj(member, file, 1 << 20)
