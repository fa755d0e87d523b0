"""From a histogram of a tensor's values to the range its 256 codes shall cover.

Every method sees the same histogram (see :mod:`.histogram`), so changing the method
needs no new run of the model. ``minmax`` keeps everything; ``percentile`` drops the
outermost 0.01 % of each side; ``mse`` minimises the squared error of rounding and
clipping together; ``kl`` minimises the Kullback-Leibler divergence of the rounded
distribution from the measured one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["minmax", "percentile", "mse", "kl"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "kl")

_TAIL = 1e-4  # percentile: share of the values given up on either side
_FLOOR = 1e-6  # narrowest range, for tensors that are constant


def choose(
    method: Method,
    counts: NDArray[np.int64],
    width: float,
    low: float,
    high: float,
    *,
    levels: int = 255,
) -> tuple[float, float]:
    """``(low, high)`` by ``method``; zero is always inside.

    ``counts`` [2 * B] are values per bin of ``width``, bin B starting at zero; ``low`` and
    ``high`` the exact extremes measured.
    """
    lo, hi = min(low, 0.0), max(high, 0.0)
    if hi - lo < _FLOOR:
        return lo, lo + _FLOOR
    if method == "minmax" or counts.sum() == 0:
        return lo, hi
    half = len(counts) // 2
    edges = (np.arange(len(counts) + 1, dtype=np.float64) - half) * np.float64(width)
    if method == "percentile":
        return _percentile(counts, edges, lo, hi)
    search = _mse if method == "mse" else _kl
    return search(counts, edges, lo, hi, levels)


def _percentile(
    counts: NDArray[np.int64], edges: NDArray[np.float64], lo: float, hi: float
) -> tuple[float, float]:
    share = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(share, _TAIL, side="right"))
    last = int(np.searchsorted(share, 1 - _TAIL, side="left"))
    low = min(0.0, max(lo, float(edges[first])))
    high = max(0.0, min(hi, float(edges[min(last + 1, len(edges) - 1)])))
    return (low, high) if high - low >= _FLOOR else (lo, hi)


def _trials(lo: float, hi: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high ends of the candidate ranges: each end shrunk by steps, zero kept inside."""
    factors = np.linspace(1.0, 0.2, 33)
    lows = lo * factors if lo else np.zeros(1)
    highs = hi * factors if hi else np.zeros(1)
    return np.repeat(lows, len(highs)), np.tile(highs, len(lows))


def _mse(
    counts: NDArray[np.int64], edges: NDArray[np.float64], lo: float, hi: float, levels: int
) -> tuple[float, float]:
    """Least ``step**2 / 12 * inside + squared distance of what is outside``.

    Over cumulative sums, so that a candidate costs two look-ups.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    n = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    s1 = np.concatenate([[0.0], np.cumsum(counts * centres)])
    s2 = np.concatenate([[0.0], np.cumsum(counts * centres**2)])
    zero = counts[len(counts) // 2] if lo == 0 else 0  # after a ReLU: exact in any range
    low, high = _trials(lo, hi)
    a = np.searchsorted(edges, low, side="left")
    b = np.minimum(np.maximum(np.searchsorted(edges, high, side="left"), a), len(counts))
    step = (high - low) / levels
    inside = np.maximum(n[b] - n[a] - zero, 0.0)
    left = s2[a] - 2 * low * s1[a] + low * low * n[a]
    right = (s2[-1] - s2[b]) - 2 * high * (s1[-1] - s1[b]) + high * high * (n[-1] - n[b])
    errors = step * step / 12 * inside + np.maximum(left, 0.0) + np.maximum(right, 0.0)
    best = int(np.argmin(errors))  # the first of equals: the widest
    return float(low[best]), float(high[best])


def _kl(
    counts: NDArray[np.int64], edges: NDArray[np.float64], lo: float, hi: float, levels: int
) -> tuple[float, float]:
    """Least divergence of the distribution after clipping and rounding."""
    centres = (edges[1:] + edges[:-1]) / 2
    p = counts / counts.sum()
    used = np.flatnonzero(counts)
    best, best_score = (lo, hi), np.inf
    for factor in np.linspace(1.0, 0.2, 65):
        low, high = lo * factor, hi * factor
        step = (high - low) / levels
        code = np.rint((np.clip(centres[used], low, high) - low) / step).astype(np.int64)
        mass = np.bincount(code, weights=p[used], minlength=levels + 1)
        spread = np.bincount(code[_inside(centres[used], low, high)], minlength=levels + 1)
        q = np.where(spread[code] > 0, mass[code] / np.maximum(spread[code], 1), 0.0)
        q = np.where(_inside(centres[used], low, high), q, 1e-9)
        q /= q.sum()
        score = float(np.sum(p[used] * np.log(p[used] / np.maximum(q, 1e-12))))
        if score < best_score - 1e-12:
            best, best_score = (low, high), score
    return best


def _inside(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    return (x >= low) & (x <= high)


def quantisation(low: float, high: float, *, levels: int = 255) -> tuple[float, int]:
    """``(scale, zero_point)``: real = (code - zero_point) * scale, zero a code exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    zero_point = round(-low / (max(high - low, _FLOOR) / levels))
    return scale_with(low, high, zero_point, levels=levels), zero_point


def scale_with(low: float, high: float, zero_point: int, *, levels: int = 255) -> float:
    """The least scale with which codes around ``zero_point`` reach both ends."""
    low, high = min(low, 0.0), max(high, 0.0)
    # The zero point's rounding shifts the range: stretch the scale so both ends stay inside.
    if 0 < zero_point < levels:
        return max(high / (levels - zero_point), -low / zero_point, _FLOOR / levels)
    return max(high - low, _FLOOR) / levels


def shared_zero_point(ranges: list[tuple[float, float]], *, levels: int = 255) -> int:
    """The zero point with which several ranges, each with a scale of its own, lose least: the
    sum of the squares of their steps, as shares of what each range needs."""
    if len(set(ranges)) == 1:
        return quantisation(*ranges[0], levels=levels)[1]
    losses = np.zeros(levels + 1)
    at = np.arange(levels + 1, dtype=np.float64)
    for low, high in ranges:
        span = max(high - low, _FLOOR)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.where(high > span / levels / 2, high / (levels - at), 0.0)
            below = np.where(-low > span / levels / 2, -low / at, 0.0)
        losses += np.square(np.maximum(above, below) / span)
    return int(np.argmin(losses))
