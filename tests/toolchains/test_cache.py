from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from k210tasks.toolchains.cache import exclusive

HOLD = """
import sys, time
from pathlib import Path
from k210tasks.toolchains.cache import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_free_lock_waits_for_nobody(tmp_path: Path) -> None:
    waited: list[str] = []
    for _ in range(2):
        with exclusive(tmp_path / "deep" / "a.lock", lambda: waited.append("x")):
            pass
    assert waited == []


def test_waits_for_the_holder_and_says_so(tmp_path: Path) -> None:
    other = holder(tmp_path / "a.lock")
    told = threading.Event()
    order: list[str] = []

    def wait() -> None:
        with exclusive(tmp_path / "a.lock", told.set):
            order.append("mine")

    thread = threading.Thread(target=wait)
    thread.start()
    assert told.wait(20)
    order.append("theirs")
    other.communicate("\n")
    thread.join(20)
    assert order == ["theirs", "mine"]


def test_killed_holder_lets_go(tmp_path: Path) -> None:
    other = holder(tmp_path / "a.lock")
    other.kill()
    other.communicate()
    with exclusive(tmp_path / "a.lock"):
        pass
