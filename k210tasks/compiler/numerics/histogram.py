"""Histograms of values whose range is not known beforehand.

The width of a bin is a power of two and bin edges are its multiples, so a histogram with
wider bins is an exact sum of one with narrower bins. The width follows from the largest
magnitude alone: counted by several threads, in any order, merged in any order, the
result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HALF = 1024  # bins on either side of zero
_MIN_EXPONENT = -60  # width for tensors that are zero everywhere


def width_exponent(magnitude: float) -> int:
    """The least e, at least -60, with ``magnitude < HALF * 2**e``."""
    if magnitude == 0:
        return _MIN_EXPONENT
    _, exponent = np.frexp(magnitude)
    return max(int(exponent) - HALF.bit_length() + 1, _MIN_EXPONENT)


@dataclass(slots=True)
class Histogram:
    """``counts`` int64 [2 * HALF]; bin ``HALF + i`` holds values in [i, i+1) * 2**exponent."""

    exponent: int = _MIN_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * HALF, np.int64))

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    def widen(self, exponent: int) -> None:
        """Make the bins at least ``2**exponent`` wide; what was counted stays exact."""
        by = exponent - self.exponent
        if by <= 0:
            return
        used = np.flatnonzero(self.counts)
        target = ((used - HALF) >> min(by, 62)) + HALF
        counts = np.zeros_like(self.counts)
        np.add.at(counts, target, self.counts[used])
        self.counts, self.exponent = counts, exponent

    def add(self, values: NDArray[np.float32], magnitude: float) -> None:
        """Count finite ``values`` (float32, flat), none larger than ``magnitude``."""
        self.widen(width_exponent(magnitude))
        # Exact, being a power of two, in float64 also for the smallest float32.
        scaled = values.astype(np.float64) * 2.0**-self.exponent
        index = np.floor(scaled, out=scaled).astype(np.int32)
        index += HALF
        self.counts += np.bincount(index, minlength=2 * HALF)

    def merge(self, other: Histogram) -> None:
        """Add what ``other`` counted; ``other`` may be widened by it."""
        exponent = max(self.exponent, other.exponent)
        self.widen(exponent)
        other.widen(exponent)
        self.counts += other.counts
