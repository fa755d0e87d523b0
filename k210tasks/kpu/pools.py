"""The ten pool types the KPU applies after activation (docs/kpu-and-kmodel.md, section 1.5)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pool(IntEnum):
    """Values of the register field ``pool_type``."""

    BYPASS = 0
    MAX_2 = 1
    MEAN_2 = 2
    MAX_4 = 3
    MEAN_4 = 4
    LEFT_TOP_2 = 5
    RIGHT_TOP_2 = 6
    LEFT_TOP_4 = 7
    MEAN_2_STRIDE_1 = 8
    MAX_2_STRIDE_1 = 9


class PoolKind(NamedTuple):
    name: str  # as listings print it
    window: int
    stride: int
    op: str  # "max" | "mean" | "pick"
    pick: tuple[int, int] = (0, 0)  # (y, x) inside the window, for "pick"


#: Data of every pool type.
POOLS: dict[Pool, PoolKind] = {
    Pool.BYPASS: PoolKind("none", 1, 1, "pick"),
    Pool.MAX_2: PoolKind("max 2x2", 2, 2, "max"),
    Pool.MEAN_2: PoolKind("mean 2x2", 2, 2, "mean"),
    Pool.MAX_4: PoolKind("max 4x4", 4, 4, "max"),
    Pool.MEAN_4: PoolKind("mean 4x4", 4, 4, "mean"),
    Pool.LEFT_TOP_2: PoolKind("left-top 2x2", 2, 2, "pick"),
    Pool.RIGHT_TOP_2: PoolKind("right-top 2x2", 2, 2, "pick", (0, 1)),
    Pool.LEFT_TOP_4: PoolKind("left-top 4x4", 4, 4, "pick"),
    Pool.MEAN_2_STRIDE_1: PoolKind("mean 2x2 s1", 2, 1, "mean"),
    Pool.MAX_2_STRIDE_1: PoolKind("max 2x2 s1", 2, 1, "max"),
}


def pooled(size: int, pool: Pool) -> int:
    """Height or width after ``pool``; odd remainders are dropped."""
    return size // POOLS[pool].stride


def apply_pool(x: NDArray[np.uint8], pool: Pool) -> NDArray[np.uint8]:
    """Pool uint8 (..., H, W) maps, bit exact.

    Outside pixels never win a maximum; a mean replicates the edge and divides by the
    full window, rounding down.
    """
    _, window, stride, op, (py, px) = POOLS[pool]
    height, width = x.shape[-2] // stride, x.shape[-1] // stride
    if op == "pick":
        if stride == 1:
            return x
        return x[..., py : height * stride : stride, px : width * stride : stride]
    if stride == 1:  # the window reaches one pixel beyond the right and bottom edges
        pads = [(0, 0)] * (x.ndim - 2) + [(0, window - 1)] * 2
        x = np.pad(x, pads, mode="edge")  # for a maximum too: a replicated pixel never exceeds it
    rows = [x[..., dy : dy + (height - 1) * stride + 1 : stride, :] for dy in range(window)]
    if op == "max":
        tall = rows[0]
        for row in rows[1:]:
            tall = np.maximum(tall, row)
        out = tall[..., 0 : (width - 1) * stride + 1 : stride]
        for dx in range(1, window):
            out = np.maximum(out, tall[..., dx : dx + (width - 1) * stride + 1 : stride])
        return out
    total = rows[0].astype(np.uint16)
    for row in rows[1:]:
        total += row
    wide = total[..., 0 : (width - 1) * stride + 1 : stride].copy()
    for dx in range(1, window):
        wide += total[..., dx : dx + (width - 1) * stride + 1 : stride]
    wide >>= {2: 2, 4: 4}[window]  # the window holds 4 or 16 pixels
    return wide.astype(np.uint8)
