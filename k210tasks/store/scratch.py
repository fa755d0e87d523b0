"""Folders for what is thrown away, in the system's temporary one, swept after a kill.

A killed process cannot remove its own. Whoever comes next removes those whose lock nobody holds
(:class:`~k210tasks.store.locks.WorkFolder`); process ids, which are used again, decide nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from k210tasks.store.locks import WorkFolder, sweep


def _base() -> Path | None:
    """The user's own folder below the temporary one; None where it is not theirs alone."""
    name = f"k210tasks-{os.getuid()}" if hasattr(os, "getuid") else "k210tasks"
    base = Path(tempfile.gettempdir(), name)
    try:
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
        found = base.lstat()
    except OSError:
        return None
    ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return base if stat.S_ISDIR(found.st_mode) and ours and not found.st_mode & 0o022 else None


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for the time of a block."""
    base = _base()
    if base is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    sweep(str(base))
    with WorkFolder(str(base)) as work:
        yield Path(work.path)
