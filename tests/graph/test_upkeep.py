"""What killed runs leave goes with the next run, and gc beside a build takes nothing from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k210tasks.store.results import Store
from tests.graph.conftest import Toy

KILLED = """
import os, signal, sys
from k210tasks.store.files import write_atomically
from k210tasks.store.locks import WorkFolder
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "folder":
    work = WorkFolder(sys.argv[1])
    open(work.path + "/half", "w").close()
    work.note(sys.argv[1] + "/../../elsewhere")
    open(sys.argv[1] + "/../../elsewhere", "w").close()
    os.replace()
write_atomically(sys.argv[1] + "/a.json", b"half")
"""


@pytest.mark.parametrize("pid_lives", [False, True])
def test_no_litter_outlives_the_next_run(
    pid_lives: bool, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where another process has the number of the dead one now."""
    toy.run()
    before = sorted(p for p in toy.root.rglob("*") if p.is_file())
    places = (
        ".k210", ".k210/state", ".k210/stamps", ".k210/manifest", "build/report",
        "build/report/models",
    )  # fmt: skip
    for place in places:
        killed(toy.root / place, "file")
    for place in (".k210/tmp", ".k210/store/tmp"):
        killed(toy.root / place, "folder")
    left = sorted(set(toy.root.rglob("*")) - set(before))
    assert sum(p.is_file() for p in left) >= len(places) + 5

    def kill(pid: int, sign: int) -> None:
        if not pid_lives:
            raise ProcessLookupError(pid)

    monkeypatch.setattr(os, "kill", kill)
    toy.run()
    assert [p for p in left if p.exists() and p.is_file() and "toy" not in p.name] == []


def killed(folder: Path, what: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), what], capture_output=True)
    assert done.returncode == -9, done.stderr


def test_gc_in_a_loop_beside_a_build_takes_nothing(tmp_path: Path) -> None:
    toy = Toy(tmp_path, ("one",))
    for turn in range(10):
        toy.write("src/one.pb", f"graph of one, {turn}\n")
        build = toy.popen()
        collected = 0
        while build.poll() is None:
            collected += not toy.inside("k210", "gc").returncode
            time.sleep(0.02)
        out, err = build.communicate()
        assert build.returncode == 0, out + err
        assert "damaged" not in err
        assert collected
        lost(toy)
    for path in toy.root.glob("workspace/*"):
        path.unlink()
    assert toy.run() == []


def lost(toy: Toy) -> None:
    """Every task's result is in the store, with all that it names."""
    store = Store(str(toy.root / ".k210/store"))
    for line in toy.history():
        if line["run"] == toy.history()[-1]["run"] and line["did"] in ("computed", "restored"):
            found = store.find(line["key"])
            assert found is not None, line
            for files in found.outputs.values():
                assert all(store.read(digest) is not None for digest in files.values()), line
