"""Killed at any moment: no half file, nothing finished is computed again, no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.graph.conftest import DODO, Toy
from tests.graph.processes import descendants, running

STEPS = ("convert", "calibrate", "kmodel", "verify")


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def started(toy: Toy, task: str) -> list[int]:
    path = toy.root / "started.log"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines if line.split()[0] == task]


def kill_in(
    toy: Toy, step: str, by: signal.Signals, *args: str, beside: str = "", **env: str
) -> None:
    """Start doit, kill it in the middle of ``step`` of the model one, once ``beside`` began."""
    toy.wish(**{f"one_{step}": {"half": True, "sleep": 30}})
    process = toy.popen(*args, **env)
    assert wait_for(lambda: bool(started(toy, f"{step}:one")))
    assert not beside or wait_for(lambda: bool(started(toy, beside)))
    time.sleep(0.2)
    pids = {process.pid, *descendants(process.pid)}
    process.send_signal(by)
    process.communicate(timeout=20)
    assert wait_for(lambda: not any(running(pid) for pid in pids), 10), "an orphan lives on"
    toy.wish()


def check_after(toy: Toy, step: str) -> None:
    for path in toy.files():
        if path.startswith(("workspace/", "build/")) and not path.endswith(".log"):
            assert "half" not in toy.read(path), path
    # Finished is what reached the store; a body that had just ended beside it is not.
    done = toy.did("computed")
    assert f"{step}:one" not in done
    again = toy.run()
    assert f"{step}:one" in again
    assert set(again).isdisjoint(done), "something finished was computed again"
    every = {f"{s}:{m}" for s in STEPS for m in ("one", "two")}
    assert {*done, *again, *toy.did("restored")} == every
    assert os.listdir(toy.root / ".k210/tmp") == []  # noqa: PTH208
    assert os.listdir(toy.root / ".k210/store/tmp") == []  # noqa: PTH208
    assert not list((toy.root / ".k210").rglob("*.tmp"))
    assert toy.run() == []


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
@pytest.mark.parametrize("step", STEPS)
def test_trap_6_killed_in_a_serial_run(toy: Toy, step: str, by: signal.Signals) -> None:
    kill_in(toy, step, by)
    check_after(toy, step)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
@pytest.mark.parametrize("step", STEPS)
def test_trap_6_killed_in_a_parallel_run(toy: Toy, step: str, by: signal.Signals) -> None:
    kill_in(toy, step, by, "-n", "4")
    check_after(toy, step)


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_no_orphan_under_other_start_methods(toy: Toy, start: str) -> None:
    # Of four children two never have a task.
    kill_in(toy, "kmodel", signal.SIGKILL, "-n", "4", TOY_START=start)
    check_after(toy, "kmodel")


def test_a_child_that_dies_does_not_hang_the_run(toy: Toy) -> None:
    toy.wish(one_kmodel={"kill": True})
    process = toy.popen("-n", "2")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err == (
        "!! one of doit's processes was killed by SIGKILL, and doit would wait for it for ever: "
        "stopped. Nothing that was finished is lost; run doit again, without -n to see which "
        "step it is\n"
    )
    done = toy.did("computed")
    toy.wish()
    assert set(toy.run()).isdisjoint(done)


def test_a_users_own_child_may_die(toy: Toy) -> None:
    toy.write(
        "dodo.py",
        DODO + "def task_mine():\n"
        "    return {'actions': [mine], 'task_dep': ['convert:one']}\n"
        "def mine():\n"
        "    process = multiprocessing.Process(target=os._exit, args=(3,))\n"
        "    process.start()\n"
        "    process.join()\n"
        "    import time\n"
        "    time.sleep(3)\n"
        "    return process.exitcode == 3\n",
    )
    assert toy.doit("mine").stderr == ""
    toy.doit("-n", "2", "mine")


def test_interrupted(toy: Toy) -> None:
    toy.wish(one_kmodel={"half": True, "sleep": 30})
    process = toy.popen()
    assert wait_for(lambda: bool(started(toy, "kmodel:one")))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode != 0
    check = toy.computed()
    assert check == ["convert:one", "calibrate:one"]
    toy.wish()
    assert "convert:one" not in toy.run()


@pytest.mark.parametrize("moment", range(6))
def test_killed_between_the_files(toy: Toy, moment: int) -> None:
    """Die right before the n-th rename of the run: every boundary is a safe one."""
    code = (
        "import os, signal, sys\n"
        "real, left = os.replace, [int(sys.argv.pop(1))]\n"
        "def replace(source, target, **more):\n"
        "    if '.k210/manifest' not in str(target):\n"
        "        left[0] -= 1\n"
        "    if left[0] < 0:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(source, target, **more)\n"
        "os.replace = replace\n"
        "from doit.__main__ import main\n"
        "main()\n"
    )
    toy.write("die.py", code)
    runs = 0
    at = moment
    while True:
        process = subprocess.run(
            [sys.executable, "die.py", str(at), "model:one"],
            cwd=toy.root,
            env=toy.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        runs += 1
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        at += 3
        assert runs < 20
    assert runs > 1
    # What had reached the store was never computed twice.
    stored = [e["task"] for e in toy.history() if e["did"] == "computed"]
    assert len(stored) == len(set(stored)) == 4
    assert toy.run("model:one") == []
