"""The numbers of ``verify``, against values computed by hand."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.reference.metrics import Tally, cosine, max_abs_error, snr_db, top1


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        (array(1, 0), array(2, 0), 1.0),
        (array(1, 0), array(0, 3), 0.0),
        (array(1, 0), array(-5, 0), -1.0),
        (array(3, 4), array(4, 3), 24 / 25),
        (array(0, 0), array(0, 0), 1.0),
        (array(0, 0), array(0, 1), 0.0),
        (array(1e30, 1e30), array(1e-30, 1e-30), 1.0),
    ],
)
def test_cosine(a: np.ndarray, b: np.ndarray, value: float) -> None:
    assert cosine(a, b) == pytest.approx(value, abs=1e-12)


def test_cosine_ignores_the_shape() -> None:
    a = np.arange(6.0).reshape(2, 3)
    assert cosine(a, a.reshape(1, 6)) == 1.0


@pytest.mark.parametrize(
    ("signal", "noise", "db"),
    [(100, 1, 20), (1, 10, -10), (5, 0, 200), (0, 0, 200), (0, 3, -200), (1e300, 1e-300, 200)],
)
def test_snr(signal: float, noise: float, db: float) -> None:
    assert snr_db(signal, noise) == pytest.approx(db)


def test_max_abs_error_and_top1() -> None:
    assert max_abs_error(array(1, 2), array(1.5, -1)) == 3
    assert max_abs_error(array(), array()) == 0
    assert top1(np.array([[0.1, 0.7, 0.7]])) == 1


def test_tally_sums_over_samples() -> None:
    tally = Tally()
    assert tally.add(array(3, 4), array(4, 3)) == pytest.approx(0.96)
    assert tally.add(array(10, 0), array(10, 0)) == 1.0
    assert tally.count == 2
    assert tally.cosine_mean == pytest.approx(0.98)
    assert tally.cosine_min == pytest.approx(0.96)
    assert tally.snr_db == pytest.approx(10 * math.log10(125 / 2))
    assert tally.max_abs_error == 1


def test_tally_counts_what_is_not_finite_and_leaves_it_out() -> None:
    tally = Tally()
    assert tally.add(array(1, 2), array(1, math.nan)) is None
    assert tally.add(array(math.inf, 2), array(1, 2)) is None
    assert (tally.count, tally.non_finite) == (0, 2)
    assert (tally.cosine_mean, tally.snr_db) == (0.0, -200.0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20), st.integers(0, 9)
)
def test_cosine_is_bounded_and_scale_free(values: list[float], seed: int) -> None:
    a = array(*values)
    b = np.random.default_rng(seed).normal(size=a.size)
    assert -1 <= cosine(a, b) <= 1
    assert cosine(a, b) == pytest.approx(cosine(a, 7 * b), abs=1e-9)
    assert cosine(a, a) == pytest.approx(1)


SUMS = """
import numpy as np
from k210tasks.reference.metrics import Tally, cosine
rng, tally = np.random.default_rng(1), Tally()
for size in (3, 1000, 4097, 300_001):
    a = rng.normal(size=size).astype(np.float32)
    b = a + rng.normal(size=size).astype(np.float32) / 100
    tally.add(a, b)
    print(cosine(a, b).hex(), float(a.astype(float) @ b.astype(float)).hex())
print(tally.signal.hex(), tally.noise.hex(), tally.cosine_sum.hex())
"""


def test_sums_are_the_same_for_any_threads_and_processor() -> None:
    """Told to OpenBLAS by its environment; what it adds up itself shows that it listened."""
    ours, theirs = set(), set()
    for threads in ("1", "2", "4"):
        for core in ("Prescott", "Nehalem", "Sandybridge", "Haswell"):
            told = {"OPENBLAS_NUM_THREADS": threads, "OPENBLAS_CORETYPE": core}
            lines = subprocess.run(
                [sys.executable, "-c", SUMS], env={**os.environ, **told}, capture_output=True,
                text=True, check=True,
            ).stdout.splitlines()  # fmt: skip
            ours.add((*(line.split()[0] for line in lines[:-1]), lines[-1]))
            theirs.add(tuple(line.split()[1] for line in lines[:-1]))
    assert len(ours) == 1
    if platform.machine() == "x86_64" and "openblas" in str(np.show_config("dicts")):
        assert len(theirs) > 1
