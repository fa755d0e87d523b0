"""Convolutions, dense layers and pools as KPU layers.

The KPU computes 1x1 kernels and 3x3 kernels padded by one, at stride 1, on the whole map
(reference, section 1.5). Everything else is said in these terms here: which pixels of such
a layer's result are meant, and what its input must look like at the edges.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Op
from k210tasks.compiler.passes import chunks
from k210tasks.compiler.passes.lowering import (
    LOAD_BYTES,
    MAX_CHANNELS,
    Lowering,
    Map,
    Value,
    fits,
)
from k210tasks.kpu.layout import layout

Pads = tuple[int, int, int, int]


def anchor(kernel: int, before: int) -> int:
    """At which tap of a 3-tap kernel a shorter one starts, so that output 0 is pixel 0."""
    return min(max(1 - before, 0), 3 - kernel)


def embedded(weights: NDArray[Any], pads: Pads) -> tuple[NDArray[Any], tuple[int, int]]:
    """Kernels of up to 3x3 as 3x3 ones, and the pixel of the KPU's map that is output (0, 0)."""
    kh, kw = weights.shape[2:]
    ay, ax = anchor(kh, pads[0]), anchor(kw, pads[2])
    full = np.zeros((*weights.shape[:2], 3, 3), np.float32)
    full[:, :, ay : ay + kh, ax : ax + kw] = weights
    return full, (1 - ay - pads[0], 1 - ax - pads[2])


def _reach(weights: NDArray[Any], axis: int) -> tuple[int, int]:
    """First and last tap of the 3x3 kernels that is not zero anywhere, as -1..1."""
    used = np.flatnonzero(np.any(weights != 0, axis=(0, 1, 5 - axis)))
    return (int(used[0]) - 1, int(used[-1]) - 1) if used.size else (0, 0)


def _edges(
    weights: NDArray[Any],
    m: Map,
    start: tuple[int, int],
    stride: tuple[int, int],
    size: tuple[int, int],
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
    dev: Lowering, v: Value, out: Value, op: Op, weights: NDArray[Any], bias: NDArray[Any],
    *, depthwise: bool, stride: tuple[int, int], pads: Pads, fn: Fn,
) -> bool:  # fmt: skip
    """A convolution with a kernel of at most 3x3; False where the KPU cannot take it."""
    channels = v.shape[1]
    if max(channels, weights.shape[0]) > MAX_CHANNELS:
        return False
    kernel = weights.shape[2:]
    size = (out.shape[2], out.shape[3])
    if kernel == (1, 1) and not any(pads):
        return _pointwise(dev, v, out, op, weights, bias, depthwise, stride, fn)
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
        bare = Value(v.shape, v.name, v.source, v.range, codes=dev.as_codes(v))
        whole = dev.uploaded(bare)
        if whole is not None and not any(_edges(full, whole, start, stride, size)):
            m = whole
        else:
            # Its zeros are part of the map from here on: nothing is left to pad.
            m = Map.of(dev.padded(bare, _at_least(pads, h, w)).tensor)
            full, start = embedded(weights, (0, 0, 0, 0))
    if full.shape[2:] == (3, 3) and _reach(full, 2) == _reach(full, 3) == (0, 0):
        full = full[:, :, 1:2, 1:2]
    offset = (m.offset[0] + start[0], m.offset[1] + start[1])
    target = Map(m.tensor, offset, stride, size)
    _emit(dev, v, out, op, target, full, bias, depthwise, fn)
    return True


def _at_least(pads: Pads, h: int, w: int) -> Pads:
    """Pads that also bring a small map to the KPU's smallest size."""
    t, b, left, r = (max(0, p) for p in pads)
    return (t, b + max(0, 4 - h - t - b), left, r + max(0, 4 - w - left - r))


def _pointwise(
    dev: Lowering, v: Value, out: Value, op: Op, weights: NDArray[Any], bias: NDArray[Any],
    depthwise: bool, stride: tuple[int, int], fn: Fn,
) -> bool:  # fmt: skip
    m = dev.as_map(v)
    if m is None:
        return False
    if not fits(m.tensor.shape):
        m = dev.grown(v)
        if m is None:
            return False
    steps = (m.stride[0] * stride[0], m.stride[1] * stride[1])
    target = Map(m.tensor, m.offset, steps, (out.shape[2], out.shape[3]), False)
    pool = dev.pool_of_stride(target)
    unpooled = pool is None or chunks.too_large(dev, m, copies=int(any(pool[1])))
    if m.stride != (1, 1) and not depthwise and unpooled:
        m = dev.settled(v)  # fewer channels before the layer than after it, mostly
        if m is None:
            return False
        target = Map(m.tensor, m.offset, stride, target.size)
    _emit(dev, v, out, op, target, weights, bias, depthwise, fn)
    return True


def _emit(
    dev: Lowering, v: Value, out: Value, op: Op, target: Map, weights: NDArray[Any],
    bias: NDArray[Any], depthwise: bool, fn: Fn,
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
    before = op.attrs.get("pre")
    source = out.source
    if source is None and before is not None:
        source = before.source
    computes = None if source is None else (source, *target.offset, *target.stride)
    tensor = dev.conv(
        target.tensor,
        weights,
        bias,
        like=out,
        depthwise=depthwise,
        fn=fn,
        pool=kind,
        computes=computes,
        first=op.attrs.get("first", 0),
        pre=before,
    )
    if kind:
        out.map = dev.after_pool(target, tensor)
    else:
        out.map = Map(tensor, target.offset, target.stride, target.size)
    if out.map.whole:
        out.map = Map.of(tensor)


#: most weights a spread kernel may have; beyond, the CPU does it
MAX_SPREAD = 300_000


def moves_of(low: int, high: int) -> dict[int, tuple[int, int]]:
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
    dilation: tuple[int, int],
    stride: tuple[int, int],
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
    copies: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
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
    wide = Value(joined.shape, v.name, None, v.range, map=Map.of(joined))
    inner_pads = (1 - starts[0], 1, 1 - starts[1], 1)
    return wide, np.concatenate(kernels, 1), inner_pads


def depthwise_in_groups(
    dev: Lowering, v: Value, out: Value, op: Op, most: int = MAX_SPREAD
) -> bool:  # fmt: skip
    """A large or dilated depthwise kernel, a few channels at a time as a full one: its zeros
    are few then. False where the weights would be more than ``most`` bytes."""
    a = op.attrs
    weights, bias = a["weights"], a["bias"]
    base = dev.whole(v)
    if base is None or not fits(base.shape) or (out.shape[2] < 4 or out.shape[3] < 4):
        return False
    channels = len(weights)
    spans = [(k - 1) * d for k, d in zip(weights.shape[2:], a["dilation"], strict=True)]
    copies = math.prod(len({m for m, _ in moves_of(-(n // 2), n - n // 2).values()}) for n in spans)
    unit = max(layout(n).channels_per_group for n in (base.shape[3], out.shape[3]))
    count = most // (2 * 9 * copies * channels) // unit * unit
    if count < unit:
        return False
    maps: list[Map] = []
    for first in range(0, channels, count):
        rows = slice(first, min(first + count, channels))
        n = rows.stop - first
        part = dev.part(base, first, n)
        some = Value(part.shape, v.name, None, v.range, map=Map.of(part))
        made = Value((1, n, *out.shape[2:]), out.name, out.source, out.range)
        full = np.zeros((n, n, *weights.shape[2:]), np.float32)
        full[np.arange(n), np.arange(n)] = weights[rows, 0]
        wide = spread(dev, some, made, full, a["dilation"], a["stride"], a["pads"], together=True)
        own = Op("conv", [], [], {**a, "first": first}, op.origin)
        if wide is None or not conv(dev, wide[0], made, own, wide[1], bias[rows], depthwise=False,
                                    stride=a["stride"], pads=wide[2], fn=a["fn"]):  # fmt: skip
            return False
        assert made.map is not None
        maps.append(made.map)
    if len({(m.tensor.shape[2:], m.offset, m.stride, m.size) for m in maps}) > 1:
        return False
    m = maps[0]
    if not dev.joinable([x.tensor for x in maps]):
        return False
    joined = dev.concat([x.tensor for x in maps], out)
    out.map = Map(joined, m.offset, m.stride, m.size, m.clean)
    return True


def _all_moves(dev: Lowering, base: Any, order: list[tuple[int, int]]) -> Any:
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


def _within(move: tuple[int, int], reach: int) -> tuple[int, int]:
    y, x = (min(max(a, -reach), reach) for a in move)
    return y, x


def _moved(dev: Lowering, made: dict[tuple[int, int], Any], move: tuple[int, int]) -> Any:
    """The map shifted by ``move``, over shorter shifts, zeros moving in."""
    if move not in made:
        step = tuple((a > 0) - (a < 0) for a in move)
        shorter = (move[0] - step[0], move[1] - step[1])
        made[move] = dev.copy(_moved(dev, made, shorter), tap=step)  # type: ignore[arg-type]
    return made[move]


def max_pool(dev: Lowering, v: Value, out: Value, kernel: tuple[int, int], stride: tuple[int, int],
             pads: Pads, fuse: bool) -> bool:  # fmt: skip
    """A max pool by the KPU's pool stage; False where it cannot be one exactly.

    ``fuse``: nothing else reads the input, so the layer that writes it may pool it.
    """
    if kernel[0] != kernel[1] or stride[0] != stride[1]:
        return False
    k, s = kernel[0], stride[0]
    size = (out.shape[2], out.shape[3])
    m = dev.settled(v)
    if m is None:
        return False
    if k == s and k in (2, 4) and not (pads[0] or pads[2]):
        m = dev.shifted(m, (m.offset[0] % k, m.offset[1] % k)) if any(
            o % k for o in m.offset) else m  # fmt: skip
        target = Map(m.tensor, m.offset, (k, k), size)
        inside = all(
            o + n * k <= h for o, n, h in zip(m.offset, size, m.tensor.shape[2:], strict=True)
        )
        within = all(n * k <= h for n, h in zip(size, m.size, strict=True))
        if not (inside and within):
            return False
        out.map = dev.after_pool(target, _pooled(dev, m.tensor, 1 if k == 2 else 3, out, fuse))
    elif k in (2, 3) and s in (1, 2, 4) and max(pads[0], pads[2]) <= k - 2:
        if not m.whole and any(pads):
            return False
        tensor = m.tensor
        for turn in range(k - 1):
            if turn and (pads[0] or pads[2]):
                # What moves in is code 0, which never wins.
                tensor = _moved_down(dev, tensor, (pads[0], pads[2]))
            tensor = _pooled(dev, tensor, 9, out, fuse)
        out.map = Map(tensor, m.offset, stride, size)
    else:
        return False
    if out.map.whole:
        out.map = Map.of(out.map.tensor)
    return True


def _moved_down(dev: Lowering, tensor: Any, by: tuple[int, int]) -> Any:
    moved = dev.copy(tensor, tap=(-by[0], -by[1]))
    dev.producers[moved].attrs.update(pad_code=0, pad_value=-1e30)
    return moved


def _pooled(dev: Lowering, tensor: Any, pool: int, out: Value, fuse: bool) -> Any:
    """``tensor`` pooled, with ``fuse`` in the layer that writes it."""
    producer = dev.producers.get(tensor)
    alone = producer is not None and not any(tensor in o.inputs for o in dev.ops)
    if (
        producer is not None
        and alone
        and producer.kind == "kpu_conv"
        and not producer.attrs["depthwise"]
        and producer.attrs["pool"] == 0
        and len(producer.outputs) == 1
        and fuse
    ):
        stride = (1, 2, 2, 4, 4, 2, 2, 4, 1, 1)[pool]
        producer.attrs["pool"] = pool
        tensor.shape = (*tensor.shape[:2], tensor.shape[2] // stride, tensor.shape[3] // stride)
        tensor.name = out.name
        if out.source is not None:
            tensor.source, tensor.range = out.source, out.range
        return tensor
    pooled = dev.copy(tensor, pool=pool)
    pooled.name = out.name
    return pooled


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


def _as_vector(dev: Lowering, v: Value) -> Any:
    n = v.shape[1]
    codes = dev.as_codes(v)
    if dev.version == 3:
        return dev.emit("add_padding", [codes], (1, n, 4, 4), v, place="kpu")
    flat = dev.emit("reshape", [codes], (1, n, 1, 1))
    pads = ((0, 0), (0, 0), (0, 3), (0, 3))
    wide = dev.emit("pad", [flat], (1, n, 4, 4), pads=pads, value=0.0)
    return dev.emit("upload", [wide], (1, n, 4, 4), v, place="kpu")


def _nine_a_channel(dev: Lowering, v: Value) -> Any:
    n = v.shape[1]
    flat = dev.emit("reshape", [dev.as_codes(v)], (1, 1, 1, n))
    if short := -n % 9:
        pads = ((0, 0), (0, 0), (0, 0), (0, short))
        flat = dev.emit("pad", [flat], (1, 1, 1, n + short), pads=pads, value=0.0)
    c = flat.size // 9
    grid = dev.emit("reshape", [flat], (1, c, 3, 3))
    pads = ((0, 0), (0, 0), (0, 1), (0, 1))
    wide = dev.emit("pad", [grid], (1, c, 4, 4), pads=pads, value=0.0)
    return dev.emit("upload", [wide], (1, c, 4, 4), v, place="kpu")
