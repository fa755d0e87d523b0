"""Random networks through the whole compiler: right within quantisation error, or refused.

Long runs: ``python -m tests.compiler.random_networks``.
"""

from __future__ import annotations

import pytest

from tests.compiler.judging import judge
from tests.compiler.random_networks import told

SEEDS = range(1, 101)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("tens", range(len(SEEDS) // 10))
def test_a_network_computes_what_litert_does_or_is_refused(tens: int, kmodel: int) -> None:
    verdicts = [judge(seed, kmodel) for seed in SEEDS[10 * tens : 10 * tens + 10]]
    assert not [told(v) for v in verdicts if v.fault]
