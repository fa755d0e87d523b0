"""Shapes that a converter left open though they follow from those before."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from k210tasks.compiler.constraints import SourceOp

Shape = tuple[int, ...]


def _reshape(op: SourceOp) -> Shape | None:
    const = op.const(1)
    if const is None:
        return None
    wanted = [int(n) for n in const.ravel()]
    size, known = math.prod(op.shape()), math.prod(n for n in wanted if n != -1)
    return tuple(size // known if n == -1 else n for n in wanted)


def _window(op: SourceOp) -> Shape | None:
    kernel = op.options.get("filter") or op.shape(1)[1:3]
    _, *size, channels = op.shape()
    dilation = op.options.get("dilation", (1, 1))
    out = []
    for n, k, s, d in zip(size, kernel, op.options["stride"], dilation, strict=True):
        span = (k - 1) * d + 1
        out.append(math.ceil((n if op.options["padding"] == "SAME" else n - span + 1) / s))
    if op.name == "CONV_2D":
        channels = op.shape(1)[0]
    elif op.name == "DEPTHWISE_CONV_2D":
        channels = op.shape(1)[3]
    return (1, *out, channels)


def _dense(op: SourceOp) -> Shape | None:
    rows, columns = op.shape(1)
    if op.options.get("keep_num_dims"):
        return (*op.shape()[:-1], rows)
    return (math.prod(op.shape()) // columns, rows)


def _product(op: SourceOp) -> Shape | None:
    return (*op.shape()[:-1], op.shape(1)[-2 if op.options.get("adj_y") else -1])


def _transpose(op: SourceOp) -> Shape | None:
    perm = op.const(1)
    return None if perm is None else tuple(op.shape()[int(p)] for p in perm)


def _given(which: int) -> Callable[[SourceOp], Shape | None]:
    def shape(op: SourceOp) -> Shape | None:
        const = op.const(which)
        return None if const is None else tuple(int(n) for n in const.ravel())

    return shape


def _resize(op: SourceOp) -> Shape | None:
    size = _given(1)(op)
    return None if size is None else (1, *size, op.shape()[3])


def _tile(op: SourceOp) -> Shape | None:
    times = _given(1)(op)
    return None if times is None else tuple(np.multiply(op.shape(), times).tolist())


def _concat(op: SourceOp) -> Shape | None:
    shape = list(op.shape())
    axis = op.options["axis"] % len(shape)
    shape[axis] = sum(op.shape(i)[axis] for i in range(len(op.inputs)))
    return tuple(shape)


def _pad(op: SourceOp) -> Shape | None:
    pads = op.const(1)
    if pads is None:
        return None
    return tuple(int(n + a + b) for n, (a, b) in zip(op.shape(), pads, strict=True))


def _same(op: SourceOp) -> Shape | None:
    return tuple(np.broadcast_shapes(*(t.shape for t in op.inputs if t is not None)))


def _first(op: SourceOp) -> Shape | None:
    return op.shape()


_SHAPES: dict[str, Callable[[SourceOp], Shape | None]] = {
    "RESHAPE": _reshape,
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D"), _window),
    "TRANSPOSE_CONV": _given(0),
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
    "TRANSPOSE": _transpose,
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resize),
    "TILE": _tile,
    "CONCATENATION": _concat,
    **dict.fromkeys(("PAD", "PADV2"), _pad),
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"), _same
    ),
    **dict.fromkeys(
        (
            "RELU", "RELU6", "LEAKY_RELU", "PRELU", "ELU", "HARD_SWISH", "LOGISTIC", "TANH",
            "SOFTMAX", "QUANTIZE", "DEQUANTIZE", "GELU", "ABS", "NEG", "EXP", "SQRT", "RSQRT",
            "SQUARE", "L2_NORMALIZATION", "RELU_N1_TO_1", "RELU_0_TO_1",
        ),
        _first,
    ),
}  # fmt: skip


def close(op: SourceOp) -> None:
    """Give the output of ``op`` the shape that follows from its inputs, where it was left open.

    What a file says of a tensor with an open batch holds for a first dimension of one; rows of
    a sequence or a map that were put into it are more.
    """
    out = op.outputs[0] if op.outputs else None
    if out is None or not (out.dynamic or out.open):
        return
    if op.name not in _SHAPES:
        for other in op.outputs:  # not to be believed where the input's was not
            other.dynamic |= other.open and any(t and t.grown for t in op.inputs)
        return
    if any(t is not None and t.dynamic for t in op.inputs):
        return
    try:
        shape = _SHAPES[op.name](op)
    except (ArithmeticError, IndexError, KeyError, TypeError, ValueError):
        return  # malformed: refused as what it is
    if shape is not None and min(shape, default=1) > 0:
        out.grown = out.shape[:1] != shape[:1]
        out.shape, out.dynamic = shape, False
