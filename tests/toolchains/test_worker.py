from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from k210tasks.toolchains import worker as worker_module
from k210tasks.toolchains.catalogue import START
from k210tasks.toolchains.errors import BadRequest, OperationFailed, WorkerDied
from k210tasks.toolchains.interpreters import search
from k210tasks.toolchains.worker import Worker, close_all, shared
from tests.toolchains.test_ncc import alive

COMMAND = [sys.executable, "-I", str(START), str(Path(__file__).with_name("fake_worker.py"))]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def worker() -> Iterator[Worker]:
    own = Worker("tool", COMMAND, dict(os.environ))
    yield own
    own.close()


def call(worker: Worker, op: str, **args: Any) -> dict[str, Any]:
    return worker.call(op, args, doing="compiling a.tflite")


def gone(pid: int, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_call(worker: Worker, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    with (tmp_path / "a.log").open("w") as log:
        result = worker.call(
            "add", {"a": 2, "b": 3}, doing="x", log=log, progress=lambda *a: steps.append(a)
        )
    assert result["sum"] == 5
    assert steps == [(1, 3, "adding"), (2, 3, "adding"), (3, 3, "adding")]
    assert result["printed"] == "python prints\nC prints\n"
    assert (tmp_path / "a.log").read_text() == "python prints\nC prints\n"


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10", "3.13"])
def test_every_python_that_workers_meet(version: str) -> None:
    """Parsing is not enough: CPython 3.7 lacks much that the same text may mean."""
    found = next((f.interpreter for f in search([version]) if f.interpreter), None)
    if found is None:
        pytest.skip(f"there is no CPython {version} on this machine")
    own = Worker("tool", [str(found.path), *COMMAND[1:]], dict(os.environ))
    try:
        assert call(own, "add", a=2, b=3)["sum"] == 5
        with pytest.raises(BadRequest):
            call(own, "refuse")
    finally:
        own.close()


def test_stays_warm_and_keeps_logs_apart(worker: Worker) -> None:
    first = call(worker, "pid")["pid"]
    assert call(worker, "add", a=1, b=1)["printed"] == "python prints\nC prints\n"
    assert call(worker, "add", a=1, b=1)["printed"] == "python prints\nC prints\n"
    assert call(worker, "pid")["pid"] == first


def test_refusal(worker: Worker) -> None:
    with pytest.raises(BadRequest) as caught:
        call(worker, "refuse")
    assert str(caught.value) == "compiling a.tflite: the graph has no input x"
    assert call(worker, "add", a=1, b=1)["sum"] == 2


def test_exception(worker: Worker, tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("w") as log, pytest.raises(OperationFailed) as caught:
        worker.call("fail", {}, doing="compiling a.tflite", log=log)
    assert str(caught.value) == (
        "tool failed compiling a.tflite: Fatal: KPU ran out of memory.: one layer's input and "
        "output feature maps together exceed the 2 MiB of KPU memory, whatever main memory is "
        f"left; make the input or the first layers smaller\nfull log: {tmp_path / 'a.log'}"
    )
    text = (tmp_path / "a.log").read_text()
    assert "Traceback" in text
    assert text.endswith("RuntimeError: compile failed\n")


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_signal(number: signal.Signals, worker: Worker, tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("w") as log, pytest.raises(WorkerDied) as caught:
        worker.call("crash", {"number": int(number)}, doing="compiling a.tflite", log=log)
    assert str(caught.value) == (
        f"tool was ended by the signal {number.name} while compiling a.tflite\n"
        "free(): invalid pointer: nncase's own memory went wrong, as happens when another native "
        f"library shares its process; report it with the log\nfull log: {tmp_path / 'a.log'}"
    )
    assert call(worker, "add", a=1, b=1)["sum"] == 2  # a fresh process


def test_exit_code(worker: Worker) -> None:
    with pytest.raises(WorkerDied) as caught:
        call(worker, "leave", code=7)
    assert str(caught.value) == ("tool ended with exit code 7 while compiling a.tflite\ngiving up")


def test_garbage(worker: Worker) -> None:
    with pytest.raises(WorkerDied) as caught:
        call(worker, "babble")
    assert str(caught.value) == (
        "tool answered something unintelligible ('loading 100 %\\n') while compiling a.tflite"
    )
    assert call(worker, "add", a=1, b=1)["sum"] == 2


def test_program_that_is_no_worker() -> None:
    own = Worker("tool", [sys.executable, "-c", "print('hi')"], dict(os.environ))
    with pytest.raises(WorkerDied, match=r"answered something unintelligible|exit code 0"):
        call(own, "hello")
    own.close()


def test_threads_take_turns(worker: Worker) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda n: call(worker, "add", a=n, b=n)["sum"], range(40))
    assert list(results) == [2 * n for n in range(40)]


def test_ends_with_close(worker: Worker) -> None:
    pid = call(worker, "pid")["pid"]
    worker.close()
    assert gone(pid)


def test_ends_with_its_stdin(worker: Worker) -> None:
    pid = call(worker, "pid")["pid"]
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    assert gone(pid)


def test_interrupted_call_leaves_no_half_read_answer(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = call(worker, "pid")["pid"]

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.call("add", {"a": 1, "b": 1}, doing="x", progress=interrupt)
    assert gone(pid)
    assert call(worker, "add", a=4, b=4)["sum"] == 8


def test_one_for_each_command() -> None:
    try:
        one = shared("tool", COMMAND, dict(os.environ))
        assert shared("tool", COMMAND, dict(os.environ)) is one
        assert shared("tool", [*COMMAND, "x"], dict(os.environ)) is not one
        assert shared("tool", COMMAND, {**os.environ, "OTHER": "1"}) is not one
        pid = call(one, "pid")["pid"]
    finally:
        close_all()
    assert gone(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_starts_its_own(tmp_path: Path) -> None:
    """And lets the parent's alone: it neither speaks to it nor keeps it alive."""
    script = f"""
import os, sys, time
from k210tasks.toolchains.worker import shared
def pid():
    tool = shared("tool", {COMMAND!r}, dict(os.environ))
    return tool.call("pid", {{}}, doing="x")["pid"]
mine = pid()
child = os.fork()
if not child:
    theirs = pid()
    assert theirs != mine and pid() == theirs
    open({str(tmp_path / "child")!r} + ".tmp", "w").write(f"{{theirs}} {{os.getpid()}}")
    os.rename({str(tmp_path / "child")!r} + ".tmp", {str(tmp_path / "child")!r})
    time.sleep(60)
    os._exit(0)
while not os.path.exists({str(tmp_path / "child")!r}): time.sleep(0.01)
assert pid() == mine
print(mine, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    line = parent.stdout.readline()
    assert line, parent.wait()
    mine = int(line)
    theirs, child = (int(n) for n in (tmp_path / "child").read_text().split())
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert gone(mine)  # although the child lives
        assert alive(child)
        assert alive(theirs)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
    assert gone(theirs)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["calling", "importing"])
def test_killed_parent_leaves_no_orphan(number: signal.Signals, busy: str, tmp_path: Path) -> None:
    """Not even while the vendor's code holds the interpreter lock."""
    sign = tmp_path / "pid"
    script = (
        "import os; from k210tasks.toolchains.worker import Worker\n"
        f"w = Worker('tool', {COMMAND!r}, dict(os.environ))\n"
        f"w.call('hold', {{'sign': {str(sign)!r}}}, doing='x')"
    )
    slow = {"FAKE_SLOW_IMPORT": str(sign)} if busy == "importing" else {}
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, **slow})
    end = time.monotonic() + 30
    while not (sign.exists() and sign.read_text()):
        assert parent.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    pid = int(sign.read_text())
    assert alive(pid)
    parent.send_signal(number)
    parent.wait()
    assert gone(pid)


def test_an_import_that_fails_is_told(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    own = Worker("tool", [*COMMAND[:-1], str(tmp_path / "broken.py")], dict(os.environ))
    try:
        with pytest.raises(OperationFailed) as caught:
            call(own, "hello")
    finally:
        own.close()
    assert str(caught.value) == (
        "tool failed compiling a.tflite: "
        "ModuleNotFoundError: No module named 'nothing_of_that_name'"
    )


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it is what is tested
def test_fork_while_another_thread_holds_the_locks(worker: Worker) -> None:
    """A child forked at a bad moment must not wait for a thread that it does not have."""
    done = threading.Event()

    def hold() -> None:
        with worker._lock, worker_module._registry:
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    while not worker._lock.locked():
        time.sleep(0.005)
    worker_module._workers[("x",)] = worker
    child = os.fork()
    if not child:
        code = 1
        try:
            shared("x", ["x"], {})
            code = 0 if worker._lock.acquire(timeout=5) else 2
        finally:
            os._exit(code)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
        worker_module._workers.clear()
