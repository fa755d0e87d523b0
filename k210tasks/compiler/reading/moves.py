"""What moves, repeats, joins or cuts values, as read."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.constraints import SourceOp
from k210tasks.compiler.ir import Op, nchw
from k210tasks.compiler.reading.state import AXIS, TO_NCHW, TO_NHWC, Handler, Reader, floats


def _pad(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    pads = [(int(a), int(b)) for a, b in const.reshape(-1, 2)]
    if len(x.shape) == 4:
        pads = [pads[i] for i in TO_NCHW]
    value = op.const(2)
    fill = 0.0
    if op.name == "PADV2" and value is not None:
        fill = float(np.ravel(floats(op.inputs[2]))[0])
    r.finish(op, "pad", [x], pads=tuple(pads), value=fill)


def _concat(r: Reader, op: SourceOp) -> None:
    parts = [r.get(t) for t in op.inputs]
    rank = len(op.outputs[0].shape)
    axis = op.options["axis"] % rank
    axis = AXIS[axis] if rank == 4 else axis
    if fn := r.activation(op):
        y = r.emit("concat", parts, nchw(op.outputs[0].shape), axis=axis)
        r.finish(op, "map", [y], fn=fn)
    else:
        r.finish(op, "concat", parts, axis=axis)


def _reshape(r: Reader, op: SourceOp) -> None:
    r.reshape_to(op, r.as_source(r.get(op.inputs[0])))


def _transpose(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    perm = tuple(int(p) for p in const)
    if len(perm) == 4:
        perm = tuple(TO_NHWC[perm[i]] for i in TO_NCHW)
    r.finish(op, "transpose", [x], perm=perm)


def _cut(
    r: Reader, op: SourceOp, which: int, begin: list[int], strides: list[int], shape: list[int]
) -> None:
    """A slice in TFLite's axes as output ``which`` of ``op``."""
    x = r.get(op.inputs[1] if op.name == "SPLIT" else op.inputs[0])
    if len(x.shape) == 4:
        begin, strides, shape = ([v[i] for i in TO_NCHW] for v in (begin, strides, shape))
    target = op.outputs[which]
    attrs = {"begin": tuple(begin), "strides": tuple(strides)}
    if nchw(target.shape) == tuple(shape):
        out = r.like(target)
        r.ops.append(Op("slice", [x], [out], attrs, (r.label,)))
        r.values[target.index] = out
    else:
        y = r.emit("slice", [x], tuple(shape), **attrs)
        r.reshape_to(op, r.as_source(y), which)


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
    r.finish(
        op,
        "resize",
        [r.get(op.inputs[0])],
        mode="nearest" if op.name == "RESIZE_NEAREST_NEIGHBOR" else "bilinear",
        align_corners=bool(op.options.get("align_corners")),
        half_pixel=bool(op.options.get("half_pixel_centers")),
    )


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
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RESIZE_BILINEAR": _resize,
}
