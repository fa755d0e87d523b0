"""Placement: never overlapping, aligned, deterministic, better than first fit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.compiler.numerics.allocator import Buffer, busiest_step, lower_bound, place

buffers = st.lists(
    st.builds(
        lambda size, first, length: Buffer(size, first, first + length),
        st.integers(0, 5000),
        st.integers(0, 30),
        st.integers(0, 8),
    ),
    max_size=25,
)


def overlaps(items, placed):
    for i, a in enumerate(items):
        for j, b in enumerate(items[:i]):
            together = a.first <= b.last and b.first <= a.last
            pa, pb = placed.addresses[i], placed.addresses[j]
            if together and a.size and b.size and pa < pb + b.size and pb < pa + a.size:
                return i, j
    return None


@settings(deadline=None, max_examples=80)
@given(buffers, st.sampled_from([1, 8, 64]))
def test_legal_aligned_and_not_below_the_bound(items, align):
    placed = place(items, align=align, rounds=30)
    assert overlaps(items, placed) is None
    assert all(a % align == 0 for a in placed.addresses)
    assert placed.total >= lower_bound(items)
    ends = [a + b.size for a, b in zip(placed.addresses, items, strict=True) if b.size]
    assert placed.total >= max(ends, default=0)
    assert place(items, align=align, rounds=30) == placed


def first_fit(items):
    """In order of birth at the lowest free address, as the old compilers did."""
    placed = []
    for b in items:
        at = 0
        for _, o_at, o in sorted((p, p, o) for p, o in placed if b.first <= o.last):
            if at + b.size <= o_at:
                break
            at = max(at, o_at + o.size)
        placed.append((at, b))
    return max(a + b.size for a, b in placed)


def test_beats_first_fit_and_is_mostly_optimal() -> None:
    rng = np.random.default_rng(0)
    ours = theirs = bound = 0
    for _ in range(20):
        items = sorted(
            (
                Buffer(int(rng.integers(1, 1000)), f, f + int(rng.integers(0, 6)))
                for f in (int(v) for v in rng.integers(0, 30, size=30))
            ),
            key=lambda b: b.first,
        )
        ours += place(items).total
        theirs += first_fit(items)
        bound += lower_bound(items)
    assert ours <= 1.03 * bound
    assert ours < 0.97 * theirs


def test_a_chain_needs_only_its_two_largest_neighbours() -> None:
    sizes = [100, 400, 300, 500, 20, 600]
    items = [Buffer(s, i, i + 1) for i, s in enumerate(sizes)]
    assert place(items).total == 800 == lower_bound(items)


def test_the_busiest_step_names_its_buffers() -> None:
    items = [Buffer(10, 0, 3), Buffer(50, 2, 4), Buffer(45, 4, 5)]
    assert busiest_step(items) == (4, [1, 2])


def test_nothing_to_place() -> None:
    assert place([]).total == 0
    assert place([Buffer(0, 0, 1)]).addresses == (0,)
