from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from k210tasks.toolchains.program import Ending, run
from tests.toolchains.test_ncc import alive

ROOT = Path(__file__).parents[2]


def python(code: str, folder: Path, **more: object) -> Ending:
    options: dict[str, Any] = {"environment": {}, "folder": folder, **more}
    return run([sys.executable, "-c", code], **options)


def test_both_outputs_and_exit_code(tmp_path: Path) -> None:
    code = "import sys; print('out', flush=True); sys.stderr.write('err\\n'); sys.exit(3)"
    with (tmp_path / "log").open("w") as log:
        ending = python(code, tmp_path, log=log)
    assert ending == Ending(3, "out\nerr\n")
    assert ending.how == "ended with exit code 3"
    assert (tmp_path / "log").read_text() == "out\nerr\n"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_signal(number: signal.Signals, tmp_path: Path) -> None:
    ending = python(f"import os; os.kill(os.getpid(), {int(number)})", tmp_path)
    assert ending.how == f"was ended by the signal {number.name}"


def test_folder_and_environment(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['ONE'], 'PYTHONPATH' in os.environ)"
    ending = python(code, tmp_path, environment={"ONE": "1"})
    assert ending.printed == f"{tmp_path} 1 False\n"


def test_what_others_need_not_know_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "K210_SIGNING_KEY", "LD_AUDIT",
                 "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "ANYTHING"):  # fmt: skip
        monkeypatch.setenv(name, "/secret")
    monkeypatch.setenv("LC_NUMERIC", "C")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    seen = python("import os; print(*sorted(os.environ))", tmp_path).printed.split()
    assert "/secret" not in [os.environ[name] for name in seen if name in os.environ]
    assert {"PATH", "LC_NUMERIC", "https_proxy"} <= set(seen)


def test_stdin_is_empty(tmp_path: Path) -> None:
    assert python("import sys; print(repr(sys.stdin.read()))", tmp_path).printed == "''\n"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    ending = python("import os; os.write(1, b'a\\xffb')", tmp_path)
    assert ending.printed == "a\ufffdb"


def test_no_such_program(tmp_path: Path) -> None:
    ending = run(["/no/such/program"], environment={}, folder=tmp_path)
    assert ending == Ending(126, "cannot start /no/such/program: No such file or directory\n")


def test_too_slow(tmp_path: Path) -> None:
    sign = tmp_path / "pid"
    code = f"import os, time; open({str(sign)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(TimeoutError, match="no end within 4 s"):
        python(code, tmp_path, timeout=4)
    assert not alive(int(sign.read_text()))


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C, as a terminal sends it: to the whole group. Nothing is left running."""
    sign = tmp_path / "pid"
    program = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"open({str(sign)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    code = (
        "import sys; from pathlib import Path; from k210tasks.toolchains.program import run\n"
        f"run([sys.executable, '-c', {program!r}], environment={{}}, folder=Path('/'))"
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 30
    while not (sign.exists() and sign.read_text()):
        assert ours.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    import os

    os.killpg(ours.pid, signal.SIGINT)
    _, told = ours.communicate(timeout=20)
    assert b"KeyboardInterrupt" in told
    end = time.monotonic() + 10
    while alive(int(sign.read_text())):
        assert time.monotonic() < end, "the program outlived the interrupt"
        time.sleep(0.02)
