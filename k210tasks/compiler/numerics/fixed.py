"""Real numbers as the integers the hardware multiplies and shifts by (docs sections 1.7, 4.3, 4.4).

A multiplier is stored as a signed mantissa and a right shift, ``value ~ mul * 2**-shift``.
The batch-norm stage keeps 22 signed bits (the register has 24, but no compiler for the
chip ever used more, so more is untried) and a shift of at most 15; its result carries
``fraction`` extra binary digits, which the activation stage shifts out again. Those
digits are what keeps a small multiplier precise although its shift is bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.problems import CompileError

NORM_BITS = 22  # signed mantissa bits of norm_mul
NORM_MAX_SHIFT = 15
NORM_ADD_LIMIT = 2**31 - 1  # norm_add is a signed 32-bit field
VALUE_LIMIT = 2**35  # segment starts have 36 signed bits, so must the values they cut
MAX_FRACTION = 12  # 1/4096 of an output code: far below the rounding of the output itself


class FixedPointError(CompileError):
    """A factor that no mantissa and shift of the hardware can express."""

    def __init__(self, what: str, value: float, limit: float, remedy: str):
        super().__init__(f"{what} is {value:g}, the hardware's limit is {limit:g}: {remedy}")
        self.value = value
        self.limit = limit


def finest_step(values: float, bias: float) -> float:
    """The least step of an output, in reals, for which the registers surely hold a layer's sums:
    ``values`` is the largest magnitude of one, ``bias`` of its bias. A quarter of either register
    is used: codes reach twice as far as what they are said to hold, and weights are rounded."""
    return 4 * max(values / VALUE_LIMIT, bias / NORM_ADD_LIMIT)


def fixed(
    values: NDArray[np.float64] | float, bits: int, max_shift: int, what: str = "a multiplier"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(mul, shift)`` nearest to every value, ``mul`` of ``bits`` signed bits.

    The shift is the largest that ``max_shift`` and the mantissa allow, so the error is at
    most ``2**-(shift + 1)``. Raises :class:`FixedPointError` for a value whose magnitude
    needs a negative shift, or that is not finite.
    """
    v = np.asarray(values, np.float64)
    top = 2 ** (bits - 1) - 1
    worst = float(np.max(np.abs(v), initial=0.0))
    if not np.isfinite(v).all() or worst > top + 0.5:
        bad = worst if np.isfinite(worst) else float("inf")
        raise FixedPointError(what, bad, top, "use a larger scale on the output")
    _, exponent = np.frexp(v)  # |v| in [2**(e-1), 2**e)
    shift = np.minimum(bits - 1 - exponent.astype(np.int64), max_shift)
    shift = np.where(v == 0, 0, np.maximum(shift, 0))
    mul = np.rint(np.ldexp(v, shift))
    over = np.abs(mul) > top  # rounded up to the next power of two
    shift = np.where(over & (shift > 0), shift - 1, shift)
    mul = np.clip(np.rint(np.ldexp(v, shift)), -top, top).astype(np.int64)
    return mul, shift


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """The batch-norm entries of one layer, int64 arrays of one value per output channel.

    ``v = ((acc * mul) >> shift) + add`` is the pre-activation in output codes, zero point
    not added, times ``2**fraction``.
    """

    mul: NDArray[np.int64]
    shift: NDArray[np.int64]
    add: NDArray[np.int64]
    fraction: int

    def multiplier(self) -> NDArray[np.float64]:
        """What the integers really multiply the accumulator by, in output codes."""
        return np.ldexp(self.mul.astype(np.float64), -self.shift - self.fraction)

    def offset(self) -> NDArray[np.float64]:
        """What they really add, in output codes; the shift's floor is half a digit below."""
        return np.ldexp(self.add.astype(np.float64), -self.fraction)


def batch_norm(
    multiplier: NDArray[np.float64],
    offset: NDArray[np.float64],
    *,
    acc_limit: NDArray[np.float64] | float = 2.0**31,
    max_fraction: int = MAX_FRACTION,
    what: str = "the layer",
) -> BatchNorm:
    """Entries that compute ``acc * multiplier + offset`` (output codes per channel, float64).

    ``acc_limit`` bounds ``|acc|`` per channel: the fraction is the largest for which every
    multiplier fits, every ``add`` has 32 bits and no value leaves the 36 bits of the
    segment starts, up to ``max_fraction``. Half the digit that the shift floors away is
    added back where the sum is precise enough to carry it.
    Raises :class:`FixedPointError` where not even fraction 0 fits.
    """
    m = np.asarray(multiplier, np.float64)
    b = np.asarray(offset, np.float64)
    peak = np.abs(m) * acc_limit + np.abs(b)
    if not np.isfinite(peak).all():
        raise FixedPointError(
            f"the largest sum of {what}",
            math.inf,
            float(np.finfo(np.float32).max),
            "its weights or its bias are larger than a trained layer has; look at them in the "
            "model, or train again with a lower learning rate",
        )
    top = float(2 ** (NORM_BITS - 1) - 1)
    fraction = max_fraction
    while fraction > 0 and (
        np.max(np.abs(m), initial=0.0) * 2.0**fraction > top
        or np.max(np.abs(b), initial=0.0) * 2.0**fraction >= NORM_ADD_LIMIT
        or np.max(peak, initial=0.0) * 2.0**fraction >= VALUE_LIMIT
    ):
        fraction -= 1
    unit = 2.0**fraction
    worst = float(np.max(np.abs(b), initial=0.0) * unit)
    if not worst < NORM_ADD_LIMIT:
        raise FixedPointError(
            f"the bias of {what} in output codes", worst, NORM_ADD_LIMIT, "widen its output range"
        )
    worst = float(np.max(peak, initial=0.0) * unit)
    if not worst < VALUE_LIMIT:
        raise FixedPointError(
            f"the largest value of {what} before its activation",
            worst,
            VALUE_LIMIT,
            "widen its output range",
        )
    mul, shift = fixed(m * unit, NORM_BITS, NORM_MAX_SHIFT, f"the multiplier of {what}")
    half = np.where(shift > 0, 0.5, 0.0)  # a floor loses half a digit on average
    add = np.rint(b * unit + half).astype(np.int64)
    return BatchNorm(mul, shift, add, fraction)
