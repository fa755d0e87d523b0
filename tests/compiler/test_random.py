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
@pytest.mark.parametrize("tens", range(len(SEEDS) // 10))
def test_a_network_computes_what_litert_does_or_is_refused(tens: int, kmodel: int) -> None:
    verdicts = [judge(seed, kmodel, "maixpy") for seed in SEEDS[10 * tens : 10 * tens + 10]]
    assert not [told(v) for v in verdicts if v.fault]


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_bounds_find_faults_put_in_on_purpose(kmodel: int) -> None:
    tally: dict[str, list[bool]] = {}
    for seed in MUTATED:
        for fault, found in killed(seed, kmodel).items():
            tally.setdefault(fault, []).append(found)
    rates = {fault: f"{sum(found)} of {len(found)}" for fault, found in tally.items()}
    print(rates)
    assert set(tally) == {*EDITS, "10 dB lost", "steps too wide"}
    # Ten dB of noise may still be what eight bits allow, of a kmodel that is better by as much.
    noise = tally.pop("10 dB lost")
    assert sum(noise) >= 0.5 * len(noise), rates
    assert all(sum(found) >= 0.6 * len(found) for found in tally.values()), rates
    everything = [one for found in tally.values() for one in found]
    assert sum(everything) >= 0.9 * len(everything), rates
