"""Whole runs: failures, parallel processes, what a user sees."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from k210tasks.store.files import RACY_NS
from tests.graph.conftest import DODO, Toy

ALL = sorted(
    f"{s}:{m}" for s in ("calibrate", "convert", "kmodel", "verify") for m in ("one", "two")
)


def test_one_chain(toy: Toy) -> None:
    assert toy.run("model:one") == [t for t in ALL if t.endswith("one")]
    assert toy.run("convert:*") == ["convert:two"]


def test_a_failure_stops_its_chain_only(toy: Toy) -> None:
    toy.wish(one_kmodel={"fail": "the KPU has no room for this"})
    found = toy.run(status=2)  # doit's "error": verify:one could not be tried
    assert found == [t for t in ALL if t not in ("kmodel:one", "verify:one")]
    err = toy.last.stderr
    assert err.count("the KPU has no room for this") == 1
    assert "!! kmodel:one: the KPU has no room for this\nfull log: build/one/kmodel.log\n" in err
    assert "the KPU has no room" not in toy.last.stdout
    assert "failed: the KPU has no room for this" in toy.read("build/one/kmodel.log")
    assert "workspace/one.kmodel" not in toy.files()
    failed = [e for e in toy.history() if e["did"] == "failed"]
    assert [(e["task"], e["ok"], e["message"]) for e in failed] == [
        ("kmodel:one", False, "the KPU has no room for this")
    ]
    toy.wish()
    assert toy.run() == ["kmodel:one", "verify:one"]


def test_a_crash_of_a_body_is_told_without_a_traceback(toy: Toy) -> None:
    toy.wish(one_convert={"crash": "oh no"})
    toy.run("convert:one", status=1)
    assert toy.last.stderr == (
        "!! convert:one: unexpected ValueError: oh no; the traceback is in build/one/convert.log\n"
    )
    assert "Traceback (most recent call last)" in toy.read("build/one/convert.log")


def test_a_full_disk_is_told_with_the_way_out(toy: Toy) -> None:
    toy.wish(one_calibrate={"full": True})
    toy.run("model:one", status=2)
    assert (
        f"!! calibrate:one: no space is left on the disk of {toy.root}; free some (k210 gc removes "
        "results nothing names any more), then run doit again: nothing finished is lost\n"
    ) in toy.last.stderr
    toy.wish()
    assert "convert:one" not in toy.run("model:one")


def test_no_room_to_restore_loses_nothing_of_the_store(toy: Toy) -> None:
    toy.wish(one_kmodel={"coarse": "x" * 30_000})
    toy.run("kmodel:one")
    (toy.root / "workspace/one.kmodel").unlink()
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    toy.write("dodo.py", limit + DODO)
    said = toy.doit("kmodel:one", status=1).stderr
    assert "!! kmodel:one: " in said
    assert "cannot be written: File too large; the limit on the size of files (ulimit -f)" in said
    assert "damaged" not in said
    assert [e["task"] for e in toy.history() if e["did"] == "failed"] == ["kmodel:one"]
    toy.write("dodo.py", DODO)
    assert toy.run("kmodel:one") == []
    assert toy.did("restored") == ["kmodel:one"]
    assert toy.read("workspace/one.kmodel") == "x" * 30_000


def test_no_room_for_what_a_step_starts_with(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("k210tasks.engine.runner.work_folder", full)
    toy.run("convert:one", status=1)
    assert f"!! convert:one: no space is left on the disk of {toy.root}; " in toy.last.stderr


def test_a_step_that_forgets_an_output(toy: Toy) -> None:
    toy.wish(one_kmodel={"forget": True})
    toy.run("kmodel:one", status=1)
    assert (
        "!! kmodel:one: the step ended without writing build/one/listing.txt; "
        "its log is build/one/kmodel.log\n"
    ) in toy.last.stderr
    assert "workspace/one.kmodel" not in toy.files()


def test_a_bad_verdict_fails_every_time_and_is_written(toy: Toy) -> None:
    toy.edit("min_cosine: 0.98", "min_cosine: 0.995")
    toy.run("verify:one", status=1)
    assert "!! verify:one: cosine 0.99 is below 0.995\n" in toy.last.stderr
    for _ in range(2):
        assert toy.run("verify:one", status=1) == []
        assert toy.last.stderr.count("cosine 0.99 is below 0.995") == 1
    assert json.loads(toy.read("build/one/verify.json"))["verified"] is False
    assert [e["ok"] for e in toy.history() if e["did"] == "judged"] == [False] * 3


def test_verify_off(toy: Toy) -> None:
    toy.edit("verify: {images: images/one/verification, min_cosine: 0.98}", "verify: off")
    assert toy.run("model:one") == ["calibrate:one", "convert:one", "kmodel:one"]
    assert json.loads(toy.read("build/one/verify.json")) == {"verified": "off"}
    assert "verify:one: not verified (verify: off)" in toy.last.stderr
    assert toy.run("model:one") == []
    assert "-- verify:one" in toy.last.stdout


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_trap_7_pickling_under_every_start_method(toy: Toy, start: str) -> None:
    done = toy.doit("-n", "4", TOY_START=start)
    assert sorted(toy.computed()) == ALL
    assert done.stderr == ""
    assert toy.did("computed") == ALL
    done = toy.doit("-n", "4", TOY_START=start)
    assert sorted(toy.computed()) == ALL
    assert all(line.startswith("-- ") for line in done.stdout.splitlines())
    toy.write("images/one/calibration/3.png", "other")
    done = toy.doit("-n", "4", TOY_START=start)
    assert toy.computed()[8:] == ["calibrate:one", "kmodel:one", "verify:one"]
    assert "calibrate:one: images/one/calibration/3.png (images) has other content" in done.stderr


def test_failures_in_parallel(toy: Toy) -> None:
    toy.wish(one_kmodel={"fail": "no room"}, two_convert={"crash": "oh"})
    done = toy.doit("-n", "4", status=2)
    assert "!! kmodel:one: no room\n" in done.stderr
    assert "!! convert:two: unexpected ValueError: oh;" in done.stderr
    assert sorted(toy.computed()) == ["calibrate:one", "convert:one"]


def test_two_runs_at_once(toy: Toy) -> None:
    toy.wish(one_convert={"sleep": 1.0}, two_kmodel={"sleep": 0.5})
    runs = [toy.popen(), toy.popen("-n", "2"), toy.popen()]
    texts = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], texts
    assert sorted(toy.computed()) == ALL
    assert toy.did("computed") == ALL
    assert any("waiting for another process" in err for _, err in texts)
    assert toy.run() == []


def test_two_projects_with_one_store_at_once(toy: Toy, tmp_path: Path) -> None:
    other = Toy(tmp_path / "other")
    toy.wish(one_convert={"sleep": 1.0})
    other.wish(one_convert={"sleep": 1.0})
    store = str(tmp_path / "store")
    runs = [
        toy.popen("convert:one", K210_STORE=store),
        other.popen("convert:one", K210_STORE=store),
    ]
    for run in runs:
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
    assert len(toy.computed() + other.computed()) == 1


def test_a_damaged_object_is_said_and_computed_again(toy: Toy) -> None:
    toy.run()
    (toy.root / "workspace/one.kmodel").unlink()
    damaged = 0
    for path in (toy.root / ".k210/store/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_text("rotten")
            damaged += 1
    assert damaged
    assert toy.run() == ["kmodel:one"]
    assert "   kmodel:one: damaged in the store: " in toy.last.stderr
    assert "; computing it again\n" in toy.last.stderr


def test_a_store_that_cannot_be(toy: Toy) -> None:
    toy.write("occupied", "a file")
    bad = str(toy.root / "occupied")
    assert toy.run("convert:one", status=1, K210_STORE=bad) == []
    assert (
        toy.last.stderr
        == (
            f"!! convert:one: the store {bad} cannot be used: File exists; mend it, or set "
            "K210_STORE to another folder or to off\n"
        )
        or "Not a directory" in toy.last.stderr
    )


def test_always_execute_computes_nothing_twice(toy: Toy) -> None:
    toy.run("model:one")
    assert toy.run("-a", "model:one") == []
    assert toy.did("kept") == ["calibrate:one", "convert:one", "kmodel:one", "verify:one"]


def test_no_room_in_the_store_is_said_and_loses_nothing(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("k210tasks.store.results.Store.put", full)
    assert len(toy.run("model:one")) == 4
    assert (
        "   kmodel:one: not kept in the store: [Errno 28] No space left on device\n"
    ) in toy.last.stderr
    assert toy.run("model:one") == []


def test_names_of_any_script(tmp_path: Path) -> None:
    toy = Toy(tmp_path, ("сеть", "数字", "v1.2-a_b"))
    assert len(toy.run()) == 12
    assert toy.run("model:сеть") == []
    listed = toy.doit("list", "--all", "-q", PYTHONIOENCODING="utf-8").stdout
    assert "kmodel:数字" in listed
    done = toy.doit("-n", "2", PYTHONIOENCODING="utf-8")
    assert "-- verify:сеть" in done.stdout


def test_list_is_tidy(toy: Toy) -> None:
    assert toy.doit("list").stdout.splitlines() == [
        "calibrate   images → build/MODEL/calibration.npz",
        "convert     source graphs → workspace/MODEL.tflite",
        "kmodel      .tflite + calibration → workspace/MODEL.kmodel",
        "model       the whole chain of a model",
        "report      what there is to see, of failed models too → build/report/index.html",
        "toolchain   vendor tools, fetched into the user's cache when a task needs them",
        "verify      the kmodel against the float model → build/MODEL/verify.json",
    ]
    assert toy.history() == []


def test_info_and_status_say_why_and_change_nothing(toy: Toy) -> None:
    toy.run()
    toy.edit("mean: 0.0", "mean: 0.25")
    done = toy.doit("info", "calibrate:one", status=1)
    assert "    - preprocess.mean: 0.0 → 0.25 (args=[], kwargs={})" in done.stdout
    (toy.root / "workspace/one.kmodel").unlink()
    statuses = toy.doit("list", "--all", "--status").stdout.splitlines()
    assert [line[0] for line in statuses if " kmodel:one" in line] == ["R"]
    assert not (toy.root / "workspace/one.kmodel").exists()


def test_clean_and_back(toy: Toy) -> None:
    toy.run()
    made = toy.files()
    done = toy.doit("clean")
    assert "kmodel:one - removing file 'workspace/one.kmodel'" in done.stdout
    assert not [p for p in toy.files() if p.startswith(("workspace/", "build/"))]
    assert not (toy.root / "build/one").exists()
    assert "toolchain" not in done.stdout
    assert toy.run() == []
    restored = [p for p in toy.files() if not p.endswith(".log")]
    assert restored == [p for p in made if not p.endswith(".log")]


def test_clean_dry_run_removes_nothing(toy: Toy) -> None:
    toy.run()
    made = toy.files()
    assert "removing file 'workspace/one.tflite'" in toy.doit("clean", "-n").stdout
    assert toy.files() == made


def test_a_tflite_that_is_not_ours(toy: Toy) -> None:
    toy.write("workspace/one.tflite", "the user's own")
    toy.run("convert:one", status=1)
    assert toy.last.stderr == (
        "!! convert:one: workspace/one.tflite exists, was not written by this task, and differs "
        "from what src/one.pb gives; it is left as it is. Move it away, or name it as the "
        "model's source\nfull log: build/one/convert.log\n"
    )
    assert toy.read("workspace/one.tflite") == "the user's own"
    toy.doit("clean", "convert:one")
    assert toy.read("workspace/one.tflite") == "the user's own"
    # The same bytes may stay; and once ours, it is replaced as the source changes.
    toy.write("workspace/one.tflite", "graph of one")
    toy.run("convert:one")
    toy.write("src/one.pb", "another graph\n")
    assert toy.run("convert:one") == ["convert:one"]
    assert toy.read("workspace/one.tflite") == "another graph"


def test_a_tflite_source_is_read_in_place(toy: Toy) -> None:
    toy.write("src/one.tflite", "ready")
    toy.edit(
        "source: src/one.pb\n    inputs: {input: [1, 4, 4, 1]}\n    outputs: [output]",
        "source: src/one.tflite",
    )
    assert toy.run("model:one") == ["calibrate:one", "kmodel:one", "verify:one"]
    assert "workspace/one.tflite" not in toy.files()
    toy.write("src/one.tflite", "other")
    assert toy.run("model:one") == ["calibrate:one", "kmodel:one", "verify:one"]


def test_errors_of_the_file_are_shown_without_a_traceback(toy: Toy) -> None:
    shutil.rmtree(toy.root / "images/one")
    toy.edit("samples: 4", "samples: many")
    done = toy.doit(status=3)
    assert done.stderr.startswith("ERROR: ")
    assert "models.yaml:11:" in done.stderr
    assert "Traceback" not in done.stderr
    assert toy.files() == [p for p in toy.files() if not p.startswith("workspace/")]
    assert toy.doit("list", status=3).stderr == done.stderr


def test_a_project_that_cannot_be_written(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.makedirs

    def refuse(path: str, *args: object, **more: object) -> None:
        if ".k210" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "makedirs", refuse)
    done = toy.inside("convert:one")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"!! convert:one: {toy.root}/.k210/locks cannot be written: Read-only file system; "
        "mount the disk writable, or copy the project to where you may write"
    )


def test_nothing_to_do_writes_nothing(toy: Toy) -> None:
    toy.run()
    time.sleep(2 * RACY_NS / 1e9)
    toy.run()  # the stamps have come of age

    def written() -> dict[str, int]:
        files = [p for p in toy.root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        return {str(p): p.stat().st_ctime_ns for p in files}

    before = written()
    assert toy.run() == []
    assert written() == before


HEAVY = """
def task_modules():
    return {"actions": [show], "uptodate": [False], "task_dep": TASK_DEP}

def show():
    import sys
    heavy = "numpy pydantic rich yaml PIL tflite ai_edge_litert jinja2".split()
    heavy += [f"k210tasks.toolchains.{n}" for n in ("worker", "interpreters", "archive")]
    heavy += ["k210tasks.engine.runner", "multiprocessing.connection"]
    print("heavy:", [name for name in heavy if name in sys.modules])
"""


def test_nothing_heavy_is_imported_to_build_the_graph(toy: Toy) -> None:
    toy.run()
    # Everything looked at and found up to date, then the real tasks of the same file.
    toy.write("dodo.py", DODO + HEAVY.replace("TASK_DEP", "['verify:one', 'verify:two']"))
    done = toy.doit("-v2", "modules")
    assert "-- verify:two" in done.stdout
    assert "heavy: []" in done.stdout
    real = "import k210tasks\nDOIT_CONFIG = k210tasks.doit_config()\nm = k210tasks.tasks_from()\n"
    toy.write("dodo.py", real + HEAVY.replace("TASK_DEP", "[]"))
    assert "heavy: []" in toy.doit("-v2", "modules").stdout


def test_the_loader_needs_no_dodo(toy: Toy) -> None:
    toy.run()
    (toy.root / "dodo.py").unlink()
    toy.write("pyproject.toml", '[tool.doit]\nloader = "k210"\n')
    done = toy.doit("list")
    assert "kmodel      .tflite + calibration" in done.stdout
    done = toy.doit("k210", "why", "one")
    assert "convert:one" in done.stdout


def test_doit_k210_is_k210(toy: Toy) -> None:
    assert "VERB ..." in toy.doit("k210", "--help").stdout
    done = toy.doit("k210", "why", "three", status=1)
    assert done.stderr == (
        "k210 why: models.yaml has no model or firmware image 'three'; it has: one, two\n"
    )
    toy.doit("k210", "nonsense", status=2)


def test_quiet(toy: Toy) -> None:
    toy.run()
    toy.edit("mean: 0.0", "mean: 0.25")
    done = toy.doit("-v0")
    assert done.stderr == ""
    toy.edit("mean: 0.25", "mean: 0.3")
    toy.wish(one_calibrate={"fail": "no"})
    assert toy.doit("-v0", status=2).stderr == (
        "!! calibrate:one: no\nfull log: build/one/calibrate.log\n"
    )


def test_reporters(toy: Toy) -> None:
    toy.wish(one_kmodel={"fail": "no room"})
    report = json.loads(toy.doit("-r", "json", status=2).stdout)
    results = {t["name"]: t["result"] for t in report["tasks"]}
    assert results["kmodel:one"] == "fail"
    assert results["verify:two"] == "success"
    done = toy.doit("-r", "error-only", status=2)
    assert "no room" not in done.stdout
    assert done.stderr.count("no room") == 1
