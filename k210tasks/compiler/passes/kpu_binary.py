"""Sums, differences and products of two maps on the KPU: one behind the other, then 1x1 layers."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np

from k210tasks.compiler import functions
from k210tasks.compiler.agreement import moves
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Graph, Tensor
from k210tasks.compiler.ops import Activated, Binary, Computed, KpuConv, Within
from k210tasks.compiler.passes.bounds import Bounds
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import MAX_CHANNELS, Pixels, Value, fits
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.kpu.layout import KPU_RAM_ROWS, layout, map_rows

#: of the whole range of what is squared: where one map of its square ends and the next begins
ENDS = (0.25, 0.5)
WHOLE = 127  # steps of the largest weight, of which the others are whole numbers


def _square(reach: float, count: int) -> tuple[Fn, ...]:
    """``count`` functions whose sum is the square of values up to ``reach``, each for values of
    other sizes. Where one is constant its codes have no error, and those of the first are fine."""
    ends = [reach * end for end in ENDS[: count - 1]]
    if not ends:
        return ((("square",),),)
    near: Fn = (("clamp", -ends[0], ends[0]), ("square",))
    tops = [b**2 - a**2 for a, b in itertools.pairwise(ends)] + [math.inf]
    far = [
        (("square",), ("add", -(a**2)), ("clamp", 0.0, top))
        for a, top in zip(ends, tops, strict=True)
    ]
    return near, *far


def _side_by_side(dev: Lowering, a: Value, b: Value) -> tuple[Tensor, Pixels] | None:
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
        m, n = Pixels.of(wholes[0]), Pixels.of(wholes[1])
    if not dev.joinable([m.tensor, n.tensor]):
        return None
    return dev.concat([m.tensor, n.tensor]), m


def _weighted(
    dev: Lowering, joined: Tensor, factors: tuple[float, ...], fn: Fn,
    like: Value | None = None, computes: Computed | None = None, pre: Within | None = None,
) -> Tensor:  # fmt: skip
    """``fn`` of the sum of maps behind each other, each by its factor."""
    c = joined.shape[1] // len(factors)
    weights = np.kron(np.array(factors, np.float32), np.eye(c, dtype=np.float32))[..., None, None]
    zeros = np.zeros(c, np.float32)
    return dev.conv(joined, weights, zeros, like=like, fn=fn, computes=computes, pre=pre)


def _lying(tensor: Tensor, m: Pixels) -> Pixels:
    """The pixels of ``tensor`` that lie where those of ``m`` do."""
    return Pixels.of(tensor) if m.whole else Pixels(tensor, m.offset, m.stride, m.size)


def _finish(dev: Lowering, joined: Tensor, m: Pixels, out: Value, op: Binary,
            factors: tuple[float, ...], first: int = 0) -> Tensor:  # fmt: skip
    """Write ``out``, or its channels from ``first`` on."""
    computes = None if out.source is None else Computed(out.source, m.offset, m.stride, first)
    tensor = _weighted(dev, joined, factors, op.fn, out, computes, op.pre)
    out.map = _lying(tensor, m)
    return tensor


def total(dev: Lowering, a: Value, b: Value, out: Value, op: Binary) -> bool:
    """The sum or difference of two maps of one shape; False where the KPU cannot."""
    both = _side_by_side(dev, a, b)
    if both is None:
        return False
    _finish(dev, *both, out, op, (1.0, 1.0 if op.how == "add" else -1.0))
    return True


def product(dev: Lowering, a: Value, b: Value, out: Value, op: Binary) -> bool:
    """The product of two maps of one shape, as ((a + b)**2 - (a - b)**2) / 4; False where the
    KPU cannot.

    Each square is several maps: in codes of the whole range a product of small factors would
    drown. Where there is no room for those of all channels, some are computed at a time.
    """
    both = _side_by_side(dev, a, b)
    if both is None:
        return False
    joined, m = both
    channels, count = a.shape[1], _at_a_time(joined)
    if count >= channels:
        _product(dev, joined, m, out, op)
        return True
    factors, products = dev.producers[joined].inputs, []
    for first in range(0, channels, count):
        held = min(count, channels - first)
        some = dev.concat([dev.part(factor, first, held) for factor in factors])
        products.append(_product(dev, some, m, out, op, first))
    out.map = _lying(dev.concat(products, out), m)
    return True


def _product(
    dev: Lowering, joined: Tensor, m: Pixels, out: Value, op: Binary, first: int = 0
) -> Tensor:
    """The product of the halves of ``joined``, channels of ``out`` from ``first`` on."""
    parts = _square(1.0, _most_parts(joined))
    # Both squares are of the same number where the factor of either sign is zero.
    difference = (1.0, -1.0) if _often_zero(dev, dev.producers[joined].inputs[1]) else (-1.0, 1.0)
    squares = [_weighted(dev, joined, w, fn) for w in ((1.0, 1.0), difference) for fn in parts]
    for square in squares:
        _mark(dev, square, "square")
    factors = (0.25,) * len(parts) + (-0.25,) * len(parts)
    tensor = _finish(dev, dev.concat(squares), m, out, op, factors, first)
    _mark(dev, tensor, "product")
    return tensor


def _at_a_time(joined: Tensor) -> int:
    """Of how many channels each square can be as many maps as are good; of all, where that takes
    more room than there is."""
    _, c, h, w = joined.shape
    group, maps = layout(w).channels_per_group, len(ENDS) + 1
    if maps * c <= MAX_CHANNELS:
        return c // 2
    count = MAX_CHANNELS // (2 * maps) // group * group
    # The factors, their product, and what is made of some channels: a copy and the squares.
    rows = map_rows(3 * c // 2, h, w) + map_rows(2 * (maps + 1) * count, h, w)
    return count if count and rows <= KPU_RAM_ROWS else c // 2


def _often_zero(dev: Lowering, tensor: Tensor) -> bool:
    """Whether a map was clamped at zero."""
    while (op := dev.producers.get(tensor)) is not None and moves(op):
        tensor = op.input
    fn = functions.simplify(op.fn) if isinstance(op, Activated) else ()
    return bool(fn) and fn[-1][0] == "clamp" and fn[-1][1] == 0


def _most_parts(joined: Tensor) -> int:
    """In how many maps each square of the halves of a map has room."""
    _, c, h, w = joined.shape
    for count in range(len(ENDS) + 1, 1, -1):
        if count * c <= MAX_CHANNELS and map_rows((count + 1) * c, h, w) <= KPU_RAM_ROWS:
            return count
    return 1


def _mark(dev: Lowering, tensor: Tensor, role: Literal["square", "product"]) -> None:
    """Say of the layers that write ``tensor``, several where its loads split it, what they are
    of a product."""
    writer = dev.producers[tensor]
    for part in [tensor] if isinstance(writer, KpuConv) else writer.inputs:
        layer = dev.producers[part]
        assert isinstance(layer, KpuConv)
        layer.role = role


def broadcast(dev: Lowering, v: Value, shape: tuple[int, ...]) -> Value | None:
    """A map repeated up to ``shape``: one value a channel, or one channel; None for others."""
    if v.shape == shape:
        return v
    if v.shape == (1, shape[1], 1, 1):
        repeated = Value(shape, f"{v.name}/repeated")
        dev.resize(v, repeated)
        return repeated
    whole = dev.whole(v) if v.shape == (1, 1, *shape[2:]) and fits(v.shape) else None
    if whole is None:
        return None
    ones = np.ones((shape[1], 1, 1, 1), np.float32)
    zeros = np.zeros(shape[1], np.float32)
    copies = dev.conv(whole, ones, zeros, identity=True)
    return Value(shape, f"{v.name}/repeated", map=Pixels.of(copies))


def balance_products(graph: Graph, ranges: Ranges) -> None:
    """Bring the factors of every product to one size: (s*a + b/s)**2 - (s*a - b/s)**2 is the
    same for any s, but codes are few where one factor drowns in the other. Edits weights."""
    producers = graph.producers()
    bounds = Bounds(producers, ranges.of)
    for op in graph.ops:
        if not isinstance(op, KpuConv) or op.role != "square":
            continue
        ends = [bounds.of(t) or (0.0, 0.0) for t in producers[op.input].inputs]
        sizes = [max(abs(low), abs(high)) for low, high in ends]
        if not all(sizes):
            continue
        s = math.sqrt(sizes[1] / sizes[0])
        c = op.input.shape[1] // 2
        scale = np.repeat(np.array([s, 1 / s], np.float32), c).reshape(1, -1, 1, 1)
        op.weights = op.weights * scale
        for count in range(len(ENDS) + 1):
            reaches = (1.0, 2 * math.sqrt(sizes[0] * sizes[1]))
            any_reach, fitting = (_square(reach, count + 1) for reach in reaches)
            if op.fn in any_reach:
                op.fn = fitting[any_reach.index(op.fn)]
                break


def whole_weights(graph: Graph) -> None:
    """Let the weights of products be whole numbers of steps: what is rounded off those of a sum
    and of a difference does not cancel, and squares are large beside their difference. Scales
    must have been chosen. Edits weights."""
    producers = graph.producers()
    for op in graph.ops:
        if not isinstance(op, KpuConv) or op.role != "square":
            continue
        w = op.weights.astype(np.float64)
        c, rows = w.shape[1] // 2, np.arange(len(w))
        first = np.abs(w[:, :c, 0, 0]).argmax(1)
        parts = producers[op.input].inputs
        x, y = (
            np.abs(w[rows, first + i * c, 0, 0]) * part.channel_scales[first]
            for i, part in enumerate(parts)
        )
        ratio = x / y
        small = np.maximum(np.rint(WHOLE * np.minimum(ratio, 1 / ratio)), 1) / WHOLE
        change = np.sqrt(np.where(ratio > 1, 1 / small, small) / ratio)
        w[rows, first] *= change[:, None, None]
        w[rows, first + c] /= change[:, None, None]
        op.weights = w.astype(np.float32)
