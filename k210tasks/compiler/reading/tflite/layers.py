"""Convolutions, dense layers, pools, reductions and what works along one axis, as read."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.ir import nchw
from k210tasks.compiler.problems import Unsupported
from k210tasks.compiler.reading.state import AXIS, Handler, Reader, floats
from k210tasks.compiler.source_ops import SourceOp


def _pads(op: SourceOp, size: ops.Pair, kernel: ops.Pair) -> ops.Pads:
    """TFLite's padding (top, bottom, left, right) for effective ``kernel`` on ``size``."""
    if given := op.options.get("pads"):
        top, bottom, left, right = given
        return (top, bottom, left, right)
    if op.options["padding"] == "VALID":
        return (0, 0, 0, 0)
    out: list[int] = []
    for n, k, s in zip(size, kernel, op.options["stride"], strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + k - n)
        out += [total // 2, total - total // 2]
    return (out[0], out[1], out[2], out[3])


def _conv(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    kernel = floats(op.inputs[1])
    channels = x.shape[1]
    dilation = op.options["dilation"]
    if op.name == "DEPTHWISE_CONV_2D":
        weights = kernel.transpose(3, 0, 1, 2)
        groups = channels
    else:
        weights = kernel.transpose(0, 3, 1, 2)
        groups = channels // kernel.shape[3]
    k = weights.shape[2:]
    effective = ((k[0] - 1) * dilation[0] + 1, (k[1] - 1) * dilation[1] + 1)
    conv = ops.Conv(
        [x],
        weights=np.ascontiguousarray(weights),
        bias=_bias(op, weights.shape[0]),
        groups=groups,
        stride=op.options["stride"],
        dilation=dilation,
        pads=_pads(op, (x.shape[2], x.shape[3]), effective),
        fn=r.activation(op),
    )
    r.finish(op, conv)


def _bias(op: SourceOp, count: int, which: int = 2) -> NDArray[np.float32]:
    """Input ``which``, or zeros where it is left out."""
    bias = op.inputs[which] if len(op.inputs) > which else None
    return np.zeros(count, np.float32) if bias is None else floats(bias).reshape(count)


def _transpose_conv(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[2])
    weights = floats(op.inputs[1]).transpose(0, 3, 1, 2)
    out = op.outputs[0].shape
    pads: list[int] = []
    for n, k, s, given in zip(
        out[1:3], weights.shape[2:], op.options["stride"], x.shape[2:], strict=True
    ):
        whole = (given - 1) * s + k
        total = max(0, whole - n) if op.options["padding"] == "SAME" else 0
        pads += [total // 2, whole - n - total // 2]
    t, b, left, right = pads
    deconv = ops.Deconv(
        [x],
        weights=np.ascontiguousarray(weights),
        bias=_bias(op, out[3], 3),
        stride=op.options["stride"],
        pads=(t, b, left, right),
        fn=r.activation(op),
    )
    r.finish(op, deconv)


def _dense(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    if op.name == "BATCH_MATMUL":
        matrix = floats(op.inputs[1])
        weights = matrix if op.options.get("adj_y") else matrix.T
        if op.options.get("adj_x"):
            raise Unsupported(op.label, "the first factor is transposed")
    else:
        weights = floats(op.inputs[1])
    x = r.as_source(x)
    columns = weights.shape[1]
    rows = x.size // columns
    if x.shape != (rows, columns):
        x = r.emit(ops.Reshape([x]), (rows, columns))
    bias = _bias(op, weights.shape[0])
    dense = ops.Dense([x], weights=np.ascontiguousarray(weights), bias=bias, fn=r.activation(op))
    if op.outputs[0].shape == (rows, weights.shape[0]):
        r.finish(op, dense)
    else:
        y = r.emit(dense, (rows, weights.shape[0]))
        y.source = op.outputs[0].index
        y.range = r.like(op.outputs[0]).range
        r.reshape_to(op, y)


def _pool(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    kernel = op.options["filter"]
    pool = ops.Pool(
        [x],
        how="max" if op.name == "MAX_POOL_2D" else "mean",
        kernel=kernel,
        stride=op.options["stride"],
        pads=_pads(op, (x.shape[2], x.shape[3]), kernel),
        fn=r.activation(op),
    )
    r.finish(op, pool)


_REDUCED: dict[str, ops.Reduction] = {
    "MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min",
}  # fmt: skip


def _reduce(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    rank = len(x.shape)
    const = op.const(1)
    assert const is not None
    axes = sorted({int(a) % rank for a in np.ravel(const)})
    if rank == 3 and axes == [1]:  # over the places of a one-dimensional map
        x, rank, axes = r.as_map(x), 4, [1, 2]
    ours = tuple(sorted(AXIS[a] for a in axes)) if rank == 4 else tuple(axes)
    reduced = ops.Reduce([x], how=_REDUCED[op.name], axes=ours)
    shape = tuple(1 if i in ours else n for i, n in enumerate(x.shape))
    if nchw(op.outputs[0].shape) == shape:
        r.finish(op, reduced)
    else:
        y = r.emit(reduced, shape)
        y.source = op.outputs[0].index if rank == 4 and ours == (2, 3) else None
        r.reshape_to(op, r.as_source(y))


def _softmax(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    axis = 1 if len(x.shape) == 4 else len(x.shape) - 1
    r.finish(op, ops.Softmax([x], beta=float(op.options.get("beta", 1.0)), axis=axis))


def _l2norm(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    r.finish(op, ops.L2Norm([x], axis=1 if len(x.shape) == 4 else len(x.shape) - 1))


HANDLERS: dict[str, Handler] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _dense,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    **dict.fromkeys(_REDUCED, _reduce),
    "SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2norm,
}
