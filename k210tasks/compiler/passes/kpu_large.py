"""Large and dilated kernels on the KPU: 3x3 ones on moved copies of their input."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import Conv, Pads, Pair
from k210tasks.compiler.passes.kpu_conv import conv
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import LOAD_BYTES, MAX_CHANNELS, Pixels, Value, fits
from k210tasks.kpu.layout import layout

#: most weights a spread kernel may have; beyond, the CPU does it
MAX_SPREAD = 300_000


def moves_of(low: int, high: int) -> dict[int, Pair]:
    """For taps at offsets ``low..high`` of a pixel: by how much a copy of the map must be
    moved for a 3-tap kernel to reach it, and at which of its taps (-1, 0, 1).

    Only the middle tap and the one away from the pixel may be used of a moved copy: towards
    it, at the edge of the map, the KPU would pad where the map has pixels.
    """
    found = {off: (0, off) for off in (-1, 0, 1)}
    for off in range(2, high + 1):
        move = high - 1 - 2 * ((high - off) // 2)
        found[off] = (move, off - move)
    for off in range(2, -low + 1):
        move = -low - 1 - 2 * ((-low - off) // 2)
        found[-off] = (-move, move - off)
    return found


def _centre(span: int, before: int, stride: int) -> int:
    """The tap that lies on the pixel itself: near the middle, output 0 on a whole stride."""
    return before + max(0, (span // 2 - before) // stride) * stride


def spread(
    dev: Lowering,
    v: Value,
    out: Value,
    weights: NDArray[Any],
    dilation: Pair,
    stride: Pair,
    pads: Pads,
    *,
    together: bool = False,
) -> tuple[Value, NDArray[Any], Pads] | None:
    """A large or dilated kernel as a 3x3 one on moved copies of its input, one behind the
    other: exact, as every tap is served by one copy. None where that is too much.

    What moves in at the edges is zero, which is what the kernel would see there. ``together``:
    all copies by few layers, whatever their weights.
    """
    channels, inner, kh, kw = weights.shape
    tables, starts = [], []
    for axis, k in enumerate((kh, kw)):
        span = (k - 1) * dilation[axis]
        centre = _centre(span, pads[2 * axis], stride[axis])
        start = centre - pads[2 * axis]
        if start + (out.shape[axis + 2] - 1) * stride[axis] > v.shape[axis + 2] - 1:
            return None
        moves = moves_of(-centre, span - centre)
        tables.append([moves[i * dilation[axis] - centre] for i in range(k)])
        starts.append(start)
    copies: dict[Pair, list[tuple[int, int, int, int]]] = {}
    for i, (move_y, y) in enumerate(tables[0]):
        for j, (move_x, x) in enumerate(tables[1]):
            copies.setdefault((move_y, move_x), []).append((i, j, y, x))
    taps = 9 * inner * len(copies)
    if inner * len(copies) > MAX_CHANNELS or taps > LOAD_BYTES or taps * channels > MAX_SPREAD:
        return None
    base = dev.whole(v)
    if base is None or not fits(base.shape):
        return None
    order = sorted(copies)
    kernels = []
    for move in order:
        kernel = np.zeros((channels, inner, 3, 3), np.float32)
        for i, j, y, x in copies[move]:
            kernel[:, :, y + 1, x + 1] = weights[:, :, i, j]
        kernels.append(kernel)
    if together or inner <= 4 or not dev.joinable([base] * len(order)):
        if 9 * len(order) * inner * inner > MAX_SPREAD:
            return None
        joined = _all_moves(dev, base, order)
    else:
        made = {(0, 0): base}
        joined = dev.concat([_moved(dev, made, move) for move in order])
    wide = Value(joined.shape, v.name, None, v.range, map=Pixels.of(joined))
    inner_pads = (1 - starts[0], 1, 1 - starts[1], 1)
    return wide, np.concatenate(kernels, 1), inner_pads


#: what a large depthwise kernel may cost where the CPU could compute it too: weights, and
#: products below which that is not worth the bytes
SPREAD_BESIDE_CPU, LEAST_PRODUCTS = 100_000, 500_000
MOST_AT_ONCE = 16  # channels
SPREAD_ALONE = 1_000_000  # and in kmodel 3, whose CPU cannot


def _weights_a_channel(offsets: list[list[int]]) -> int:
    """Weights of :func:`_all_moves` and the kernel on its copies, by channels squared; the
    places are each axis's taps, relative to the pixel."""
    places = [{moves_of(min(o), max(o))[n][0] for n in o} for o in offsets]
    moves = [(y, x) for y in places[0] for x in places[1]]
    counts = [1]
    for reach in range(1, max(max(map(abs, move)) for move in moves) + 1):
        counts.append(len({_within(move, reach) for move in moves}))
    made = sum(a * b for a, b in pairwise(counts))
    return 9 * (made + len(moves))


def depthwise_in_groups(dev: Lowering, v: Value, out: Value, op: Conv) -> bool:
    """A large or dilated depthwise kernel, a few channels at a time as a full one: its zeros
    are few then. False where that is more than it is worth."""
    weights = op.weights
    base = dev.whole(v)
    if base is None or not fits(base.shape) or (out.shape[2] < 4 or out.shape[3] < 4):
        return False
    channels = len(weights)
    offsets = []
    for axis, (k, d) in enumerate(zip(weights.shape[2:], op.dilation, strict=True)):
        centre = _centre((k - 1) * d, op.pads[2 * axis], op.stride[axis])
        offsets.append([i * d - centre for i in range(k)])
    products = math.prod(out.shape) * weights[0].size
    most = SPREAD_BESIDE_CPU if dev.version == 4 else SPREAD_ALONE
    if dev.version == 4 and products < LEAST_PRODUCTS:
        return False
    unit = max(layout(n).channels_per_group for n in (base.shape[3], out.shape[3]))
    count = min(most // (_weights_a_channel(offsets) * channels) // unit * unit, MOST_AT_ONCE)
    if count < unit:
        return False
    maps: list[Pixels] = []
    for first in range(0, channels, count):
        rows = slice(first, min(first + count, channels))
        n = rows.stop - first
        part = dev.part(base, first, n)
        some = Value(part.shape, v.name, None, v.range, map=Pixels.of(part))
        made = Value((1, n, *out.shape[2:]), out.name, out.source, out.range)
        full = np.zeros((n, n, *weights.shape[2:]), np.float32)
        full[np.arange(n), np.arange(n)] = weights[rows, 0]
        wide = spread(dev, some, made, full, op.dilation, op.stride, op.pads, together=True)
        if wide is None or not conv(
            dev, wide[0], made, wide[1], op.bias[rows], depthwise=False, stride=op.stride,
            pads=wide[2], fn=op.fn, pre=op.pre, first=first,
        ):  # fmt: skip
            return False
        assert made.map is not None
        maps.append(made.map)
    if len({(m.tensor.shape[2:], m.offset, m.stride, m.size) for m in maps}) > 1:
        return False
    m = maps[0]
    if not dev.joinable([x.tensor for x in maps]):
        return False
    joined = dev.concat([x.tensor for x in maps], out)
    out.map = Pixels(joined, m.offset, m.stride, m.size, m.clean)
    return True


def _all_moves(dev: Lowering, base: Tensor, order: list[Pair]) -> Tensor:
    """Moved copies of a map of few channels as the output channels of normal layers, each
    of which moves by one pixel at most."""
    c = base.shape[1]
    have, tensor = [(0, 0)], base
    farthest = max(max(map(abs, move)) for move in order)
    for reach in range(1, farthest + 1):
        want = sorted({_within(move, reach) for move in order})
        kernel = np.zeros((len(want) * c, len(have) * c, 3, 3), np.float32)
        for i, move in enumerate(want):
            near = _within(move, reach - 1)
            j = have.index(near)
            for k in range(c):
                kernel[i * c + k, j * c + k, move[0] - near[0] + 1, move[1] - near[1] + 1] = 1
        tensor = dev.conv(tensor, kernel, np.zeros(len(want) * c, np.float32), identity=True)
        have = want
    return tensor


def _within(move: Pair, reach: int) -> Pair:
    y, x = (min(max(a, -reach), reach) for a in move)
    return y, x


def _moved(dev: Lowering, made: dict[Pair, Tensor], move: Pair) -> Tensor:
    """The map shifted by ``move``, over shorter shifts, zeros moving in."""
    if move not in made:
        y, x = move
        step = ((y > 0) - (y < 0), (x > 0) - (x < 0))
        shorter = (move[0] - step[0], move[1] - step[1])
        made[move] = dev.copy(_moved(dev, made, shorter), tap=step)
    return made[move]
