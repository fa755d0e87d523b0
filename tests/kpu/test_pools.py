from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kpu.pools import POOLS, Pool, apply_pool, pooled
from tests.kpu import slow


def test_the_table_names_all_ten() -> None:
    assert list(POOLS) == list(Pool) == list(range(10))


@pytest.mark.parametrize("pool", Pool)
@settings(max_examples=15, deadline=None)
@given(height=st.integers(4, 13), width=st.integers(4, 13), seed=st.integers(0, 99))
def test_equals_the_definition(pool: Pool, height: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(0, 256, (2, height, width)).astype(np.uint8)
    got = apply_pool(x, pool)
    assert got.shape[1:] == (pooled(height, pool), pooled(width, pool))
    np.testing.assert_array_equal(got, np.stack([slow.pool(one, int(pool)) for one in x]))


def test_extremes_do_not_overflow() -> None:
    x = np.full((1, 8, 8), 255, np.uint8)
    for pool in Pool:
        assert apply_pool(x, pool).min() == 255
