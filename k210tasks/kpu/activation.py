"""Batch norm and activation of a layer, exact and fast (docs, section 1.9, steps 3 to 5).

The reference arithmetic is integer: :func:`activate_exact` states it. Real layers stay far
inside the range in which float64 represents every intermediate value exactly; then products
with powers of two, ``floor`` and ``rint`` (half to even) give the same integers in a fraction
of the time. Which of the two a layer may use is decided once, from the bounds of its
accumulators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kpu.tables import SEGMENTS, Activation, BatchNorm

#: Integers up to here are exact in float64.
EXACT = 1 << 53
#: Bounds from here on, times a 24-bit factor, could leave int64; no 8-bit layer comes near.
WIDE = 1 << 38
#: With more live segments than this an index per value is cheaper than one pass per segment.
FEW_SEGMENTS = 3


def round_shift(a: NDArray[np.int64], shift: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """``a / 2**shift`` as the KPU rounds it: half to even for ``a >= 0``.

    For negative ``a`` the fraction moves the floor down instead of up; upstream's
    interpreter does the same.
    """
    shift = np.minimum(shift, 62)  # every larger shift gives the same
    whole = a >> shift
    fraction = a - (whole << shift)
    half = (np.int64(1) << shift) >> 1
    up = (fraction > half) | ((fraction == half) & (shift > 0) & (whole & 1 == 1))
    return whole + np.where(up, np.where(a < 0, -1, 1), 0)


def activate_exact(
    acc: NDArray[np.int64], bn: BatchNorm, activation: Activation
) -> NDArray[np.uint8]:
    """Batch norm, then activation, of accumulators int64 (OC, n): the definition.

    Values beyond 64 bits wrap, as they do upstream; no compiled layer has any.
    """
    v = ((acc * bn.mul[:, None]) >> bn.shift[:, None]) + bn.add[:, None]
    segment = np.maximum(np.searchsorted(activation.start, v.ravel(), "left") - 1, 0)
    segment = segment.reshape(v.shape)
    y = round_shift(
        (v - activation.start[segment]) * activation.mul[segment], activation.shift[segment]
    )
    clipped: NDArray[np.uint8] = np.clip(y + activation.bias[segment], 0, 255).astype(np.uint8)
    return clipped


class Segment:
    """One segment of a table, ready for float64: ``rint((v - start) * slope) + bias``."""

    __slots__ = ("bias", "falling", "slope", "start")

    def __init__(self, activation: Activation, index: int):
        self.start = float(activation.start[index])
        self.slope = float(activation.mul[index]) * 2.0 ** -float(activation.shift[index])
        self.bias = float(activation.bias[index])
        self.falling = self.slope < 0

    def finish(self, rise: NDArray[np.float64]) -> None:
        """Turn ``rise``, v - start, into the unclamped result, in place."""
        rise *= self.slope
        if self.falling:  # the odd rounding of negative products: 2*floor - rint
            down = np.floor(rise)
            np.rint(rise, out=rise)
            down += down
            np.subtract(down, rise, out=rise)
        else:
            np.rint(rise, out=rise)
        if self.bias:
            rise += self.bias


def live_segments(activation: Activation, low: int, high: int) -> list[int]:
    """The segments that values ``low..high`` fall into, lowest first.

    Segments that give 0 below one that starts at 0 and rises are dropped: the rising one,
    carried on downwards, clamps to the same 0.
    """
    first, last = (
        max(int(np.searchsorted(activation.start, v, "left")) - 1, 0) for v in (low, high)
    )
    live = list(range(first, last + 1))
    # Of equal starts only the last segment is ever reached.
    live = [i for i in live if i == last or activation.start[i] < activation.start[i + 1]]

    def always_zero(i: int) -> bool:
        return bool(activation.mul[i] == 0 and activation.bias[i] == 0)

    while len(live) > 1 and always_zero(live[0]):
        if activation.mul[live[1]] < 0 or activation.bias[live[1]] != 0:
            break
        del live[0]
    return live


class Epilogue:
    """Everything between a layer's matrix product and its uint8 map.

    ``low`` and ``high`` are int64 (OC,) bounds of the accumulator before ``offset`` (OC,) is
    added to it. Call with accumulators (OC or a slice of it, n) of any float type.
    """

    def __init__(
        self,
        bn: BatchNorm,
        activation: Activation,
        low: NDArray[Any],
        high: NDArray[Any],
        offset: NDArray[np.int64],
    ):
        self.bn, self.activation, self.offset = bn, activation, offset
        v_low, v_high, self.exact_in_float = self._bounds(low, high)
        self.segments: list[Segment] = []
        if not self.exact_in_float:
            return
        live = live_segments(activation, v_low, v_high)
        self.segments = [Segment(activation, i) for i in live]
        scale = bn.mul * 2.0 ** -bn.shift.astype(np.float64)
        self.scale = scale[:, None]
        #: v = floor(acc * scale + shifted): batch norm with the offset folded in.
        self.shifted = (offset * scale + bn.add)[:, None]
        if len(self.segments) == 1:
            self.shifted = self.shifted - self.segments[0].start
        self.starts = [s.start for s in self.segments]
        if len(live) > FEW_SEGMENTS:
            self.slopes = np.array([s.slope for s in self.segments])
            self.origins = np.array([s.start for s in self.segments])
            self.biases = np.array([s.bias for s in self.segments])
            self.any_falling = any(s.falling for s in self.segments)

    def _bounds(self, low: NDArray[Any], high: NDArray[Any]) -> tuple[int, int, bool]:
        """Lowest and highest batch-normed value, and whether float64 holds all on the way."""
        start = int(self.activation.start[0])
        if max(int(np.abs(part).max()) for part in (low, high, self.offset)) >= WIDE:
            return start, start, False
        mul = self.bn.mul
        ends = ((low + self.offset) * mul, (high + self.offset) * mul)
        values = [(end >> self.bn.shift) + self.bn.add for end in ends]
        v_low = int(min(v.min() for v in values))
        v_high = int(max(v.max() for v in values))
        reach = max(abs(v_low), abs(v_high)) + int(np.abs(self.activation.start).max())
        # What is held on the way: products before and after the offset is in, and the
        # activation's products, at most 2**15 times the distance to a segment's start.
        products = max(int(np.abs(p).max()) for p in (*ends, low * mul, high * mul))
        return v_low, v_high, 4 * products + (reach << 16) < EXACT and v_low > start

    @property
    def cost(self) -> int:
        """About how many multiply-accumulates of a matrix product one value takes as long as."""
        if not self.exact_in_float:
            return 4000
        return 150 if len(self.segments) <= FEW_SEGMENTS else 600

    def __call__(
        self, acc: NDArray[Any], channels: slice = slice(None), out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 results of ``acc`` (channels, n); ``channels`` says which ones they are."""
        if out is None:
            out = np.empty(acc.shape, np.uint8)
        if not self.exact_in_float:
            whole = acc.astype(np.int64) + self.offset[channels, None]
            part = BatchNorm(self.bn.mul[channels], self.bn.shift[channels], self.bn.add[channels])
            out[...] = activate_exact(whole, part, self.activation)
            return out
        v = np.multiply(acc, self.scale[channels], dtype=np.float64)
        v += self.shifted[channels]
        np.floor(v, out=v)
        if len(self.segments) == 1:
            self.segments[0].finish(v)
        else:
            v = self._several(v)
        np.clip(v, 0.0, 255.0, out=v)
        np.copyto(out, v, casting="unsafe")
        return out

    def _several(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unclamped results where more than one segment is live; ``v`` is overwritten."""
        first, last = 0, len(self.segments)
        if last > 2:  # the values at hand touch fewer, as a rule
            first = max(int(np.searchsorted(self.starts, v.min(), "left")) - 1, 0)
            last = max(int(np.searchsorted(self.starts, v.max(), "left")), first + 1)
        if last - first <= FEW_SEGMENTS:
            result = v - self.starts[first]
            self.segments[first].finish(result)
            for segment in self.segments[first + 1 : last]:
                above = v > segment.start
                rise = v - segment.start
                segment.finish(rise)
                np.copyto(result, rise, where=above)
            return result
        index = np.full(v.shape, first, np.uint8)
        for start in self.starts[first + 1 : last]:
            index += v > start
        v -= self.origins[index]
        v *= self.slopes[index]
        if self.any_falling:
            down = np.floor(v)
            falling = v < 0
            np.rint(v, out=v)
            down += down
            np.subtract(down, v, out=v, where=falling)
        else:
            np.rint(v, out=v)
        v += self.biases[index]
        return v


assert SEGMENTS < 256  # the segment index is one byte
