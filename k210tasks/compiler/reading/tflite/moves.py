"""What moves, repeats, joins or cuts values, as read."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler import ops
from k210tasks.compiler.ir import nchw
from k210tasks.compiler.reading.pieces import (
    blocks_to_channels,
    mirrored,
    picked,
    repeated,
    selected,
)
from k210tasks.compiler.reading.state import TO_NCHW, TO_NHWC, Handler, Reader, floats
from k210tasks.compiler.source_ops import SourceOp


def _pad(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    pads = [(int(a), int(b)) for a, b in const.reshape(-1, 2)]
    row = len(x.shape) == 3 and pads[0] == (0, 0)  # a one-dimensional map
    if row:
        x, pads = r.as_map(x), [(0, 0), *pads]
    if len(x.shape) == 4:
        pads = [pads[i] for i in TO_NCHW]
    value = op.const(2)
    fill = 0.0
    if op.name == "PADV2" and value is not None:
        fill = max(float(np.ravel(floats(op.inputs[2]))[0]), ops.LOWEST)
    if row:
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
        y = r.emit(ops.Pad([x], pads=tuple(pads), value=fill), shape)
        r.reshape_to(op, r.as_source(y))
    else:
        r.finish(op, ops.Pad([x], pads=tuple(pads), value=fill))


def _concat(r: Reader, op: SourceOp) -> None:
    parts = [r.get(t) for t in op.inputs]
    axis = r.axis(op.options["axis"], len(op.outputs[0].shape))
    if fn := r.activation(op):
        y = r.emit(ops.Concat(parts, axis=axis), nchw(op.outputs[0].shape))
        r.finish(op, ops.Map([y], fn=fn))
    else:
        r.finish(op, ops.Concat(parts, axis=axis))


def _reshape(r: Reader, op: SourceOp) -> None:
    r.reshape_to(op, r.as_source(r.get(op.inputs[0])))


def _transpose(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    perm = tuple(int(p) for p in const)
    if len(perm) == 4:
        perm = tuple(TO_NHWC[perm[i]] for i in TO_NCHW)
    r.finish(op, ops.Transpose([x], perm=perm))


def _cut(
    r: Reader, op: SourceOp, which: int, begin: list[int], strides: list[int], shape: list[int]
) -> None:
    """A slice in TFLite's axes as output ``which`` of ``op``."""
    x = r.get(op.inputs[1] if op.name == "SPLIT" else op.inputs[0])
    strides = [s if n > 1 else 1 for s, n in zip(strides, shape, strict=True)]  # of one: any
    if len(x.shape) == 4:
        begin, strides, shape = ([v[i] for i in TO_NCHW] for v in (begin, strides, shape))
    cut = ops.Slice([x], begin=tuple(begin), strides=tuple(strides))
    if nchw(op.outputs[which].shape) == tuple(shape):
        r.finish(op, cut, which)
    else:
        r.reshape_to(op, r.as_source(r.emit(cut, tuple(shape))), which)


def _strided_slice(r: Reader, op: SourceOp) -> None:
    given = op.shape(0)
    begins, ends, steps = (op.const(i) for i in (1, 2, 3))
    assert begins is not None
    assert ends is not None
    assert steps is not None
    begin, strides, shape = [], [], []
    for i, n in enumerate(given):
        b, e, s = 0, n, 1
        if i < len(begins):
            b, e, s = int(begins[i]), int(ends[i]), int(steps[i])
            b = b + n if b < 0 else b
            e = e + n if e < 0 else e
            b = 0 if op.options.get("begin_mask", 0) >> i & 1 else min(max(b, 0), n)
            e = n if op.options.get("end_mask", 0) >> i & 1 else min(max(e, 0), n)
            if op.options.get("shrink_axis_mask", 0) >> i & 1:
                e, s = b + 1, 1
        begin.append(b)
        strides.append(s)
        shape.append(-(-(e - b) // s))
    _cut(r, op, 0, begin, strides, shape)


def _slice(r: Reader, op: SourceOp) -> None:
    begins, sizes = op.const(1), op.const(2)
    assert begins is not None
    assert sizes is not None
    begin = [int(b) for b in begins]
    shape = [n - b if s < 0 else int(s) for n, b, s in zip(op.shape(0), begin, sizes, strict=True)]
    _cut(r, op, 0, begin, [1] * len(begin), shape)


def _split(r: Reader, op: SourceOp) -> None:
    given = op.shape(1 if op.name == "SPLIT" else 0)
    const = op.const(0 if op.name == "SPLIT" else 2)
    assert const is not None
    axis = int(np.ravel(const)[0]) % len(given)
    begin = [0] * len(given)
    for which, out in enumerate(op.outputs):
        _cut(r, op, which, list(begin), [1] * len(given), list(out.shape))
        begin[axis] += out.shape[axis]


def _resize(r: Reader, op: SourceOp) -> None:
    resize = ops.Resize(
        [r.get(op.inputs[0])],
        mode="nearest" if op.name == "RESIZE_NEAREST_NEIGHBOR" else "bilinear",
        align_corners=bool(op.options.get("align_corners")),
        half_pixel=bool(op.options.get("half_pixel_centers")),
    )
    r.finish(op, resize)


def _pack(r: Reader, op: SourceOp) -> None:
    shape = op.outputs[0].shape
    axis = op.options["axis"] % len(shape)
    one = tuple(1 if i == axis else n for i, n in enumerate(shape))
    parts = [r.reshaped(r.get(t), one) for t in op.inputs]
    r.finish(op, ops.Concat(parts, axis=r.axis(axis, len(shape))))


def _unpack(r: Reader, op: SourceOp) -> None:
    given = op.shape(0)
    axis = op.options["axis"] % len(given)
    shape = [1 if i == axis else n for i, n in enumerate(given)]
    for which in range(len(op.outputs)):
        begin = [which if i == axis else 0 for i in range(len(given))]
        _cut(r, op, which, begin, [1] * len(given), list(shape))


def _tile(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    for i, times in enumerate(const.tolist()):
        axis = r.axis(i, len(x.shape))
        x = repeated(r, x, axis, times)
    r.hold(op, x)


def _gather(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    places = op.const(1)
    assert places is not None
    axis = op.options.get("axis", 0) % len(x.shape)
    n = op.shape(0)[axis]
    at = [int(p) % n for p in places.ravel()]
    if len(x.shape) == 4 and axis == 3:
        y = selected(r, x, at)
    else:
        axis = r.axis(axis, len(x.shape))
        shape = tuple(len(at) if k == axis else m for k, m in enumerate(x.shape))
        y = r.emit(ops.Concat(picked(r, x, axis, at), axis=axis), shape)
    if y.shape == nchw(op.outputs[0].shape):
        r.hold(op, y)
    else:
        r.reshape_to(op, r.as_source(y))


def _space_to_depth(r: Reader, op: SourceOp) -> None:
    r.finish(op, blocks_to_channels(r.get(op.inputs[0]), op.options["block"]))


def _depth_to_space(r: Reader, op: SourceOp) -> None:
    x, block = r.get(op.inputs[0]), op.options["block"]
    _, c, h, w = x.shape
    y = r.emit(ops.Reshape([x]), (block, block, c // block**2, h, w))
    y = r.emit(ops.Transpose([y], perm=(2, 3, 0, 4, 1)), (c // block**2, h, block, w, block))
    r.finish(op, ops.Reshape([y]))


def _mirror_pad(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    skip = 1 if op.options["mode"] == "REFLECT" else 0
    for i, (before, after) in enumerate(const.tolist()):
        axis = r.axis(i, len(x.shape))
        n = x.shape[axis]
        low = [skip + k for k in reversed(range(before))]
        high = [n - 1 - skip - k for k in range(after)]
        x = mirrored(r, x, axis, low, high)
    r.hold(op, x)


HANDLERS: dict[str, Handler] = {
    "PAD": _pad,
    "PADV2": _pad,
    "CONCATENATION": _concat,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "PACK": _pack,
    "UNPACK": _unpack,
    "TILE": _tile,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _depth_to_space,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RESIZE_BILINEAR": _resize,
}
