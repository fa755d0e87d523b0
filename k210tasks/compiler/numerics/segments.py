"""Activation tables: sixteen segments that turn a batch-norm result into an output code.

The arithmetic is that of docs section 1.9, steps 4 and 5, and its quirks decide how a
table is written here:

* a segment starts *above* its start (``start < v``), so ``v - start`` is positive in it
  and equals zero in none; the value at the start itself belongs to the segment before;
* a product below zero rounds oddly (up to two codes low), so rising functions get
  segments whose products are never negative, and falling ones pay for it in the fit or
  are turned round by the caller with negative batch-norm multipliers;
* each segment adds a byte, hence begins on a whole code.

Linear, ReLU, ReLU6 and leaky ReLU are exact: their codes equal the rounded real result.
Any other function of one variable is fitted by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEGMENTS = 16
LOWEST = -(2**35)
PARKED = 2**35 - SEGMENTS  # starts that no value of the batch-norm stage reaches
SLOPE_BITS = 16  # y_mul is signed 16 bits
MAX_SHIFT = 20  # the largest activation shift compilers for the chip emitted
# Binary digits of a result below one code where slopes other than one occur: eleven bits
# are left to the slope itself by the shift's limit.
CURVE_FRACTION = 9

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ActivationTable:
    """Sixteen segments, starts not descending: int64 arrays, ``bias`` 0..255 (section 1.8)."""

    start: NDArray[np.int64]
    mul: NDArray[np.int64]
    shift: NDArray[np.int64]
    bias: NDArray[np.int64]

    def apply(self, v: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The output codes of batch-norm results, exactly as the KPU computes them."""
        index = np.searchsorted(self.start[1:], v, side="left")  # the last start below v
        a = (v - self.start[index]) * self.mul[index]
        shift = self.shift[index]
        whole = a >> shift
        part = a - (whole << shift)
        half = np.left_shift(1, np.maximum(shift, 1) - 1)
        step = (part > half) | ((part == half) & (whole & 1 == 1))
        step &= shift > 0
        result = whole + np.where(step, np.where(a < 0, -1, 1), 0) + self.bias[index]
        return np.asarray(np.clip(result, 0, 255), np.uint8)


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece: for ``v > start`` the code is ``bias + (v - start) * mul / 2**shift``."""

    start: int
    mul: int
    shift: int
    bias: int


def table(segments: list[Segment], left: int) -> ActivationTable:
    """The table of at most 15 segments in ascending order; ``left`` is the code before them."""
    if len(segments) > SEGMENTS - 1:
        raise ValueError(f"{len(segments)} segments, a table holds {SEGMENTS - 1} and the left end")
    rows = [Segment(LOWEST, 0, 0, left), *segments]
    last = rows[-1]
    parked = SEGMENTS - len(rows)
    # Never reached; they hold the right end's code so that even a wrong jump there is tame.
    end = 255 if last.mul > 0 else 0 if last.mul < 0 else last.bias
    rows += [Segment(PARKED + i, 0, 0, end) for i in range(SEGMENTS - parked, SEGMENTS)]
    column = {
        name: np.array([getattr(row, name) for row in rows], np.int64)
        for name in ("start", "mul", "shift", "bias")
    }
    return ActivationTable(**column)


def slope(codes_per_unit: float, fraction: int) -> tuple[int, int]:
    """``(mul, shift)`` for a slope in output codes per input code, ``v`` having ``fraction``."""
    value = codes_per_unit * 2.0**-fraction
    if value == 0:
        return 0, 0
    top = 2 ** (SLOPE_BITS - 1) - 1
    shift = MAX_SHIFT
    while shift > 0 and abs(round(value * 2.0**shift)) > top:
        shift -= 1
    mul = max(-top, min(top, round(value * 2.0**shift)))
    while shift > 0 and mul and mul % 2 == 0:  # the same factor with the smallest numbers
        mul, shift = mul // 2, shift - 1
    return mul, shift


def linear(fraction: int, zero_point: int, low: int = 0, high: int = 255) -> ActivationTable:
    """``clip(round(v / 2**fraction) + zero_point, low, high)``, ties to even counted from ``low``.

    ReLU is ``low = zero_point``; ReLU6 ends at the code of six.
    """
    unit = 1 << fraction
    mul, shift = slope(1.0, fraction)
    segments = [Segment((low - zero_point) * unit, mul, shift, low)]
    if high < 255:
        segments.append(Segment((high - zero_point) * unit, 0, 0, high))
    return table(segments, low)


def leaky(fraction: int, zero_point: int, alpha: float) -> ActivationTable:
    """Leaky ReLU with slope ``alpha`` (0..1) below zero, output zero point ``zero_point``.

    ``fraction`` should be at most :data:`CURVE_FRACTION`, so that ``alpha`` is precise.
    """
    if alpha <= 0 or zero_point == 0:
        return linear(fraction, zero_point, low=zero_point)
    mul, shift = slope(alpha, fraction)
    one, one_shift = slope(1.0, fraction)
    if mul == 0:
        return linear(fraction, zero_point, low=zero_point)
    # The left segment is placed so that it meets the right one at zero exactly.
    start = -round(zero_point * 2.0**shift / mul)
    start = max(start, LOWEST + 1)
    return table([Segment(start, mul, shift, 0), Segment(0, one, one_shift, zero_point)], 0)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted table and what it was proven to do over the range it was made for."""

    table: ActivationTable
    max_error: float  # output codes, against the clipped real-valued curve
    rms_error: float  # likewise; 0.289 is rounding alone


def fit(
    curve: Curve,
    low: int,
    high: int,
    *,
    weights: NDArray[np.float64] | None = None,
    points: int = 1024,
    candidates: int = 192,
    constant_above: bool = False,
) -> Fit:
    """The table nearest to ``curve`` for batch-norm results ``low..high``.

    ``curve`` maps results (float64 array) to real-valued output codes, zero point
    included; it is clipped to 0..255 here. ``weights`` (``points`` values, equidistant
    over the range) say how often a result occurs; a tenth of the weight stays spread
    evenly, so that rare values are not left to chance. ``constant_above``: the curve ends at
    ``high``, and any result beyond has its code; else the last slope goes on. Least squares
    by dynamic programming over segment starts, then every slope and byte is settled on the
    exact integer arithmetic. The errors returned are measured with that arithmetic on all
    results of the range, or on 65536 evenly spaced ones where it holds more.
    """
    low, high = max(low, LOWEST + 1), min(high, PARKED - 1)
    if high <= low:
        high = low + 1
    grid = np.unique(np.rint(np.linspace(low, high, points)).astype(np.int64))
    target = np.clip(np.asarray(curve(grid.astype(np.float64)), np.float64), 0, 255)
    weight = np.full(len(grid), 1.0 / len(grid))
    if weights is not None and len(weights) == len(grid) and weights.sum() > 0:
        weight = 0.9 * weights / weights.sum() + 0.1 * weight
    starts = _candidates(grid, target, candidates)
    most = SEGMENTS - 1 - constant_above
    segments, left = _best_chain(grid, target, weight, starts, most)
    if constant_above:
        segments.append(Segment(high, 0, 0, round(float(target[-1]))))
    made = table(segments, left)
    return Fit(made, *_measure(made, curve, low, high))


def _candidates(grid: NDArray[np.int64], target: NDArray[np.float64], count: int) -> list[int]:
    """Grid indices where a segment may begin: whole-code crossings first, then evenly."""
    whole = np.floor(target + 1e-9)
    crossing = np.flatnonzero(whole[1:] != whole[:-1]) + 1
    near = np.where(
        np.abs(target[crossing] - np.rint(target[crossing]))
        <= np.abs(target[crossing - 1] - np.rint(target[crossing - 1])),
        crossing,
        crossing - 1,
    )
    if len(near) > count * 2 // 3:
        near = near[np.linspace(0, len(near) - 1, count * 2 // 3).astype(np.int64)]
    even = np.linspace(0, len(grid) - 2, count - len(near)).astype(np.int64)
    return sorted({0, *near.tolist(), *even.tolist()} - {len(grid) - 1})


# Mean square of what the odd rounding of negative products adds to a falling segment.
_FALLING_PENALTY = 0.5


def _best_chain(
    grid: NDArray[np.int64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
    starts: list[int],
    most: int,
) -> tuple[list[Segment], int]:
    """At most ``most`` segments of least weighted squared error, by dynamic programming over
    the starts."""
    count = len(starts)
    ends = np.array([*starts[1:], len(grid)])  # a segment from start i may end at ends[j], j >= i
    left = round(float(target[0]))
    cost = np.full((count, count), np.inf)
    slopes = np.zeros((count, count))
    biases = np.zeros((count, count), np.int64)
    for i, first in enumerate(starts):
        d = (grid[first:] - grid[first]).astype(np.float64)
        w = weight[first:]
        wd = w * d
        sum_dd = np.cumsum(wd * d)[ends[i:] - first - 1]
        for bias in sorted({int(np.floor(target[first])), int(np.ceil(target[first]))}):
            if not 0 <= bias <= 255:
                continue
            r = target[first:] - bias
            sum_dr = np.cumsum(wd * r)[ends[i:] - first - 1]
            sum_rr = np.cumsum(w * r * r)[ends[i:] - first - 1]
            sum_w = np.cumsum(w)[ends[i:] - first - 1]
            k = np.divide(sum_dr, sum_dd, out=np.zeros_like(sum_dr), where=sum_dd > 0)
            sse = np.maximum(sum_rr - k * sum_dr, 0.0)
            falling = k < 0
            sloped = np.where(falling, sse + _FALLING_PENALTY * sum_w, sse)
            k = np.where(sloped < sum_rr, k, 0.0)
            best = np.minimum(sloped, sum_rr)
            better = best < cost[i, i:]
            cost[i, i:] = np.where(better, best, cost[i, i:])
            slopes[i, i:] = np.where(better, k, slopes[i, i:])
            biases[i, i:] = np.where(better, bias, biases[i, i:])
    total = np.full((most + 1, count + 1), np.inf)  # [segments used, starts covered]
    total[0, 0] = 0.0
    previous = np.zeros((most + 1, count + 1), np.int64)
    for used in range(1, most + 1):
        reach = total[used - 1, :count, None] + cost  # from start i to the end of j
        previous[used, 1:] = np.argmin(reach, axis=0)
        total[used, 1:] = np.min(reach, axis=0)
    used = int(np.argmin(total[:, count]))
    chain: list[tuple[int, int]] = []
    covered = count
    while covered:
        i = int(previous[used, covered])
        chain.append((i, covered - 1))
        covered, used = i, used - 1
    segments = []
    for i, j in reversed(chain):
        mul, shift = slope(float(slopes[i, j]), 0)
        bias = int(biases[i, j]) + (1 if mul < 0 and biases[i, j] < 255 else 0)
        # Results equal to a start belong to the segment before, hence one below.
        segments.append(Segment(int(grid[starts[i]]) - (1 if i else 0), mul, shift, bias))
    return segments, left


def _measure(made: ActivationTable, curve: Curve, low: int, high: int) -> tuple[float, float]:
    count = high - low + 1
    v = (
        np.arange(low, high + 1, dtype=np.int64)
        if count <= 65536
        else np.rint(np.linspace(low, high, 65536)).astype(np.int64)
    )
    exact = np.clip(np.asarray(curve(v.astype(np.float64)), np.float64), 0, 255)
    error = made.apply(v).astype(np.float64) - exact
    return float(np.abs(error).max()), float(np.sqrt(np.mean(error * error)))
