"""Dense layers as convolutions on maps of 4x4."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes.lowering import MAX_CHANNELS, Lowering, Value


def dense(dev: Lowering, v: Value, out: Value, op: Op) -> bool:
    """A dense layer of one row as a 1x1 convolution on a 4x4 map (one pixel of it counts), or,
    for more than 1024 inputs, as a 3x3 one whose window holds nine inputs a channel."""
    weights, bias, fn = op.attrs["weights"], op.attrs["bias"], op.attrs["fn"]
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
    computes = None if out.source is None else (out.source, *pixel, 1, 1)
    y = dev.conv(tensor, kernels, bias, like=out, fn=fn, computes=computes, pre=op.attrs.get("pre"))
    if y.shape[1] > MAX_CHANNELS:
        return False
    out.vector = (y, pixel)
    return True


def _as_vector(dev: Lowering, v: Value) -> Tensor:
    n = v.shape[1]
    codes = dev.as_codes(v)
    if dev.version == 3:
        return dev.emit("add_padding", [codes], (1, n, 4, 4), v, place="kpu")
    flat = dev.emit("reshape", [codes], (1, n, 1, 1))
    pads = ((0, 0), (0, 0), (0, 3), (0, 3))
    wide = dev.emit("pad", [flat], (1, n, 4, 4), pads=pads, value=0.0)
    return dev.emit("upload", [wide], (1, n, 4, 4), v, place="kpu")


def _nine_a_channel(dev: Lowering, v: Value) -> Tensor:
    n = v.shape[1]
    flat = dev.emit("reshape", [dev.as_codes(v)], (1, 1, 1, n))
    if short := -n % 9:  # any codes: their weights are zero
        zeros = (0, 0, 0, 0)
        first = dev.emit("slice", [flat], (1, 1, 1, short), begin=zeros, strides=(1, 1, 1, 1))
        flat = dev.emit("concat", [flat, first], (1, 1, 1, n + short), axis=3)
    c = flat.size // 9
    grid = dev.emit("reshape", [flat], (1, c, 3, 3))
    pads = ((0, 0), (0, 0), (0, 1), (0, 1))
    wide = dev.emit("pad", [grid], (1, c, 4, 4), pads=pads, value=0.0)
    return dev.emit("upload", [wide], (1, c, 4, 4), v, place="kpu")
