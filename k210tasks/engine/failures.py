"""Why a step has no result: the failures that are not the body's own."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from k210tasks.engine.job import StepFailed


class InputsMissing(StepFailed):
    def __init__(self, task: str, trouble: Exception, made_by: Sequence[str] = ()) -> None:
        hint = f"; it should come from {', '.join(made_by)} (made_by)" if made_by else ""
        super().__init__(f"{task}: {trouble}{hint}")


class InputChanged(StepFailed):
    def __init__(self, task: str, path: str) -> None:
        super().__init__(
            f"{task}: {path} changed while the step was reading it; nothing was recorded, "
            "run doit again"
        )


class OutputNotWritten(StepFailed):
    def __init__(self, task: str, path: str, log: str) -> None:
        super().__init__(f"{task}: the step ended without writing {path}; its log is {log}")


class OutputForeign(StepFailed):
    def __init__(self, task: str, path: str, source: str) -> None:
        other = f"what {source} gives" if source else "what it makes"
        remedy = ", or name it as the model's source" if source else ", or delete it"
        super().__init__(
            f"{task}: {path} exists, was not written by this task, and differs from {other}; "
            f"it is left as it is. Move it away{remedy}"
        )


class StepCrashed(StepFailed):
    def __init__(self, task: str, error: BaseException, log: str) -> None:
        super().__init__(
            f"{task}: unexpected {type(error).__name__}: {error}; the traceback is in {log}"
        )


class CannotWrite(StepFailed):
    def __init__(self, path: str, error: OSError) -> None:
        remedy = _REMEDIES.get(error.errno or 0, "")
        super().__init__(f"{path} cannot be written: {error.strerror or error}{remedy}")


#: what helps, by errno
_REMEDIES = {
    errno.EROFS: "; mount the disk writable, or copy the project to where you may write",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "; make it writable for you, or copy the project to where you may write",
    ),
    errno.EFBIG: "; the limit on the size of files (ulimit -f) is too low for it",
}

#: errno of a disk, or of a user's share of it, that is full
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class DiskFull(StepFailed):
    def __init__(self, task: str, folder: str) -> None:
        super().__init__(
            f"{task}: no space is left on the disk of {folder}; free some (k210 gc removes "
            "results nothing names any more), then run doit again: nothing finished is lost"
        )


def told(task: str, error: OSError, folder: str) -> StepFailed:
    """What the user is to read of an error of the operating system.

    ``folder``: the project's, or another on the disk that was written to.
    """
    if error.errno in FULL:
        return DiskFull(task, folder)
    if error.errno in _REMEDIES and error.filename is not None:
        return CannotWrite(str(error.filename), error)
    return StepFailed(str(error))


class ToolFailedBefore(StepFailed):
    def __init__(self, task: str, tool: str) -> None:
        super().__init__(
            f"{task}: needs the toolchain {tool}, which could not be had (see toolchain:{tool})"
        )


class FollowsSkipped(StepFailed):
    """Of an optional step; it is skipped too, and this is never shown."""

    def __init__(self, task: str, because: str) -> None:
        super().__init__(f"{task}: what it reads was skipped: {because}")
        self.because = because


class JudgedBad(StepFailed):
    def __init__(self, task: str, message: str) -> None:
        super().__init__(f"{task}: {message}")
