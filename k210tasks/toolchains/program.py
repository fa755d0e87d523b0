"""Running a vendor's program once, so that it never outlives us."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

SUPERVISOR = Path(__file__).parent / "workers" / "supervise.py"


#: What foreign code gets of our environment: where things lie, how text is written, how the
#: network is reached, how many threads there are. Not what others need to know: tokens, keys; nor
#: what loads foreign code into it: PYTHONPATH, LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH.
_HANDED_ON = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TEMP", "TMP",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "ALL_PROXY", "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA",
    "USERPROFILE",
})  # fmt: skip
_HANDED_ON_FROM = ("LC_", "XDG_", "OMP_", "OPENBLAS_", "MKL_", "TF_")


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a foreign program gets: of our environment what is listed above, and ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() in _HANDED_ON or name.startswith(_HANDED_ON_FROM)
    }
    return {**kept, **extra}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: ``code`` negative for a signal; ``printed`` on both outputs."""

    code: int
    printed: str

    @property
    def how(self) -> str:
        """Completes "the program …"."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"was ended by the signal {signal.Signals(-self.code).name}"
        return f"was ended by the signal {-self.code}"


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: TextIO | None = None,
    timeout: float | None = None,
) -> Ending:
    """Run ``command`` in ``folder`` to its end; what it prints also goes to ``log``.

    Raises TimeoutError when it takes longer than ``timeout`` seconds; it is ended then, and
    so it is when we are interrupted or killed.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=output,
            cwd=folder,
            env=clean_environment(environment),
        )
        assert process.stdin is not None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no end within {timeout:g} s") from None
        finally:
            process.stdin.close()  # the supervisor then ends the program, if it still runs
            process.wait()
            output.seek(0)
            printed = output.read().decode("utf-8", "replace")
            if log is not None:
                log.write(printed)
                log.flush()
    return Ending(code, printed)
