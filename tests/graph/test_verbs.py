"""k210 why, forget and gc, in real projects."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from k210tasks.cli import main
from tests.graph import toy as toys
from tests.graph.conftest import Toy

FOUR = ["convert:one", "calibrate:one", "kmodel:one", "verify:one"]


class Verbs:
    """The verbs, seeing the toy plans as the toy's dodo.py does."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: str, status: int = 0) -> str:
        assert main(args) == status
        captured = self.capsys.readouterr()
        return captured.err if status else captured.out

    def why(self, *names: str) -> list[tuple[str, str, list[str]]]:
        found: list[dict[str, Any]] = json.loads(self("why", "--json", *names))["tasks"]
        return [(f["task"], f["status"], [r["text"] for r in f["reasons"]]) for f in found]


@pytest.fixture
def verbs(toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Verbs:
    monkeypatch.chdir(toy.root)
    monkeypatch.delenv("K210_STORE", raising=False)
    for place in ("k210tasks.cli.chosen.chain_of", "k210tasks.steps.chain.chain_of"):
        monkeypatch.setattr(place, lambda manifest: toys.Tasks().chain(manifest))
    return Verbs(capsys)


def test_why_before_the_first_run(toy: Toy, verbs: Verbs) -> None:
    assert verbs.why("one") == [
        ("convert:one", "runs", ["no record of an earlier run"]),
        ("calibrate:one", "runs", ["no record of an earlier run"]),
        ("kmodel:one", "runs", ["no record of an earlier run"]),
        ("verify:one", "runs", ["no record of an earlier run"]),
    ]
    assert toy.computed() == []


def test_why_when_nothing_changed(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    assert {status for _, status, _ in verbs.why()} == {"current"}
    assert verbs("why", "one").splitlines() == [
        "convert:one    up to date",
        "calibrate:one  up to date",
        "kmodel:one     up to date",
        "verify:one     up to date",
    ]


def test_why_names_what_changed(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    toy.write("src/one.pb", "another graph\n")
    toy.edit("min_cosine: 0.98", "min_cosine: 0.5", 2)
    toy.write("images/two/verification/b/9.png", "new")
    (toy.root / "images/two/verification/a/0.png").unlink()
    found = {task: (status, reasons) for task, status, reasons in verbs.why()}
    status, (reason,) = found["convert:one"]
    assert status == "runs"
    assert reason.startswith("src/one.pb (source) has other content: ")
    assert found["calibrate:one"] == (
        "waits",
        ["convert:one would run before it; if its result is the same, this is kept"],
    )
    assert found["convert:two"] == ("current", [])
    assert found["verify:two"] == (
        "runs",
        [
            "images/two/verification/a/0.png (images) is no longer among the files",
            "images/two/verification/b/9.png (images) is new",
        ],
    )
    text = verbs("why", "two")
    assert "verify:two     would run\n    images/two/verification/a/0.png" in text


def test_why_of_a_threshold_and_a_bad_verdict(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    toy.edit("min_cosine: 0.98", "min_cosine: 0.995")
    assert verbs.why("one")[3] == ("verify:one", "judged", ["min_cosine: 0.98 → 0.995"])
    toy.run(status=1)
    assert verbs.why("one")[3] == (
        "verify:one",
        "judged",
        ["it did not pass last time: cosine 0.99 is below 0.995"],
    )


def test_why_foresees_what_the_store_gives(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    toy.edit("mean: 0.0", "mean: 0.5")
    toy.run()
    toy.edit("mean: 0.5", "mean: 0.0")
    found = verbs.why("one")
    assert [status for _, status, _ in found] == ["current", "restored", "restored", "restored"]
    assert found[1][2] == ["preprocess.mean: 0.5 → 0.0"]
    assert toy.run() == []


def test_why_changes_nothing(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    toy.edit("mean: 0.0", "mean: 0.5")
    (toy.root / "workspace/one.kmodel").unlink()
    before = sorted(p for p in toy.root.rglob("*") if p.is_file() and "manifest" not in p.parts)
    verbs("why")
    after = sorted(p for p in toy.root.rglob("*") if p.is_file() and "manifest" not in p.parts)
    assert after == before


def test_forget(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    assert verbs("forget", "one:kmodel") == ("forgot kmodel:one, 1 result dropped from the store\n")
    assert verbs.why("one")[2] == ("kmodel:one", "runs", ["its result was forgotten"])
    assert toy.run() == ["kmodel:one"]
    assert "kmodel:one: its result was forgotten" in toy.last.stderr
    assert verbs("forget", "one").count("forgot ") == 4
    assert toy.run() == sorted(FOUR)  # convert too: its .tflite is known to be ours


@pytest.mark.parametrize("name", ["kmodel:one", "one:kmodel"])
def test_forget_takes_both_orders(toy: Toy, verbs: Verbs, name: str) -> None:
    assert verbs("forget", name) == "forgot kmodel:one\n"


def test_forget_refuses_what_is_not_there(toy: Toy, verbs: Verbs) -> None:
    assert verbs("forget", "three", status=1) == (
        "k210 forget: models.yaml has no model or firmware image 'three'; it has: one, two\n"
    )
    assert verbs("forget", "one:polish", status=1) == (
        "k210 forget: one has no step 'polish'; it has: convert, calibrate, kmodel, verify\n"
    )


def test_gc(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    store = toy.root / ".k210/store"
    assert verbs("gc") == f"removed 0 results, 0 files, 0.0 MB, from {store}\n"
    toy.edit("mean: 0.0", "mean: 0.5")
    toy.run()
    assert verbs("gc", "-n") == f"would remove 3 results, 3 files, 0.0 MB, from {store}\n"
    assert verbs("gc") == f"removed 3 results, 3 files, 0.0 MB, from {store}\n"
    assert verbs("gc") == f"removed 0 results, 0 files, 0.0 MB, from {store}\n"
    shutil.rmtree(toy.root / "workspace")
    assert toy.run() == []  # what is in use was kept


def test_gc_of_a_model_that_is_no_more(toy: Toy, verbs: Verbs) -> None:
    toy.run()
    toy.manifest("one")
    verbs("gc")
    toy.manifest("one", "two")
    assert toy.run() == []  # its files are still there
    toy.manifest("one")
    for path in toy.files():
        if path.startswith(("workspace/two.", "build/two/")):
            (toy.root / path).unlink()
    assert verbs("gc").startswith("removed 4 results, ")
    assert not list((toy.root / ".k210/state").glob("*.two.json"))


def test_gc_leaves_what_other_projects_put_into_a_shared_store(
    toy: Toy, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = toy.root / "shared"
    monkeypatch.setenv("K210_STORE", str(shared))
    other = Toy(toy.root / "other", ("three",))
    other.run(K210_STORE=str(shared))
    toy.run(K210_STORE=str(shared))
    assert verbs("gc") == f"removed 0 results, 0 files, 0.0 MB, from {shared}\n"
    shutil.rmtree(other.root)
    assert verbs("gc").startswith("removed 4 results, ")


def test_gc_without_a_store(toy: Toy, verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K210_STORE", "off")
    assert verbs("gc") == "the store is off (K210_STORE=off)\n"
