"""The arithmetic of a KPU layer as the reference words it: one loop per pixel, plain integers.

Slow and obvious; what the fast implementation is compared with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from k210tasks.kpu.tables import Activation, BatchNorm

#: pool type -> (window, stride, kind)
POOL_TABLE = {
    0: (1, 1, "pick"),
    1: (2, 2, "max"),
    2: (2, 2, "mean"),
    3: (4, 4, "max"),
    4: (4, 4, "mean"),
    5: (2, 2, "pick"),
    6: (2, 2, "pick right"),
    7: (4, 4, "pick"),
    8: (2, 1, "mean"),
    9: (2, 1, "max"),
}


def round_shift(a: int, shift: int) -> int:
    """Step 5 of section 1.9, the first rounding."""
    if shift == 0:
        return a
    whole, fraction, half = a >> shift, a & ((1 << shift) - 1), 1 << (shift - 1)
    sign = -1 if a < 0 else 1
    if fraction < half:
        return whole
    if fraction > half:
        return whole + sign
    return whole if whole % 2 == 0 else whole + sign


def activate(v: int, table: Activation) -> int:
    """Steps 4 and 5 of section 1.9."""
    segment = 0
    for i in range(16):
        if int(table.start[i]) < v:
            segment = i
    rise = (v - int(table.start[segment])) * int(table.mul[segment])
    y = round_shift(rise, int(table.shift[segment])) + int(table.bias[segment])
    return min(255, max(0, y))


def pool(x: Any, kind: int) -> Any:
    """Section 1.5 on one map (H, W) of codes."""
    window, stride, op = POOL_TABLE[kind]
    height, width = x.shape
    out = np.zeros((height // stride, width // stride), np.uint8)
    for oy in range(out.shape[0]):
        for ox in range(out.shape[1]):
            top, left = oy * stride, ox * stride
            if op == "pick":
                out[oy, ox] = x[top, left]
            elif op == "pick right":
                out[oy, ox] = x[top, left + 1]
            else:
                ys, xs = range(top, top + window), range(left, left + window)
                if op == "max":
                    out[oy, ox] = max(x[y, z] for y in ys for z in xs if y < height and z < width)
                else:
                    total = sum(
                        int(x[min(y, height - 1), min(z, width - 1)]) for y in ys for z in xs
                    )
                    out[oy, ox] = total // (window * window)
    return out


def layer(
    x: Any,
    weights: Any,
    bn: BatchNorm,
    table: Activation,
    *,
    depthwise: bool,
    pool_type: int,
    pad_value: int,
    arg_x: int,
    shr_x: int,
    arg_w: int,
    shr_w: int,
    arg_add: int,
) -> Any:
    """Section 1.9 on one map (C, H, W)."""
    channels, height, width = x.shape
    out_channels, k = len(weights), weights.shape[2]
    codes = np.zeros((out_channels, height, width), np.uint8)
    for o in range(out_channels):
        for y in range(height):
            for z in range(width):
                sx = sw = swx = 0
                for c in [o] if depthwise else range(channels):
                    for dy in range(k):
                        for dx in range(k):
                            row, column = y + dy - k // 2, z + dx - k // 2
                            inside = 0 <= row < height and 0 <= column < width
                            value = int(x[c, row, column]) if inside else pad_value
                            weight = int(weights[o, 0 if depthwise else c, dy, dx])
                            sx, sw, swx = sx + value, sw + weight, swx + value * weight
                n = 1 if depthwise else channels
                acc = swx + ((arg_x * sx) >> shr_x) + ((arg_w * sw) >> shr_w) + arg_add * n
                v = ((acc * int(bn.mul[o])) >> int(bn.shift[o])) + int(bn.add[o])
                codes[o, y, z] = activate(v, table)
    return np.stack([pool(one, pool_type) for one in codes])
