"""What moves, repeats, joins or cuts values."""

from __future__ import annotations

import math

import numpy as np

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building, axis_of, fits
from k210tasks.compiler.reading.onnx.folding import reshaped, slices
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.pieces import mirrored, picked, repeated, selected
from k210tasks.compiler.shape_laws import MOST_PIECES

MOST_RANK = 6  # of what is only moved: shuffles of channels and pixels, as exporters spell them


def same(r: Building, node: Node) -> None:
    """What computes nothing."""
    name, out = node.inputs[0], node.outputs[0]
    if name in r.constants:
        r.constants[out] = r.constants[name]
    elif name in r.rows:
        r.rows[out] = r.rows[name]
    else:
        r.tensors[out] = r.tensors[name]


def cast(r: Building, node: Node) -> None:
    if node.whole("to", 1) not in (1, 10, 11, 16):
        raise node.unsupported(
            "computed values are cast to something else than floats", "leave that to the program"
        )
    same(r, node)


def _shaped(r: Building, node: Node, shape: tuple[int, ...]) -> None:
    if len(shape) > MOST_RANK:
        raise node.unsupported(f"it makes a tensor of {len(shape)} dimensions")
    x = r.tensor(node.inputs[0])
    if shape == x.shape:
        same(r, node)
    else:
        r.put(node, ops.Reshape([x]), fits(node, shape))


def reshape(r: Building, node: Node) -> None:
    wanted = r.wholes(node, 1, "the shape")
    if wanted is None:
        raise node.unsupported("it has no shape")
    _shaped(r, node, reshaped(node, r.shape(node.inputs[0]), wanted))


def flatten(r: Building, node: Node) -> None:
    given = r.shape(node.inputs[0])
    axis = node.whole("axis", 1)
    if not -len(given) <= axis <= len(given):
        raise node.unsupported(f"axis {axis} of an input of {len(given)} dimensions")
    axis = axis + len(given) if axis < 0 else axis
    _shaped(r, node, (math.prod(given[:axis]), math.prod(given[axis:])))


def _listed_axes(r: Building, node: Node) -> list[int] | None:
    return node.wholes("axes") if node.opset < 13 else r.wholes(node, 1, "axes")


def squeeze(r: Building, node: Node) -> None:
    given, axes = r.shape(node.inputs[0]), _listed_axes(r, node)
    if axes is None:
        _shaped(r, node, tuple(n for n in given if n != 1))
        return
    gone = {axis_of(node, a, len(given)) for a in axes}
    if any(given[a] != 1 for a in gone):
        raise node.unsupported(f"axes is {axes}, of an input of shape {list(given)}")
    _shaped(r, node, tuple(n for i, n in enumerate(given) if i not in gone))


def unsqueeze(r: Building, node: Node) -> None:
    given, axes = r.shape(node.inputs[0]), _listed_axes(r, node)
    if not axes:
        raise node.unsupported("it has no axes")
    rank = len(given) + len(axes)
    new = {axis_of(node, a, rank) for a in axes}
    rest = iter(given)
    _shaped(r, node, tuple(1 if i in new else next(rest) for i in range(rank)))


def transpose(r: Building, node: Node) -> None:
    x = r.tensor(node.inputs[0])
    rank = len(x.shape)
    perm = node.wholes("perm") or list(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise node.unsupported(f"perm is {perm}, of an input of {rank} dimensions")
    r.put(node, ops.Transpose([x], perm=tuple(perm)), tuple(x.shape[p] for p in perm))


def concat(r: Building, node: Node) -> None:
    of = r.operands(node)
    axis = of.axis(axis_of(node, node.whole("axis", 1), of.rank))
    shape = list(of.tensors[0].shape)
    shape[axis] = sum(t.shape[axis] for t in of.tensors)
    for t in of.tensors:
        if any(a != b for i, (a, b) in enumerate(zip(t.shape, shape, strict=True)) if i != axis):
            shapes = ", ".join(str(list(r.shape(n))) for n in node.inputs)
            raise node.unsupported(f"its inputs have shapes {shapes}")
    if len(of.tensors) > MOST_PIECES:
        raise node.unsupported(f"it joins {len(of.tensors)} tensors")
    r.put_like(node, ops.Concat(of.tensors, axis=axis), of, fits(node, shape))


def _cut(
    r: Building, node: Node, begin: list[int], count: list[int], step: list[int], which: int = 0
) -> None:
    """A slice, in axes of the file, as an output."""
    of = r.operands(node, node.inputs[:1])
    fits(node, count)
    step = [s if n > 1 else 1 for s, n in zip(step, count, strict=True)]  # of one value: any
    if min(step) < 1:
        raise node.unsupported(f"steps is {step}", "only steps above zero are carried")
    if of.row:
        begin, count, step = ([*v[:2], one, v[2]] for v, one in ((begin, 0), (count, 1), (step, 1)))
    cut = ops.Slice(of.tensors[:], begin=tuple(begin), strides=tuple(step))
    r.put(node, cut, count, row=of.row, which=which)


def slice_(r: Building, node: Node) -> None:
    given = r.shape(node.inputs[0])
    if node.opset < 10:
        lists = [node.wholes(n) for n in ("starts", "ends", "axes")] + [None]
    else:
        lists = [r.wholes(node, i, n) for i, n in enumerate(("starts", "ends", "axes", "steps"), 1)]
    begin, count, step = slices(node, given, lists)
    if min(count, default=1) < 1:
        raise node.unsupported(f"nothing is left of an input of shape {list(given)}")
    if count == list(given) and all(s == 1 for s in step):
        same(r, node)
        return
    _cut(r, node, begin, count, step)


def split(r: Building, node: Node) -> None:
    given = r.shape(node.inputs[0])
    axis = axis_of(node, node.whole("axis", 0), len(given))
    sizes = node.wholes("split") if node.opset < 13 else r.wholes(node, 1, "split")
    n, parts = given[axis], len(node.outputs)
    if sizes is None:
        each = -(-n // parts)
        sizes = [each] * (parts - 1) + [n - each * (parts - 1)]
    if len(sizes) != parts or sum(sizes) != n or min(sizes) < 1:
        raise node.unsupported(f"it splits {n} values of axis {axis} into {sizes}")
    begin = [0] * len(given)
    for which, size in enumerate(sizes):
        if node.outputs[which]:
            count = [size if i == axis else m for i, m in enumerate(given)]
            _cut(r, node, list(begin), count, [1] * len(given), which)
        begin[axis] += size


def gather(r: Building, node: Node) -> None:
    at = r.const(node, 1)
    if at is None or at.dtype.kind not in "iu":
        raise node.unsupported("the places are computed", "only constant ones are carried")
    x, given = r.tensor(node.inputs[0]), r.shape(node.inputs[0])
    axis = axis_of(node, node.whole("axis", 0), len(given))
    places = [int(p) for p in at.ravel()]
    if not places or any(not -given[axis] <= p < given[axis] for p in places):
        raise node.unsupported(f"places {places[:8]} of an axis of {given[axis]}")
    places = [p % given[axis] for p in places]
    if len(places) > MOST_PIECES:
        raise node.unsupported(f"it picks {len(places)} places, {MOST_PIECES} is the most")
    fits(node, (*given[:axis], len(places), *given[axis + 1 :]))
    if len(given) == 4 and axis == 1 and len(places) > 1:
        y = selected(r, x, places)
    else:
        parts = picked(r, x, axis, places)
        shape = tuple(len(places) if k == axis else n for k, n in enumerate(given))
        y = parts[0] if len(parts) == 1 else r.emit(ops.Concat(parts, axis=axis), shape)
    out = (*given[:axis], *at.shape, *given[axis + 1 :])
    if y.shape == out:
        r.hold(node, y)
    else:
        r.put(node, ops.Reshape([y]), out)


def tile(r: Building, node: Node) -> None:
    times = r.wholes(node, 1, "repeats")
    x = r.tensor(node.inputs[0])
    if times is None or len(times) != len(x.shape) or min(times) < 1:
        raise node.unsupported(f"repeats is {times}, of an input of shape {list(x.shape)}")
    _repeat(r, node, x, times)


def _repeat(r: Building, node: Node, x: Tensor, times: list[int]) -> None:
    fits(node, (n * t for n, t in zip(x.shape, times, strict=True)))
    if max(times) > MOST_PIECES:
        raise node.unsupported(f"it repeats {times} times, {MOST_PIECES} is the most")
    if all(t == 1 for t in times):
        r.tensors[node.outputs[0]] = x
        return
    for axis, t in enumerate(times):
        x = repeated(r, x, axis, t)
    r.hold(node, x)


def expand(r: Building, node: Node) -> None:
    wanted = r.wholes(node, 1, "the shape")
    given = r.shape(node.inputs[0])
    try:
        shape = fits(node, np.broadcast_shapes(given, tuple(wanted or ())))
    except ValueError as error:
        raise node.unsupported(f"shape {wanted} of an input of shape {list(given)}") from error
    x = r.operands(node, node.inputs[:1]).tensors[0] if len(shape) < 3 else r.tensor(node.inputs[0])
    ones = (1,) * (len(shape) - len(given)) + given
    if ones != x.shape:
        x = r.emit(ops.Reshape([x]), ones)
    _repeat(r, node, x, [m // n for m, n in zip(shape, ones, strict=True)])


def _pairs(r: Building, node: Node, rank: int) -> list[tuple[int, int]]:
    """Values before and behind, of every axis."""
    pads = node.wholes("pads") if node.opset < 11 else r.wholes(node, 1, "pads")
    axes = r.wholes(node, 3, "axes") if node.opset >= 18 else None
    axes = list(range(rank)) if axes is None else [axis_of(node, a, rank) for a in axes]
    if pads is None or len(pads) != 2 * len(axes):
        raise node.unsupported(f"pads is {pads}, of an input of {rank} dimensions")
    found = [(0, 0)] * rank
    for i, a in enumerate(axes):
        found[a] = pads[i], pads[i + len(axes)]
    return found


def pad(r: Building, node: Node) -> None:
    of = r.operands(node, node.inputs[:1])
    x, pairs = of.tensors[0], _pairs(r, node, of.rank)
    if of.rank == 3 and not of.row and pairs[0] == (0, 0):
        x, row = r.map(node), True  # a one-dimensional map, as convolutions read it
    else:
        row = of.row
    if row:
        pairs = [*pairs[:2], (0, 0), pairs[2]]
    kept = [max(-a, 0) for a, _ in pairs]
    count = [n + min(a, 0) + min(b, 0) for n, (a, b) in zip(x.shape, pairs, strict=True)]
    fits(node, count)
    if tuple(count) != x.shape:
        x = r.emit(ops.Slice([x], begin=tuple(kept), strides=(1,) * len(count)), tuple(count))
    pairs = [(max(a, 0), max(b, 0)) for a, b in pairs]
    shape = fits(node, (n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)))
    mode = node.text("mode", "constant")
    if mode == "constant":
        r.put(node, ops.Pad([x], pads=tuple(pairs), value=_fill(r, node)), shape, row=row)
        return
    if mode not in ("reflect", "edge"):
        raise node.unsupported(f"mode is {mode!r}", "constant, reflect and edge are carried")
    for axis, (before, after) in enumerate(pairs):
        n, reflect = x.shape[axis], mode == "reflect"
        if max(before, after) > (n - 1 if reflect else MOST_PIECES):
            raise node.unsupported(f"it adds {max(before, after)} to {n} values by {mode}")
        low = [before - k if reflect else 0 for k in range(before)]
        high = [n - 2 - k if reflect else n - 1 for k in range(after)]
        x = mirrored(r, x, axis, low, high)
    r.hold(node, x, row=row)


def _fill(r: Building, node: Node) -> float:
    if node.opset < 11:
        return node.real("value", 0.0)
    if not node.input(2):
        return 0.0
    constant = r.const(node, 2)
    if constant is not None and constant.dtype.kind == "f" and np.isneginf(constant).all():
        return ops.LOWEST
    value = r.floats(node, 2, "the value")
    if value.size != 1:
        raise node.unsupported(f"its value has shape {list(value.shape)}")
    return float(value.ravel()[0])


HANDLERS = {
    "Identity": same,
    "Dropout": same,
    "Cast": cast,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Slice": slice_,
    "Split": split,
    "Gather": gather,
    "Tile": tile,
    "Expand": expand,
    "Pad": pad,
}
