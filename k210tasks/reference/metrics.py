"""How close one array is to another: the numbers ``verify`` and ``k210 compare`` show.

All of them are taken in float64, so that long outputs lose nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: An SNR is kept within plus and minus this, so that "no error at all" is a number too.
SNR_LIMIT_DB = 200.0


def dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The sum of products, added up by numpy's own pairs: a BLAS would add in an order that follows
    from its threads and the processor, and measurements are compared by their bytes."""
    return float(np.multiply(a, b).sum())


def cosine(reference: NDArray[Any], output: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays of one size; 1 if both are zero, 0 if one is."""
    a = reference.ravel().astype(np.float64)
    b = output.ravel().astype(np.float64)
    # Scaled first: squares of huge values would overflow, those of tiny ones vanish.
    largest_a, largest_b = float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0))
    if largest_a == 0 or largest_b == 0:
        return 1.0 if largest_a == largest_b else 0.0
    a, b = a / largest_a, b / largest_b
    value = dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
    return max(-1.0, min(1.0, value))


def snr_db(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``: sums of ref² and of (ref - out)²; within ±200 dB."""
    if noise <= 0:
        return SNR_LIMIT_DB
    if signal <= 0:
        return -SNR_LIMIT_DB
    value = 10 * (math.log10(signal) - math.log10(noise))
    return max(-SNR_LIMIT_DB, min(SNR_LIMIT_DB, value))


def max_abs_error(reference: NDArray[Any], output: NDArray[Any]) -> float:
    """The largest distance between two elements; 0 for empty arrays."""
    difference = reference.ravel().astype(np.float64) - output.ravel().astype(np.float64)
    return float(np.abs(difference).max(initial=0))


def top1(scores: NDArray[Any]) -> int:
    """Index of the largest score; of equal ones the first, as firmwares choose."""
    return int(np.argmax(scores.ravel()))


@dataclass(slots=True)
class Tally:
    """Sums over samples, so that the arrays need not be kept.

    Samples with values that are infinite or not a number are counted in ``non_finite``
    and left out of the rest.
    """

    count: int = 0
    non_finite: int = 0
    signal: float = 0.0
    noise: float = 0.0
    cosine_sum: float = 0.0
    cosine_min: float = 1.0
    max_abs_error: float = 0.0

    def add(self, reference: NDArray[Any], output: NDArray[Any]) -> float | None:
        """Take in one sample; its cosine, or None where a value is not finite."""
        if not (np.isfinite(reference).all() and np.isfinite(output).all()):
            self.non_finite += 1
            return None
        a = reference.ravel().astype(np.float64)
        b = output.ravel().astype(np.float64)
        value = cosine(a, b)
        self.count += 1
        self.signal += dot(a, a)
        self.noise += dot(a - b, a - b)
        self.cosine_sum += value
        self.cosine_min = min(self.cosine_min, value)
        self.max_abs_error = max(self.max_abs_error, max_abs_error(a, b))
        return value

    @property
    def cosine_mean(self) -> float:
        """0 where no sample was finite."""
        return self.cosine_sum / self.count if self.count else 0.0

    @property
    def snr_db(self) -> float:
        """Over all samples: one ratio of sums, not a mean of ratios."""
        return snr_db(self.signal, self.noise) if self.count else -SNR_LIMIT_DB
