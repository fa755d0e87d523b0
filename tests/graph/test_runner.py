"""The runner on plans of its own: folders in and out, roles, reasons."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from k210tasks.engine import placing
from k210tasks.engine.failures import (
    CannotWrite,
    InputsMissing,
    OutputForeign,
    OutputNotWritten,
)
from k210tasks.engine.job import Job
from k210tasks.engine.plan import FileInput, Judge, StepPlan, TreeInput, Verdict
from k210tasks.engine.project import Project
from k210tasks.engine.reasons import SettingChanged, differences, listing, say
from k210tasks.engine.runner import Runner

HERE = "tests.graph.test_runner"
PLAN = StepPlan(
    task="pack:x",
    step="pack",
    subject="x",
    version=1,
    run=f"{HERE}:pack",
    settings={"count": 2},
    inputs={"model": TreeInput("model"), "note": FileInput("note.txt")},
    outputs={"folder": "build/x/out/", "index": "build/x/index.txt"},
    log="build/x/pack.log",
)


def pack(job: Job) -> None:
    folder = job.outputs["folder"]
    (folder / "sub").mkdir(parents=True)
    for i in range(job.settings["count"]):
        (folder / "sub" / f"{i}.txt").write_text(job.file("note").read_text() + str(i))
    names = sorted(p.name for p in job.file("model").rglob("*") if p.is_file())
    job.outputs["index"].write_text("\n".join(names))


def nothing(job: Job) -> None:
    """A body that writes nothing."""


def look(job: Job) -> Verdict:
    job.outputs["verdict"].write_text(job.file("index").read_text().upper())
    return Verdict(True, "looked")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("K210_STORE", raising=False)
    (tmp_path / "model/variables").mkdir(parents=True)
    (tmp_path / "model/saved_model.pb").write_text("graph")
    (tmp_path / "model/variables/v.data").write_text("weights")
    (tmp_path / "note.txt").write_text("n")
    return tmp_path


def run(plan: StepPlan = PLAN, **changes: object) -> tuple[str, str]:
    """What was done, and what was said."""
    said: list[str] = []
    plan = dataclasses.replace(plan, **changes)  # type: ignore[arg-type]
    return Runner(Project(), said.append).run(plan).did, "\n".join(said)


def files(root: Path) -> list[str]:
    out = root / "build/x/out"
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def test_a_folder_comes_and_goes_as_a_whole(root: Path) -> None:
    assert run() == ("computed", "")
    assert files(root) == ["sub/0.txt", "sub/1.txt"]
    assert run() == ("kept", "")
    assert run(settings={"count": 3}) == ("computed", "   pack:x: count: 2 → 3")
    assert files(root) == ["sub/0.txt", "sub/1.txt", "sub/2.txt"]
    assert run() == ("restored", "   pack:x: restored from the store (count: 3 → 2)")
    assert files(root) == ["sub/0.txt", "sub/1.txt"]
    (root / "build/x/out/sub/1.txt").write_text("scribbled")
    did, text = run()
    assert did == "restored"
    assert "build/x/out/sub/1.txt is not what the step wrote: " in text
    assert (root / "build/x/out/sub/1.txt").read_text() == "n1"


def test_every_file_of_a_tree_counts(root: Path) -> None:
    run()
    (root / "model/variables/v.data").write_text("new weights")
    did, text = run()
    assert did == "computed"
    assert text.startswith("   pack:x: model/variables/v.data (model) has other content: ")
    (root / "model/assets").mkdir()
    assert run()[0] == "kept"  # an empty folder is nothing
    (root / "model/assets/a").write_text("a")
    assert run() == ("computed", "   pack:x: model/assets/a (model) is new")
    (root / "model/assets/a").unlink()
    assert run()[0] == "restored"


def test_missing_inputs(root: Path) -> None:
    (root / "note.txt").unlink()
    with pytest.raises(InputsMissing) as caught:
        run()
    assert str(caught.value) == "pack:x: the file note.txt does not exist"
    with pytest.raises(InputsMissing) as caught:
        run(inputs={"model": TreeInput("nowhere")})
    assert str(caught.value) == "pack:x: the folder nowhere does not exist"
    with pytest.raises(InputsMissing) as caught:
        run(inputs={"model": FileInput("model")})
    assert str(caught.value) == "pack:x: model is a folder, not a file"


def test_a_body_that_writes_nothing(root: Path) -> None:
    with pytest.raises(OutputNotWritten) as caught:
        run(run=f"{HERE}:nothing")
    assert str(caught.value) == (
        "pack:x: the step ended without writing build/x/out/; its log is build/x/pack.log"
    )


def test_a_place_that_cannot_be_written(root: Path) -> None:
    (root / "build/x/index.txt").mkdir(parents=True)
    with pytest.raises(CannotWrite) as caught:
        run()
    assert str(caught.value) == "build/x/index.txt cannot be written: Is a directory"
    (root / "build/x/index.txt").rmdir()
    assert run()[0] == "restored"  # it was computed, only not placed


@pytest.mark.parametrize("name", ["build/x/index.txt", "build/x/out/sub/1.txt"])
def test_a_file_nobody_knows_to_be_ours_is_refused(root: Path, name: str) -> None:
    mine = root / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputForeign) as caught:
        run()
    assert str(caught.value) == (
        f"pack:x: {name} exists, was not written by this task, and differs from what it makes; "
        "it is left as it is. Move it away, or delete it"
    )
    assert mine.read_text() == "mine"
    assert [p for p in (root / "build/x").rglob("*.txt") if p != mine] == []
    mine.unlink()
    assert run()[0] == "restored"


def test_only_files_of_ours_are_removed_from_a_folder(root: Path) -> None:
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (root / "build/x").mkdir(parents=True)
    (root / "build/x/out").symlink_to(elsewhere)
    (elsewhere / "diary.txt").write_text("mine")
    run()
    run(settings={"count": 1})
    assert sorted(p.name for p in elsewhere.rglob("*.txt")) == ["0.txt", "diary.txt"]


def test_what_a_killed_run_placed_is_known_as_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a store, and with other settings the next time: nothing else could tell."""
    monkeypatch.setenv("K210_STORE", "off")
    done: list[str] = []

    def killed(source: str, target: str, beside: str) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(target)
        Path(source).replace(target)

    (root / "build/x/out/sub").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(placing, "move_into_place", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert len(done) == 1
    (root / "note.txt").write_text("other")
    assert run(settings={"count": 1})[0] == "computed"
    assert files(root) == ["sub/0.txt"]


def test_a_verdict_is_ours_to_replace(root: Path) -> None:
    judge = Judge(f"{HERE}:look", 1, {"limit": 1}, {"verdict": "build/x/verdict.txt"})
    run(judge=judge)
    (root / "model/more").write_text("m")
    assert run(judge=judge)[0] == "computed"
    assert (root / "build/x/verdict.txt").read_text() == "MORE\nSAVED_MODEL.PB\nV.DATA"


def test_a_judge_sees_the_result(root: Path) -> None:
    judge = Judge(f"{HERE}:look", 1, {"limit": 1}, {"verdict": "build/x/verdict.txt"})
    assert run(judge=judge) == ("computed", "   pack:x: looked")
    assert (root / "build/x/verdict.txt").read_text() == "SAVED_MODEL.PB\nV.DATA"
    assert run(judge=judge) == ("kept", "")
    again = dataclasses.replace(judge, settings={"limit": 2})
    assert run(judge=again) == ("judged", "   pack:x: looked")
    assert run(judge=dataclasses.replace(again, version=2))[0] == "judged"
    assert run()[0] == "kept"  # without a judge the result still stands


def test_the_log_tells_the_key_and_the_reasons(root: Path) -> None:
    run()
    run(settings={"count": 3})
    text = (root / "build/x/pack.log").read_text("utf-8")
    assert 'settings {"count": 3}\nbecause count: 2 → 3\ndone in ' in text
    assert len(text.splitlines()[1].removeprefix("key ")) == 64


def test_an_output_with_another_place(root: Path) -> None:
    run()
    moved = {**PLAN.outputs, "index": "build/x/list.txt"}
    did, text = run(outputs=moved)
    assert did == "restored"
    assert "the place of its index: build/x/index.txt → build/x/list.txt" in text
    assert (root / "build/x/list.txt").exists()


def test_reasons_are_said_in_the_users_words() -> None:
    old = {"a": 1, "b": {"c": None, "d": [1, 2]}, "e": "x"}
    new = {"a": 1, "b": {"c": 0.5, "d": [1, 3]}, "f": True}
    assert [str(x) for x in differences("", old, new)] == [
        "b.c: none → 0.5",
        "b.d: [1, 2] → [1, 3]",
        "e: x → none",
        "f: none → true",
    ]
    assert say("text") == "text"
    many = [SettingChanged(f"f{i}", 0, 1) for i in range(9)]
    assert listing(many)[-1] == "and 3 more"
    assert len(listing(many)) == 7
    assert many[0].to_json() == {
        "why": "SettingChanged",
        "field": "f0",
        "old": 0,
        "new": 1,
        "text": "f0: 0 → 1",
    }
