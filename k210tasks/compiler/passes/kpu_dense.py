"""Dense layers as convolutions on maps of 4x4."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import AddPadding, Computed, Concat, Dense, Pad, Reshape, Slice, Upload
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import MAX_CHANNELS, Value


def dense(dev: Lowering, v: Value, out: Value, op: Dense) -> bool:
    """A dense layer of one row as a 1x1 convolution on a 4x4 map (one pixel of it counts), or,
    for more than 1024 inputs, as a 3x3 one whose window holds nine inputs a channel."""
    weights = op.weights
    rows, columns = weights.shape
    if v.shape[0] != 1 or rows > 4 * MAX_CHANNELS:
        return False
    if columns <= MAX_CHANNELS:
        if v.vector is None:
            v.vector = (_as_vector(dev, v), (0, 0))
        tensor, pixel = v.vector
        kernels = weights.reshape(rows, columns, 1, 1)
    elif columns <= 9 * MAX_CHANNELS:
        tensor = _nine_a_channel(dev, v)
        pixel = (1, 1)
        short = -columns % 9
        kernels = np.pad(weights, ((0, 0), (0, short))).reshape(rows, -1, 3, 3)
    else:
        return False
    computes = None if out.source is None else Computed(out.source, pixel, (1, 1))
    y = dev.conv(tensor, kernels, op.bias, like=out, fn=op.fn, computes=computes, pre=op.pre)
    if y.shape[1] > MAX_CHANNELS:
        return False
    out.vector = (y, pixel)
    return True


def _as_vector(dev: Lowering, v: Value) -> Tensor:
    n = v.shape[1]
    codes = dev.as_codes(v)
    if dev.version == 3:
        return dev.emit(AddPadding([codes]), (1, n, 4, 4), v, place="kpu")
    flat = dev.emit(Reshape([codes]), (1, n, 1, 1))
    wide = dev.emit(Pad([flat], pads=((0, 0), (0, 0), (0, 3), (0, 3))), (1, n, 4, 4))
    return dev.emit(Upload([wide]), (1, n, 4, 4), v, place="kpu")


def _nine_a_channel(dev: Lowering, v: Value) -> Tensor:
    n = v.shape[1]
    flat = dev.emit(Reshape([dev.as_codes(v)]), (1, 1, 1, n))
    if short := -n % 9:  # any codes: their weights are zero
        first = Slice([flat], begin=(0, 0, 0, 0), strides=(1, 1, 1, 1))
        parts = [flat, dev.emit(first, (1, 1, 1, short))]
        flat = dev.emit(Concat(parts, axis=3), (1, 1, 1, n + short))
    c = flat.size // 9
    grid = dev.emit(Reshape([flat]), (1, c, 3, 3))
    wide = dev.emit(Pad([grid], pads=((0, 0), (0, 0), (0, 1), (0, 1))), (1, c, 4, 4))
    return dev.emit(Upload([wide]), (1, c, 4, 4), v, place="kpu")
