"""Locks between processes, and the sweeping of what the dead leave."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from k210tasks.store.files import sweep_temporary, write_atomically
from k210tasks.store.locks import NoLocks, WorkFolder, lock, sweep

HOLDER = """
import sys, time
from k210tasks.store.locks import WorkFolder, lock
with lock(sys.argv[1]), WorkFolder(sys.argv[2]) as work:
    open(work.path + "/half", "w").close()
    work.note(sys.argv[3])
    open(sys.argv[3], "w").close()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, (tmp_path / "l", tmp_path / "w", tmp_path / "x"))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_other_waits(tmp_path: Path) -> None:
    order = []
    ready = threading.Event()

    def other() -> None:
        with lock(str(tmp_path / "l"), ready.set):
            order.append("second")

    with lock(str(tmp_path / "l")):
        thread = threading.Thread(target=other)
        thread.start()
        assert ready.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not (tmp_path / "l").exists()


def test_many_at_once_never_overlap(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def add() -> None:
        for _ in range(30):
            with lock(str(tmp_path / "l")):
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "120"


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_frees_its_lock(
    holder: subprocess.Popen[str], tmp_path: Path, by: signal.Signals
) -> None:
    waiting = threading.Event()
    got = threading.Event()

    def wait() -> None:
        with lock(str(tmp_path / "l"), waiting.set):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    assert not got.is_set()
    holder.send_signal(by)
    holder.wait(10)
    assert got.wait(10)
    thread.join(10)


def test_work_of_the_living_stays_of_the_dead_goes(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert sweep(str(tmp_path / "w")) == 0
    assert len(list((tmp_path / "w").glob("*/half"))) == 1
    assert (tmp_path / "x").exists()
    holder.kill()
    holder.wait(10)
    assert sweep(str(tmp_path / "w")) == 1
    assert list((tmp_path / "w").iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_a_work_folder_cleans_up_after_itself(tmp_path: Path) -> None:
    with WorkFolder(str(tmp_path)) as work:
        Path(work.path, "file").write_text("x")
        assert sweep(str(tmp_path)) == 0
    assert list(tmp_path.iterdir()) == []


WRITER = """
import os, sys, time
from k210tasks.store.files import write_atomically
def replace(old, new):
    print(old, flush=True)
    time.sleep(60)
os.replace = replace
write_atomically(sys.argv[1], b"whole")
"""


def test_temporary_files_of_the_dead_go_of_the_living_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As from another container on the same disk, where our processes have no numbers.
    monkeypatch.setattr(os, "kill", _unknown)
    (tmp_path / ".k210-mine").write_text("the user's own")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "state.json")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    half = Path(writer.stdout.readline().strip())
    sweep_temporary(str(tmp_path))
    assert half.read_text() == "whole"
    monkeypatch.undo()
    writer.kill()
    writer.wait(10)
    sweep_temporary(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == [".k210-mine"]


def _unknown(pid: int, sign: int) -> None:
    raise ProcessLookupError


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(NoLocks) as caught, lock(str(tmp_path / "locks" / "a.lock")):
        raise AssertionError("two would be here")
    assert str(caught.value) == (
        f"{tmp_path}/locks lies on a file system without locks ({os.strerror(number)}), so that "
        "two runs could not be kept apart; use a folder on another one: K210_STORE names it for "
        "the store, K210_CACHE for tools, and a project's .k210 may be a link to it"
    )
    with WorkFolder(str(tmp_path / "work")) as work:  # nobody sweeps it, and it is one's own
        assert sweep(str(tmp_path / "work")) == 0
        assert Path(work.path).is_dir()
    write_atomically(str(tmp_path / "file"), b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
