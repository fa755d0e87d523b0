"""A short run of the fuzz scripts of texts; long ones are in CONTRIBUTING.md."""

from __future__ import annotations

import pytest

from tests import fuzzing
from tests.fuzz_texts import SEEDS, TARGETS, mutate


@pytest.mark.parametrize("kind", TARGETS)
def test_every_damaged_text_is_read_or_refused(kind: str) -> None:
    for seed in SEEDS[kind]:
        assert fuzzing.tried(TARGETS[kind], seed)[0] == "right"
    tally, faults = fuzzing.run(TARGETS[kind], SEEDS[kind], mutate, 200, seed=1)
    assert faults == [], tally


def test_a_fault_of_each_kind_is_told() -> None:
    def target(data: bytes) -> str:
        if data == b"c":
            raise SystemExit(3)
        if data == b"k":
            import os

            os._exit(3)
        if data == b"m":
            bytearray(fuzzing.MEMORY * 2)
        return {b"e": "\x1b[2J", b"i": "internal error"}.get(data, "fine")

    seeds = [b"c", b"k", b"m", b"e", b"i", b"fine"]
    tally, faults = fuzzing.run(target, seeds, lambda rng, data: data, 60)
    assert set(tally) == {
        "traceback", "crash", "memory", "control character", "internal error", "right"
    }  # fmt: skip
    assert len(faults) == 60 - tally["right"]
