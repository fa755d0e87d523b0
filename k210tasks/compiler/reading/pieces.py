"""Slices, copies and selections of tensors, as ops of several formats are made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.state import Builder


def picked(b: Builder, x: Tensor, axis: int, places: Sequence[int]) -> list[Tensor]:
    """The slices of ``x`` at ``places`` of an axis, neighbours in one."""
    parts: list[Tensor] = []
    start = 0
    for i in range(1, len(places) + 1):
        if i < len(places) and places[i] == places[i - 1] + 1:
            continue
        begin = tuple(places[start] if k == axis else 0 for k in range(len(x.shape)))
        shape = tuple(i - start if k == axis else n for k, n in enumerate(x.shape))
        parts.append(b.emit(ops.Slice([x], begin=begin, strides=(1,) * len(shape)), shape))
        start = i
    return parts


def selection(x: Tensor, weights: ops.Floats, stride: ops.Pair = (1, 1)) -> ops.Conv:
    """A convolution that only picks values: (O, I, h, w) of ones and zeros, no bias."""
    return ops.Conv([x], weights=weights, bias=np.zeros(len(weights), np.float32), stride=stride)


def selected(b: Builder, x: Tensor, channels: Sequence[int]) -> Tensor:
    """Channels of a map in another order: a 1x1 convolution with weights of one."""
    weights = np.zeros((len(channels), x.shape[1], 1, 1), np.float32)
    weights[np.arange(len(channels)), channels] = 1
    shape = (1, len(channels), *x.shape[2:])
    return b.emit(selection(x, weights), shape)


def repeated(b: Builder, x: Tensor, axis: int, times: int) -> Tensor:
    """``x`` so many times one behind the other along an axis."""
    if times == 1:
        return x
    shape = tuple(n * times if k == axis else n for k, n in enumerate(x.shape))
    return b.emit(ops.Concat([x] * times, axis=axis), shape)


def mirrored(b: Builder, x: Tensor, axis: int, low: Sequence[int], high: Sequence[int]) -> Tensor:
    """``x`` with its own values at places ``low`` before it, and at ``high`` behind it."""
    if not low and not high:
        return x
    parts = [*picked(b, x, axis, low), x, *picked(b, x, axis, high)]
    more = len(low) + len(high)
    shape = tuple(n + more if k == axis else n for k, n in enumerate(x.shape))
    return b.emit(ops.Concat(parts, axis=axis), shape)


def blocks_to_channels(x: Tensor, block: int) -> ops.Conv:
    """Blocks of pixels as channels, those of one place in the block next to each other."""
    c = x.shape[1]
    weights = np.zeros((block, block, c, c, block, block), np.float32)
    for i in range(block):
        for j in range(block):
            weights[i, j, :, :, i, j] = np.eye(c)
    return selection(x, weights.reshape(-1, c, block, block), (block, block))
