"""Convolutions with kernels of up to 3x3 as KPU layers.

The KPU computes 1x1 kernels and 3x3 kernels padded by one, at stride 1, on the whole map
(reference, section 1.5). Everything else is said in these terms here: which pixels of such
a layer's result are meant, and what its input must look like at the edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ops import Computed, Pads, Pair, Within
from k210tasks.compiler.passes import chunks
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import MAX_CHANNELS, Pixels, Value, fits


@dataclass(frozen=True, slots=True)
class _Rest:
    """What follows a layer's sums, and what of the source file it computes."""

    fn: Fn
    pre: Within | None
    first: int


def anchor(kernel: int, before: int) -> int:
    """At which tap of a 3-tap kernel a shorter one starts, so that output 0 is pixel 0."""
    return min(max(1 - before, 0), 3 - kernel)


def embedded(weights: NDArray[Any], pads: Pads) -> tuple[NDArray[Any], Pair]:
    """Kernels of up to 3x3 as 3x3 ones, and the pixel of the KPU's map that is output (0, 0)."""
    kh, kw = weights.shape[2:]
    ay, ax = anchor(kh, pads[0]), anchor(kw, pads[2])
    full = np.zeros((*weights.shape[:2], 3, 3), np.float32)
    full[:, :, ay : ay + kh, ax : ax + kw] = weights
    return full, (1 - ay - pads[0], 1 - ax - pads[2])


def _reach(weights: NDArray[Any], axis: int) -> Pair:
    """First and last tap of the 3x3 kernels that is not zero anywhere, as -1..1."""
    used = np.flatnonzero(np.any(weights != 0, axis=(0, 1, 5 - axis)))
    return (int(used[0]) - 1, int(used[-1]) - 1) if used.size else (0, 0)


def _edges(
    weights: NDArray[Any],
    m: Pixels,
    start: Pair,
    stride: Pair,
    size: Pair,
) -> list[int]:
    """Zeros missing around the map (top, bottom, left, right) for 3x3 kernels on it.

    0 where the KPU's own padding, or the map's clean surroundings, serve.
    """  # fmt: skip
    missing = []
    for axis in (0, 1):
        low, high = _reach(weights, axis + 2)
        offset, n, whole = m.offset[axis], m.size[axis], m.tensor.shape[axis + 2]
        first = offset + start[axis]
        last = first + (size[axis] - 1) * stride[axis]
        need_before, need_after = 0, 0
        # Pixels of the result must lie on the map; taps beyond the picked pixels must be zero.
        spare_before = offset if m.clean else 0
        spare_after = whole - offset - n if m.clean else 0
        if first < 0:
            need_before = -first
        if first + low < offset and offset != spare_before:
            need_before = max(need_before, offset - (first + low))
        if last > whole - 1:
            need_after = last - (whole - 1)
        if last + high > offset + n - 1 and whole - offset - n != spare_after:
            need_after = max(need_after, last + high - (offset + n - 1))
        missing += [need_before, need_after]
    return missing


def conv(
    dev: Lowering, v: Value, out: Value, weights: NDArray[Any], bias: NDArray[Any],
    *, depthwise: bool, stride: Pair = (1, 1), pads: Pads = (0, 0, 0, 0), fn: Fn = (),
    pre: Within | None = None, first: int = 0,
) -> bool:  # fmt: skip
    """A convolution with a kernel of at most 3x3; False where the KPU cannot take it.

    ``pre``: a tensor of the source inside ``fn``; ``first``: the channel of the source's tensor
    that is its channel 0.
    """
    done = _Rest(fn, pre, first)
    channels = v.shape[1]
    if max(channels, weights.shape[0]) > MAX_CHANNELS:
        return False
    kernel = weights.shape[2:]
    size = (out.shape[2], out.shape[3])
    if kernel == (1, 1) and not any(pads):
        return _pointwise(dev, v, out, weights, bias, depthwise, stride, done)
    m = dev.settled(v)
    if m is None:
        return False
    full, start = embedded(weights, pads)
    missing = _edges(full, m, start, stride, size)
    if any(missing):
        # Put the picked pixels alone, with all the zeros they need, into a map of their own.
        _, _, h, w = v.shape
        t, b, left, r = _at_least(pads, h, w)
        if not fits((1, channels, h + t + b, w + left + r)):
            return False
        bare = dev.bare(v)
        whole = dev.uploaded(bare)
        if whole is not None and not any(_edges(full, whole, start, stride, size)):
            m = whole
        else:
            # Its zeros are part of the map from here on: nothing is left to pad.
            m = Pixels.of(dev.padded(bare, _at_least(pads, h, w)).tensor)
            full, start = embedded(weights, (0, 0, 0, 0))
    if full.shape[2:] == (3, 3) and _reach(full, 2) == _reach(full, 3) == (0, 0):
        full = full[:, :, 1:2, 1:2]
    offset = (m.offset[0] + start[0], m.offset[1] + start[1])
    target = Pixels(m.tensor, offset, stride, size)
    _emit(dev, out, target, full, bias, depthwise, done)
    return True


def _at_least(pads: Pads, h: int, w: int) -> Pads:
    """Pads that also bring a small map to the KPU's smallest size."""
    t, b, left, r = (max(0, p) for p in pads)
    return (t, b + max(0, 4 - h - t - b), left, r + max(0, 4 - w - left - r))


def _pointwise(
    dev: Lowering, v: Value, out: Value, weights: NDArray[Any], bias: NDArray[Any],
    depthwise: bool, stride: Pair, done: _Rest,
) -> bool:  # fmt: skip
    m = dev.as_map(v)
    if m is None:
        return False
    if not fits(m.tensor.shape):
        m = dev.grown(v)
        if m is None:
            return False
    every = (m.stride[0] * stride[0], m.stride[1] * stride[1])
    target = Pixels(m.tensor, m.offset, every, (out.shape[2], out.shape[3]), False)
    pool = dev.pool_of_stride(target)
    unpooled = pool is None or chunks.too_large(dev, m, copies=int(any(pool[1])))
    if m.stride != (1, 1) and not depthwise and unpooled and not dev.stays(m):
        m = dev.settled(v)  # fewer channels before the layer than after it, mostly
        if m is None:
            return False
        target = Pixels(m.tensor, m.offset, stride, target.size)
    _emit(dev, out, target, weights, bias, depthwise, done)
    return True


def _emit(
    dev: Lowering, out: Value, target: Pixels, weights: NDArray[Any], bias: NDArray[Any],
    depthwise: bool, done: _Rest,
) -> None:  # fmt: skip
    """Compute ``target`` (of the input's tensor) and set ``out.map``, pooling a stride away
    where the layer can."""
    pool = None if depthwise else dev.pool_of_stride(target)
    kind = 0
    if pool is not None:
        kind, shift = pool
        if any(shift):
            if weights.shape[2] == 1:  # a 1x1 layer commutes with the shift
                target = dev.shifted(target, shift)
            else:
                kind = 0
    source = out.source
    if source is None and done.pre is not None:
        source = done.pre.tensor.source
    computes = source if source is None else Computed(
        source, target.offset, target.stride, done.first)  # fmt: skip
    tensor = dev.conv(
        target.tensor,
        weights,
        bias,
        like=out,
        depthwise=depthwise,
        fn=done.fn,
        pool=kind,
        computes=computes,
        pre=done.pre,
    )
    if kind:
        out.map = dev.after_pool(target, tensor)
    else:
        out.map = Pixels(tensor, target.offset, target.stride, target.size)
    if out.map.whole:
        out.map = Pixels.of(tensor)
