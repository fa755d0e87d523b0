"""Records and history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k210tasks.store.checked import HEAD
from k210tasks.store.history import History, Line
from k210tasks.store.records import SEAL_LENGTH, TaskStates, file_name, written


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("convert:nn_xo", "convert.nn_xo.json"),
        ("kmodel:v1.2-a", "kmodel.v1.2-a.json"),
        ("kmodel:сеть", "kmodel.сеть.json"),
        ("verify:犬", "verify.犬.json"),
        ("a:b:c/d", "a.b%3ac%2fd.json"),
    ],
)
def test_names_of_records(task: str, name: str) -> None:
    assert file_name(task) == name


def test_a_record_comes_back(tmp_path: Path) -> None:
    states = TaskStates(str(tmp_path / "state"))
    assert states.load("convert:x") is None
    states.save("convert:x", {"outcome": "done", "settings": {"a": [1, 0.5, None, "é"]}})
    record = states.load("convert:x")
    assert record is not None
    assert record["settings"] == {"a": [1, 0.5, None, "é"]}
    assert [r["task"] for r in states.all()] == ["convert:x"]
    assert states.remove("convert:x")
    assert not states.remove("convert:x")


@pytest.mark.parametrize("bad", ["", "{", "[]", '{"format": 2}'])
def test_a_damaged_record_is_said_and_counts_as_none(tmp_path: Path, bad: str) -> None:
    said: list[str] = []
    states = TaskStates(str(tmp_path), said.append)
    (tmp_path / "convert.x.json").write_text(bad)
    assert states.load("convert:x") is None
    assert len(said) == 1
    assert said[0].startswith("convert:x: what is known of it cannot be read (")
    assert list(states.all()) == []


def test_every_byte_of_a_record_counts(tmp_path: Path) -> None:
    states = TaskStates(str(tmp_path))
    states.save("convert:x", {"outcome": "done", "outputs": {}}, "a" * SEAL_LENGTH)
    assert states.seal("convert:x") == "a" * SEAL_LENGTH
    path = tmp_path / "convert.x.json"
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        assert states.load("convert:x") is None, at
        # Of what is not read when nothing has changed, nothing is believed either.
        of_seal = HEAD <= at < HEAD + len('"seal":"') + SEAL_LENGTH
        assert (states.seal("convert:x") == "a" * SEAL_LENGTH) is not of_seal, at


def test_a_record_without_a_seal_has_none(tmp_path: Path) -> None:
    states = TaskStates(str(tmp_path))
    assert states.seal("convert:x") == ""
    states.save("convert:x", {"outcome": "done"})
    assert states.seal("convert:x") == ""
    states.save("convert:x", {"outcome": "done"}, "b" * SEAL_LENGTH)
    record = states.load("convert:x")
    assert record is not None
    states.save("convert:x", record)  # the seal was of that state of things
    assert states.seal("convert:x") == ""


def test_of_a_record_of_0_1_it_is_known_what_is_ours(tmp_path: Path) -> None:
    place = {"path": "workspace/x.kmodel", "files": {"": ["ab", [1, 2, 3, 4]]}}
    judged = {"path": "build/x/verify.json", "files": {"": ["cd", [1, 2, 3, 4]]}}
    old = {"format": 1, "task": "verify:x", "outcome": "done", "outputs": {"kmodel": place},
           "judge": {"outputs": {"verify": judged}}}  # fmt: skip
    (tmp_path / "verify.x.json").write_text(json.dumps(old, separators=(",", ":")))
    record = TaskStates(str(tmp_path)).load("verify:x")
    assert record is not None
    assert record["outcome"] == "forgotten"
    assert written(record) == {("workspace/x.kmodel", ""), ("build/x/verify.json", "")}


def test_history_survives_a_torn_line(tmp_path: Path) -> None:
    history = History(str(tmp_path / "sub/history.jsonl"))
    assert list(history.entries()) == []
    history.add(Line(time=1.0, task="convert:x", did="computed"))
    path = tmp_path / "sub/history.jsonl"
    with path.open("a") as file:
        file.write('{"odd": 1}\n{"task": 3, "time": 1.0}\n{"task": "calibrate:x", "di')
    history.add(Line(time=2.5, task="kmodel:x", did="computed", ok=False, message="no"))
    assert [e.task for e in history.entries()] == ["convert:x", "kmodel:x"]
    assert json.loads(path.read_text().splitlines()[-1]) == {
        "run": "", "time": 2.5, "task": "kmodel:x", "step": "", "subject": "", "did": "computed",
        "seconds": 0.0, "ok": False, "message": "no",
    }  # fmt: skip
