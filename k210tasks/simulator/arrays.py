"""Numerical pieces the layers of both formats share, on plain arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


def round_away(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round half away from zero, as C's ``roundf``."""
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x).astype(x.dtype)


def clamp(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers clamped to 0..255."""
    return np.clip(values, 0, 255).astype(np.uint8)


def shift_half_up(a: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """``a / 2**shift`` rounded half up."""
    return (a + (1 << (shift - 1))) >> shift if shift > 0 else a


def shift_half_away(a: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    """The rounding shift of the v3 runtime's quantised additions."""
    if shift == 0:
        return a
    t = a >> (shift - 1)
    return (t >> 1) + np.where(t & 1 == 1, np.where(t >= 0, 1, -1), 0)


class Axis(NamedTuple):
    """How a sliding window moves along one axis."""

    size: int  # of the input
    before: int  # padding; negative crops
    filter: int
    stride: int
    dilation: int
    out: int

    def tap(self, k: int) -> tuple[slice, slice] | None:
        """Outputs and the inputs that tap ``k`` of the window reaches; None: only padding."""
        shift = k * self.dilation - self.before  # input = output * stride + shift
        first = max(0, -(shift // self.stride))
        last = min(self.out - 1, (self.size - 1 - shift) // self.stride)
        if last < first:
            return None
        begin = first * self.stride + shift
        end = last * self.stride + shift + 1
        return slice(first, last + 1), slice(begin, end, self.stride)


def taps(h: Axis, w: Axis) -> Iterator[tuple[int, int, tuple[slice, slice], tuple[slice, slice]]]:
    """Every tap that reaches input: (ky, kx, output slices, input slices) over H, W."""
    columns = [(kx, w.tap(kx)) for kx in range(w.filter)]
    reached = [(kx, pair) for kx, pair in columns if pair is not None]
    for ky in range(h.filter):
        rows = h.tap(ky)
        if rows is None:
            continue
        for kx, pair in reached:
            yield ky, kx, (rows[0], pair[0]), (rows[1], pair[1])


def counts(h: Axis, w: Axis) -> NDArray[np.int64]:
    """How many input pixels each output's window holds: int64 (out_h, out_w)."""

    def along(axis: Axis) -> NDArray[np.int64]:
        total = np.zeros(axis.out, np.int64)
        for k in range(axis.filter):
            pair = axis.tap(k)
            if pair is not None:
                total[pair[0]] += 1
        return total

    return along(h)[:, None] * along(w)[None, :]


def convolve(x: NDArray[Any], weights: NDArray[Any], groups: int, h: Axis, w: Axis) -> NDArray[Any]:
    """Convolution of (N, C, H, W) with (OC, C/groups, fh, fw): in-range taps only, no bias."""
    n = len(x)
    oc, inner = weights.shape[:2]
    out = np.zeros((n, groups, oc // groups, h.out, w.out), x.dtype)
    kernels = weights.reshape(groups, oc // groups, inner, h.filter, w.filter)
    grouped = x.reshape(n, groups, inner, h.size, w.size)
    for ky, kx, (oy, ox), (iy, ix) in taps(h, w):
        part = grouped[:, :, :, iy, ix]
        height, width = part.shape[3:]
        product = np.matmul(kernels[:, :, :, ky, kx], part.reshape(n, groups, inner, -1))
        out[:, :, :, oy, ox] += product.reshape(n, groups, -1, height, width)
    return out.reshape(n, oc, h.out, w.out)


def nearest(out_size: int, in_size: int) -> NDArray[np.int64]:
    """The source index of each output of a nearest-neighbour resize, computed in float32."""
    scale = np.float32(in_size) / np.float32(out_size)
    index = np.floor(np.arange(out_size, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(index, in_size - 1)
