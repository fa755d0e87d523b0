"""A short run of the long trial: python -m tests.fuzz_tflite."""

from __future__ import annotations

import pytest

from tests.fuzz_tflite import Failed, fuzz, outcome


def test_damaged_models_are_checked_or_refused() -> None:
    found = fuzz(300, 11)
    assert found["supported"] > 10
    assert found["refused"] > 30
    assert found["BadModel"] > 30


def test_damaged_models_go_through_the_chain_or_are_refused() -> None:
    found = fuzz(60, 12, whole=True)
    assert found["made"] > 3
    assert found["UnusableTflite"] > 10


def test_the_trial_would_find_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> str:
        raise IndexError(data)

    monkeypatch.setattr("tests.fuzz_tflite.checked", broken)
    with pytest.raises(Failed, match="case 0 of seed 1, kept as "):
        fuzz(1, 1)
    with pytest.raises(IndexError):
        outcome(b"", whole=False)
