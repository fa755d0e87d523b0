"""doit's traps, one by one, each with its answer. Named after the trap.

6 (kills) is in test_kills.py, 7 (pickling) in test_runs.py.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from k210tasks.graph import tasks as graph
from tests.graph.conftest import DODO, Toy


def keep_mtime(path: Path, text: str) -> None:
    before = path.stat()
    time.sleep(0.02)
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_trap_1_equal_mtime_hides_a_change_also_from_the_users_own_tasks(toy: Toy) -> None:
    toy.write("note.txt", "aaaa")
    toy.write(
        "dodo.py",
        DODO + "def task_mine():\n"
        "    return {'actions': ['cp note.txt copy.txt'], 'file_dep': ['note.txt'],\n"
        "            'targets': ['copy.txt']}\n",
    )
    toy.doit("mine")
    assert "-- mine" in toy.doit("mine").stdout
    os.utime(toy.root / "note.txt")
    assert "-- mine" in toy.doit("mine").stdout
    keep_mtime(toy.root / "note.txt", "bbbb")
    assert ".  mine" in toy.doit("mine").stdout
    assert toy.read("copy.txt") == "bbbb"


def test_trap_2_a_tampered_target_does_not_pass(toy: Toy) -> None:
    toy.run("model:one")
    good = toy.read("workspace/one.kmodel")
    keep_mtime(toy.root / "workspace/one.kmodel", "x" * len(good))
    toy.run("model:one")
    assert toy.read("workspace/one.kmodel") == good


def test_trap_3_several_settings_at_once_settle(toy: Toy) -> None:
    toy.run("model:one")
    toy.edit("mean: 0.0, std: 1.0", "mean: 0.5, std: 0.5")
    toy.edit("method: minmax", "method: kl")
    assert toy.run("model:one") == ["calibrate:one", "kmodel:one", "verify:one"]
    assert toy.run("model:one") == []


def test_trap_4_paths_are_normalised_once(toy: Toy) -> None:
    toy.edit("source: src/one.pb", "source: ./src//one.pb")
    toy.edit("images: images/one/calibration", "images: ./images/two/../one/calibration/")
    toy.write(
        "dodo.py",
        DODO + "def task_fresh():\n"
        "    return {'actions': ['echo new graph > src/one.pb'], 'targets': ['src/one.pb']}\n",
    )
    done = toy.doit("convert:one")  # the user's target and our file_dep are one string
    assert done.stdout.splitlines() == [".  fresh", ".  convert:one"]
    assert toy.read("workspace/one.tflite") == "new graph"
    toy.edit("./src//one.pb", "src/one.pb")
    toy.edit("./images/two/../one/calibration/", "images/one/calibration")
    assert "-- convert:one" in toy.doit("convert:one").stdout


def test_trap_5_a_failed_action_leaves_no_half_target(toy: Toy) -> None:
    toy.wish(one_kmodel={"half": True, "fail": "half way"})
    toy.run("model:one", status=2)
    assert "workspace/one.kmodel" not in toy.files()
    assert "build/one/contract.json" not in toy.files()
    toy.wish()
    toy.run("model:one")
    good = toy.read("workspace/one.kmodel")
    toy.edit("method: minmax", "method: kl")
    toy.wish(one_kmodel={"half": True, "fail": "half way"})
    toy.run("model:one", status=2)
    assert toy.read("workspace/one.kmodel") == good  # the old one, whole


def test_trap_8_threads_do_not_mix_what_is_said(toy: Toy) -> None:
    toy.doit("-n", "4", "-P", "thread")
    toy.edit("mean: 0.0", "mean: 0.5")
    toy.edit("mean: 0.0", "mean: 0.5")
    wishes = {f"{m}_calibrate": {"sleep": 0.2, "fail": f"{m} says no"} for m in ("one", "two")}
    toy.wish(**wishes)
    done = toy.doit("-n", "4", "-P", "thread", status=2)
    for m in ("one", "two"):
        assert f"   calibrate:{m}: preprocess.mean: 0.0 → 0.5\n" in done.stderr
        block = f"!! calibrate:{m}: {m} says no\nfull log: build/{m}/calibrate.log\n"
        assert block in done.stderr
    assert "says no" not in done.stdout


def test_trap_9_one_command_only() -> None:
    ours = [e.name for e in entry_points(group="doit.COMMAND") if e.module.startswith("k210tasks")]
    assert ours == ["k210"]


def test_trap_10_the_task_creator_has_inspectable_source() -> None:
    source = inspect.getsource(graph.Tasks("models.yaml").create_doit_tasks)
    assert source.lstrip().startswith("def create_doit_tasks")


def test_trap_11_a_file_added_or_removed_is_seen_though_no_image_is_a_file_dep(toy: Toy) -> None:
    toy.run("model:one")
    toy.write("images/one/verification/c/new.png", "new")
    assert toy.run("model:one") == ["verify:one"]
    tasks = list(graph.step_task(*_first_plan(toy), (), "").items())
    assert not any("images" in str(v) for k, v in tasks if k == "file_dep")


def _first_plan(toy: Toy):  # type: ignore[no-untyped-def]
    from k210tasks.engine.opening import open_project
    from k210tasks.steps.chain import chain_of

    project, manifest = open_project(str(toy.root / "models.yaml"))
    return project, list(chain_of(manifest).plans())[1]


@pytest.mark.parametrize(
    ("step", "path"),
    [("convert", "src/one.pb"), ("calibrate", "images/one/calibration/3.png")],
)
def test_trap_12_an_input_edited_meanwhile_is_not_recorded(toy: Toy, step: str, path: str) -> None:
    old = toy.read(path)
    toy.wish(**{f"one_{step}": {"touch": path, "content": "y" * len(old)}})
    done = toy.inside(f"{step}:one")
    assert done.returncode == 1
    assert (
        f"!! {step}:one: {path} changed while the step was reading it; nothing was recorded, "
        "run doit again\n"
    ) in done.stderr
    assert f"{step}:one" not in toy.did("computed")
    toy.wish()
    assert toy.run(f"{step}:one") == [f"{step}:one"]


def test_trap_12_an_image_added_meanwhile(toy: Toy) -> None:
    toy.wish(one_verify={"touch": "images/one/verification/a/9.png", "content": "new"})
    done = toy.inside("verify:one")
    assert done.returncode == 1
    assert "images/one/verification/a/9.png changed while the step was reading" in done.stderr


def test_trap_13_a_new_version_of_a_step_runs_it(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from k210tasks.steps.versions import VERSIONS

    toy.run("model:one")
    monkeypatch.setitem(VERSIONS, "kmodel:nncase-1.9.0", 99)
    assert toy.run("model:one") == ["kmodel:one"]  # the same bytes: verify is kept
    assert "kmodel:one: the version of the step kmodel: 2 → 99" in toy.last.stderr


def test_trap_14_an_equal_sign_is_refused_in_names(toy: Toy) -> None:
    toy.write("models.yaml", toy.read("models.yaml").replace("  one:", "  o=e:"))
    done = toy.doit(status=3)
    assert "models.yaml:2:3: models.o=e: the name " in done.stderr
    assert "a task name cannot hold =" in done.stderr


def test_trap_15_nothing_always_runs(toy: Toy) -> None:
    toy.run()
    toy.run()
    assert {line[:3] for line in toy.last.stdout.splitlines()} == {"-- "}


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (b"", []),
        (b"{", ["list"]),
        (b"[1]", ["info", "convert:one"]),
        (b'{"x": 1}', ["forget", "convert:one"]),
        (b"\x00\x01GDBM", ["clean", "verify:one"]),
        (b"\xff\xfe", []),
    ],
)
def test_an_unreadable_database_is_discarded_with_a_line(
    toy: Toy, content: bytes, command: list[str]
) -> None:
    toy.run()
    (toy.root / ".k210/doit.json").write_bytes(content)
    done = toy.inside(*command)
    assert not done.returncode
    lines = [line for line in done.stderr.splitlines() if "unreadable" in line]
    assert len(lines) == 1
    assert lines[0].startswith(".k210/doit.json is unreadable and discarded: ")
    assert toy.run() == []


def test_the_database_of_another_doit_is_not_even_opened(toy: Toy) -> None:
    toy.write(".doit.db", "some dbm of another Python")
    assert len(toy.run()) == 8
    assert toy.last.stderr == ""


def test_two_runs_keep_each_others_bookkeeping(tmp_path: Path) -> None:
    from doit.dependency import JSONCodec

    from k210tasks.plugin.database import Database

    name = str(tmp_path / "sub/doit.json")
    first, second = Database(name, JSONCodec()), Database(name, JSONCodec())
    first.set("a", "x", (1, 2))
    second.set("b", "x", 3)
    first.dump()
    second.dump()
    both = Database(name, JSONCodec())
    assert both.get("a", "x") == [1, 2]
    assert both.get("b", "x") == 3
    assert both.in_("a")
    assert not both.in_("c")
    both.remove("a")
    both.dump()
    assert not Database(name, JSONCodec()).in_("a")
    gone = Database(name, JSONCodec())
    gone.remove_all()
    gone.dump()
    assert not Database(name, JSONCodec()).in_("b")
    # Once all is removed, what others write afterwards is theirs.
    later = Database(name, JSONCodec())
    later.set("d", "x", 4)
    later.dump()
    gone.set("e", "x", 5)
    gone.dump()
    assert Database(name, JSONCodec()).in_("d")
    assert Database(name, JSONCodec()).in_("e")


def test_many_images_cost_one_stat_each(toy: Toy) -> None:
    """Counted by strace's stand-in: every os.stat of the process, by path."""
    folder = toy.root / "images/one/verification/many"
    folder.mkdir()
    for i in range(5000):
        (folder / f"{i:04}.png").write_text(str(i))
    toy.edit("images: images/one/calibration", "images: images/one/verification")
    toy.edit("samples: 4", "samples: 100000")
    assert toy.run("model:one")
    time.sleep(0.1)
    toy.run("model:one")
    script = textwrap.dedent(
        """
        import collections, json, os, sys
        seen = collections.Counter()
        sys.addaudithook(lambda event, args: seen.update([f"open {args[0]}"]) if event == "open"
                         else None)
        real = os.stat
        def stat(path, *a, **k):
            seen.update([f"stat {path}"])
            return real(path, *a, **k)
        os.stat = stat
        import doit.doit_cmd
        status = doit.doit_cmd.DoitMain().run(["model:one"])
        images = {k: n for k, n in seen.items() if "/many/" in k}
        made = max(n for k, n in seen.items() if k.startswith(("stat workspace/", "stat build/")))
        print(json.dumps([status, len(images), max(images.values()), sorted(images)[:1], made]))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=toy.root,
        env=toy.env,
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, last = done.stdout.splitlines()
    assert all(line.startswith("-- ") for line in lines)
    # What the steps make is looked at once too, by the task that made it.
    assert json.loads(last) == [0, 5000, 1, ["stat images/one/verification/many/0000.png"], 1]


def test_a_folder_is_hashed_once_for_two_steps(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from k210tasks.engine import snapshot

    hashed: list[str] = []
    real = snapshot.hash_stamped

    def counted(path: str) -> object:
        hashed.append(path)
        return real(path)

    toy.edit("images: images/one/calibration", "images: images/one/verification")
    toy.edit("samples: 4", "samples: 100")
    time.sleep(0.1)  # the stamps have come of age
    monkeypatch.setattr(snapshot, "hash_stamped", counted)
    toy.run("model:one")
    images = [path for path in hashed if path.startswith("images/")]
    assert len(images) == len(set(images)) == 6


def test_looking_leaves_everything_alone(toy: Toy) -> None:
    toy.run()
    before, records = toy.files(), toy.history()
    for command in (["list", "--all"], ["info", "verify:one"], ["help"], ["help", "k210"]):
        toy.doit(*command)
    assert toy.files() == before
    assert toy.history() == records
