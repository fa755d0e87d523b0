"""How the causes of a run are said, and told to programs."""

from __future__ import annotations

from typing import Any

from k210tasks.engine.reasons import InputMissing, differences


def part(**more: Any) -> dict[str, Any]:
    return {"model": None, "bin": None, "address": None, **more}


def test_entries_of_a_list_are_compared_one_by_one() -> None:
    old = {"parts": [part(model="nn_xo"), part(model="digits", address=1)]}
    new = {"parts": [part(model="nn_xo", address=4096), part(model="digits", address=1)]}
    assert [str(d) for d in differences("", old, new)] == ["parts[0].address: none → 4096"]
    new["parts"] = [part(model="nn_xo")]
    assert [str(d) for d in differences("", old, new)] == [
        'parts[1]: {"address": 1, "model": "digits"} → none'
    ]
    assert differences("", old, old) == []


def test_lists_of_values_are_compared_whole() -> None:
    found = differences("", {"labels": ["a", "b"]}, {"labels": ["a"]})
    assert [str(d) for d in found] == ['labels: ["a", "b"] → ["a"]']


def test_the_class_of_a_cause_is_told_to_programs() -> None:
    assert InputMissing("source", "a.pb").to_json() == {
        "why": "InputMissing",
        "role": "source",
        "path": "a.pb",
        "text": "a.pb (source) is missing",
    }
