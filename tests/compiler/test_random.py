"""Random networks through the whole compiler: right within quantisation error, or refused.

Long runs: ``python -m tests.compiler.random_networks``.
"""

from __future__ import annotations

import pytest

from tests.compiler.judging import judge
from tests.compiler.mutants import EDITS, killed
from tests.compiler.random_networks import told

SEEDS = range(1, 61)
MUTATED = range(1, 16)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_network_computes_what_litert_does_or_is_refused(kmodel: int) -> None:
    """And it is found in each when 10 dB are lost, in eight of ten by the bounds alone."""
    verdicts = [judge(seed, kmodel, "maixpy") for seed in SEEDS]
    assert not [told(v) for v in verdicts if v.fault]
    assert not [v.seed for v in verdicts if v.told is False]
    sharp = [v.sharp for v in verdicts if v.sharp is not None]
    assert sum(sharp) >= 0.8 * len(sharp), [v.seed for v in verdicts if v.sharp is False]


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_bounds_find_faults_put_in_on_purpose(kmodel: int) -> None:
    tally: dict[str, list[bool]] = {}
    for seed in MUTATED:
        for fault, found in killed(seed, kmodel).items():
            tally.setdefault(fault, []).append(found)
    rates = {fault: f"{sum(found)} of {len(found)}" for fault, found in tally.items()}
    print(rates)
    assert set(tally) == {*EDITS, "steps too wide"}
    assert all(found.count(False) <= max(1, len(found) // 10) for found in tally.values()), rates
