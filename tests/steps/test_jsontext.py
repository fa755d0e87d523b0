"""JSON with a line a record: still JSON, whatever it holds."""

from __future__ import annotations

import json

import pytest

from k210tasks.steps.jsontext import pretty


def test_a_line_a_record() -> None:
    value = {"a": 1.5, "none": None, "words": ["ä", "b"], "rows": [{"x": 1}, {"x": [2]}], "no": []}
    text = pretty(value)
    assert json.loads(text) == value
    assert text == (
        '{\n "a": 1.5,\n "none": null,\n "words": ["ä", "b"],\n "rows": [\n  {"x": 1},\n'
        '  {"x": [2]}\n ],\n "no": []\n}\n'
    )


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pretty({"a": float("nan")})
