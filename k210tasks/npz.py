"""Writing an ``.npz`` sample by sample: same arrays, same bytes, and never all in memory."""

from __future__ import annotations

import io
import math
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

#: The oldest time a zip can name: the clock must not get into the bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


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
    """Copy one array of an ``.npz`` into an ``.npy`` of its own, without loading it."""
    with (
        zipfile.ZipFile(npz) as archive,
        archive.open(f"{name}.npy") as member,
        to.open("wb") as file,
    ):
        shutil.copyfileobj(member, file, 1 << 20)
