"""Sums, differences and products of two maps on the KPU: one behind the other, then 1x1 layers."""

from __future__ import annotations

import math

import numpy as np

from k210tasks.compiler import functions
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Graph, Op, Tensor, Within
from k210tasks.compiler.passes.bounds import Bounds
from k210tasks.compiler.passes.lowering import MAX_CHANNELS, Lowering, Map, Value, fits
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.kpu.layout import KPU_RAM_ROWS, map_rows

FINER = 4.0  # how much less far than the whole range the finer codes of a square reach


def _square(reach: float) -> tuple[Fn, Fn]:
    """Two functions whose sum is the square: up to ``reach``, and beyond it. Codes of the second
    have no error where it is zero, and those of the first are fine."""
    near: Fn = (("clamp", -reach, reach), ("square",))
    return near, (("square",), ("add", -(reach**2)), functions.RELU)


def _side_by_side(dev: Lowering, a: Value, b: Value) -> tuple[Tensor, Map] | None:
    """Both maps in one tensor, and where in it their pixels are; None where that cannot be."""
    if 2 * a.shape[1] > MAX_CHANNELS:
        return None
    maps = dev.side_by_side([a, b])
    if maps is None:
        return None
    m, n = maps
    if m.tensor.shape != n.tensor.shape or m.offset != n.offset:
        wholes = [dev.whole(v) for v in (a, b)]
        if wholes[0] is None or wholes[1] is None:
            return None
        m, n = Map.of(wholes[0]), Map.of(wholes[1])
    if not dev.joinable([m.tensor, n.tensor]):
        return None
    return dev.concat([m.tensor, n.tensor]), m


def _weighted(
    dev: Lowering, joined: Tensor, factors: tuple[float, ...], fn: Fn,
    like: Value | None = None, computes: tuple[int, ...] | None = None, pre: Within | None = None,
) -> Tensor:  # fmt: skip
    """``fn`` of the sum of maps behind each other, each by its factor."""
    c = joined.shape[1] // len(factors)
    weights = np.kron(np.array(factors, np.float32), np.eye(c, dtype=np.float32))[..., None, None]
    zeros = np.zeros(c, np.float32)
    return dev.conv(joined, weights, zeros, like=like, fn=fn, computes=computes, pre=pre)


def _finish(dev: Lowering, joined: Tensor, m: Map, out: Value, op: Op,
            factors: tuple[float, ...]) -> None:  # fmt: skip
    computes = None if out.source is None else (out.source, *m.offset, *m.stride)
    tensor = _weighted(dev, joined, factors, op.attrs["fn"], out, computes, op.attrs.get("pre"))
    out.map = Map.of(tensor) if m.whole else Map(tensor, m.offset, m.stride, m.size)


def total(dev: Lowering, a: Value, b: Value, out: Value, op: Op) -> bool:
    """The sum or difference of two maps of one shape; False where the KPU cannot."""
    both = _side_by_side(dev, a, b)
    if both is None:
        return False
    _finish(dev, *both, out, op, (1.0, 1.0 if op.attrs["op"] == "add" else -1.0))
    return True


def product(dev: Lowering, a: Value, b: Value, out: Value, op: Op) -> bool:
    """The product of two maps of one shape, as ((a + b)**2 - (a - b)**2) / 4; False where the
    KPU cannot.

    Each square is two maps, where there is room for them: in codes of the whole range a product
    of small factors would drown.
    """
    both = _side_by_side(dev, a, b)
    if both is None:
        return False
    joined, m = both
    parts: tuple[Fn, ...] = _square(1.0)
    _, c, h, w = joined.shape
    if 2 * c > MAX_CHANNELS or map_rows(3 * c, h, w) > KPU_RAM_ROWS:
        parts = ((("square",),),)
    squares = [_weighted(dev, joined, (1.0, s), fn) for s in (1.0, -1.0) for fn in parts]
    for square in squares:
        writer = dev.producers[square]
        tensors = [square] if writer.kind == "kpu_conv" else writer.inputs  # split by its loads
        for tensor in tensors:
            dev.producers[tensor].attrs["factors"] = True
    factors = (0.25,) * len(parts) + (-0.25,) * len(parts)
    _finish(dev, dev.concat(squares), m, out, op, factors)
    return True


def broadcast(dev: Lowering, v: Value, shape: tuple[int, ...]) -> Value | None:
    """A map repeated up to ``shape``: one value a channel, or one channel; None for others."""
    if v.shape == shape:
        return v
    if v.shape == (1, shape[1], 1, 1):
        repeated = Value(shape, f"{v.name}/repeated")
        dev.resize(v, repeated, mode="nearest", align_corners=False, half_pixel=False)
        return repeated
    whole = dev.whole(v) if v.shape == (1, 1, *shape[2:]) and fits(v.shape) else None
    if whole is None:
        return None
    ones = np.ones((shape[1], 1, 1, 1), np.float32)
    zeros = np.zeros(shape[1], np.float32)
    copies = dev.conv(whole, ones, zeros, identity=True)
    return Value(shape, f"{v.name}/repeated", map=Map.of(copies))


def balance_products(graph: Graph, ranges: Ranges) -> None:
    """Bring the factors of every product to one size: (s*a + b/s)**2 - (s*a - b/s)**2 is the
    same for any s, but codes are few where one factor drowns in the other. Edits weights."""
    producers = graph.producers()
    bounds = Bounds(producers, ranges.of)
    for op in graph.ops:
        if not op.attrs.get("factors"):
            continue
        ends = [bounds.of(t) or (0.0, 0.0) for t in producers[op.input].inputs]
        sizes = [max(abs(low), abs(high)) for low, high in ends]
        if not all(sizes):
            continue
        s = math.sqrt(sizes[1] / sizes[0])
        c = op.input.shape[1] // 2
        scale = np.repeat(np.array([s, 1 / s], np.float32), c).reshape(1, -1, 1, 1)
        op.attrs["weights"] = op.attrs["weights"] * scale
        for at_hand, fitting in zip(
            _square(1.0), _square(2 * math.sqrt(sizes[0] * sizes[1]) / FINER), strict=True
        ):
            if op.attrs["fn"] == at_hand:
                op.attrs["fn"] = fitting
