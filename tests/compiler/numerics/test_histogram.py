"""Histograms: exact under widening and merging, in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.compiler.numerics.histogram import HALF, Histogram, width_exponent


@pytest.mark.parametrize(
    ("magnitude", "exponent"),
    [(0.0, -60), (1.0, -9), (0.999, -10), (1024.0, 1), (1023.9, 0), (1e-30, -60)],
)
def test_width_holds_the_magnitude(magnitude, exponent):
    assert width_exponent(magnitude) == exponent
    assert magnitude < HALF * 2.0**exponent


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_parts_in_any_order_equal_the_whole(parts, random):
    arrays = [np.array(p, np.float32) for p in parts]
    everything = np.concatenate(arrays)
    whole = Histogram()
    whole.add(everything, float(np.abs(everything).max()))
    random.shuffle(arrays)
    ours, other = Histogram(), Histogram()
    for i, a in enumerate(arrays):
        (ours if i % 2 else other).add(a, float(np.abs(a).max()))
    ours.merge(other)
    assert ours.exponent == whole.exponent
    assert np.array_equal(ours.counts, whole.counts)
    assert ours.counts.sum() == everything.size
