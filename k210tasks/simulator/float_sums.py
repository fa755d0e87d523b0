"""Float sums and conversions as the runtimes compute them (docs, section 8.3).

A runtime adds in the order of its C loops, and where it is compiled for RV64 a product and
the sum it enters are rounded once (GCC's ``-ffp-contract=fast``). Which runtime does what is
said in :mod:`k210tasks.kmodel.runtimes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.runtimes import Runtime
from k210tasks.simulator.arrays import round_away

#: What one sequential multiply-add costs, in multiply-accumulates of a matrix product.
CHAIN_WORK = 100

_HALF_OF_FLOAT32 = np.int64(1 << 28)  # the bits of a float64 that say: midway between two float32
_BELOW_FLOAT32 = np.int64((1 << 29) - 1)
_SMALLEST_NORMAL = 2.0**-126

MultiplyAdd = Callable[[Any, Any, Any], NDArray[np.float32]]


def fused_multiply_add(a: Any, b: Any, c: Any) -> NDArray[np.float32]:
    """``a * b + c`` of float32 arrays, rounded once.

    The product is exact in float64. Rounding the sum to float64 and then to float32 is wrong
    only where the float64 lies midway between two float32 (or is too small for a normal one);
    there it is rounded to odd first, after which the second rounding is right (Boldo and
    Melquiond, "Emulation of FMA and correctly rounded sums", IEEE ToC 2008).
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = np.asarray(product + c)
    doubtful = (total.view(np.int64) & _BELOW_FLOAT32) == _HALF_OF_FLOAT32
    doubtful |= (np.abs(total) < _SMALLEST_NORMAL) & (total != 0)
    if doubtful.any():
        total = _to_odd(product, np.asarray(c, np.float64), total)
    return total.astype(np.float32)


def _to_odd(
    a: NDArray[np.float64], b: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The sum a + b rounded to odd, where ``total`` is it rounded to nearest."""
    part = total - a
    error = (a - (total - part)) + (b - part)
    bits = total.view(np.int64)
    inexact = ((error > 0) | (error < 0)) & (bits & 1 == 0)
    away = np.where((error > 0) == (total > 0), 1, -1)
    return (bits + np.where(inexact, away, 0)).view(np.float64)


def _separate(a: Any, b: Any, c: Any) -> NDArray[np.float32]:
    return np.asarray(a * b + c)


def multiply_add(runtime: Runtime) -> MultiplyAdd:
    """``(a, b, c) -> a * b + c`` of float32 arrays as ``runtime`` rounds it."""
    return fused_multiply_add if runtime.fused else _separate


def sum_last(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over the last axis, from 0 in order."""
    return np.asarray(np.add.accumulate(x, axis=-1)[..., -1] + np.float32(0))


def dot(
    runtime: Runtime, rows: NDArray[np.float32], x: NDArray[np.float32], pairs: bool = False
) -> NDArray[np.float32]:
    """The products of ``rows`` (n, m) with ``x`` (m,), each summed up from 0 in order.

    ``pairs``: where m is a multiple of 8, the first two of eight products are added to each
    other before they enter the sum (:attr:`Runtime.pairs_dense`).
    """
    if not runtime.fused:
        return sum_last(rows * x)
    total = np.zeros(len(rows), np.float32)
    columns = list(zip(rows.T, x, strict=True))
    if pairs and len(x) % 8 == 0:
        for i in range(0, len(x), 8):
            (a, p), (b, q), *rest = columns[i : i + 8]
            total = total + fused_multiply_add(a, p, b * q)
            for column, value in rest:
                total = fused_multiply_add(column, value, total)
        return total
    for column, value in columns:
        total = fused_multiply_add(column, value, total)
    return total


def from_float64(function: Callable[[Any], Any], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A function of libm, correctly rounded: a board's differs from it by a bit at most."""
    return np.asarray(function(x.astype(np.float64)).astype(np.float32))


def to_codes(
    x: NDArray[np.float32],
    runtime: Runtime,
    rounding: Callable[[NDArray[np.float32]], NDArray[np.float32]] = round_away,
) -> NDArray[np.uint8]:
    """Floats rounded and clamped to 0..255, out-of-range ones and NaN as ``runtime`` does."""
    codes = np.clip(rounding(x), 0, 255)
    not_a_number = 255 if runtime.conversion == "saturated" else 0
    codes = np.where(np.isnan(codes), np.float32(not_a_number), codes)
    if runtime.conversion == "lowest":  # cvttss2si gives the lowest integer beyond 2**31
        codes = np.where(x >= np.float32(2**31), np.float32(0), codes)
    return codes.astype(np.uint8)
