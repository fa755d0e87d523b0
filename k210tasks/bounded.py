"""Models and images for a board, read up to a size that none of them has."""

from __future__ import annotations

import errno
from pathlib import Path

#: four times the 16 MiB of flash: a float model has four bytes for each one of its kmodel
MAX_BYTES = 64 << 20


def read_bounded(path: str | Path) -> bytes:
    """A whole file of at most :data:`MAX_BYTES`; a device or a pipe, which may have no end, too.

    Raises OSError, with EFBIG where there is more, whose ``strerror`` can be shown.
    """
    with Path(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        why = f"it has more than the {MAX_BYTES >> 20} MiB of any file for a K210"
        raise OSError(errno.EFBIG, why, str(path))
    return data
