"""Dense layers, normalisation, reductions and what works along one axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building, axis_of, fits
from k210tasks.compiler.reading.onnx.nodes import Node

Floats = NDArray[np.float32]


def _dense(r: Building, node: Node, x: Tensor, weights: Floats, bias: Floats) -> None:
    """``x`` (..., I) times ``weights`` (O, I), plus ``bias`` (O,)."""
    columns = weights.shape[1]
    if not x.shape or x.shape[-1] != columns:
        raise node.unsupported(
            f"input of shape {list(x.shape)} and weights for {columns} values do not fit"
        )
    rows, out = x.size // columns, fits(node, (*x.shape[:-1], len(weights)))
    if x.shape != (rows, columns):
        x = r.emit(ops.Reshape([x]), (rows, columns))
    dense = ops.Dense([x], weights=np.ascontiguousarray(weights), bias=bias)
    if out == (rows, len(weights)):
        r.put(node, dense, out)
        return
    y = r.emit(dense, (rows, len(weights)))
    if len(out) < 4:  # its values lie as those of the output do
        y.source = r.numbers.get(node.outputs[0])
    r.put(node, ops.Reshape([y]), out)


def gemm(r: Building, node: Node) -> None:
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    weights = r.floats(node, 1, "the second factor")
    if weights.ndim != 2:
        raise node.unsupported(f"the second factor has shape {list(weights.shape)}")
    weights = weights * np.float32(alpha)
    if not node.whole("transB", 0):
        weights = weights.T
    x = r.tensor(node.inputs[0])
    if len(x.shape) != 2:
        raise node.unsupported(f"the first factor has shape {list(x.shape)}")
    if node.whole("transA", 0):
        x = r.turned(x, (1, 0))
    bias = np.zeros(len(weights), np.float32)
    if node.input(2):
        given = r.floats(node, 2, "the third input") * np.float32(beta)
        if given.ndim > 1 and math.prod(given.shape[:-1]) > 1:
            raise node.unsupported(f"the third input has shape {list(given.shape)}")
        if given.size not in (1, len(weights)):
            raise node.unsupported(f"the third input has {given.size} values")
        bias = bias + given.ravel()
    _dense(r, node, x, weights, bias)


def matmul(r: Building, node: Node) -> None:
    first = node.inputs[0] in r.constants
    if first == (node.inputs[1] in r.constants):
        raise node.unsupported(
            "both factors are computed",
            "the layers of the K210 multiply by constants: products of two maps, as attention has "
            "them, cannot be carried",
        )
    matrix = r.floats(node, 0 if first else 1, "the constant factor")
    while matrix.ndim > 2 and matrix.shape[0] == 1:
        matrix = matrix[0]
    if first:
        _matrix_first(r, node, matrix)
        return
    if matrix.ndim == 1:
        raise node.unsupported("the constant factor is a vector", "give it two dimensions")
    if matrix.ndim != 2:
        raise node.unsupported(f"the constant factor has shape {list(matrix.shape)}")
    _dense(r, node, r.tensor(node.inputs[0]), matrix.T, np.zeros(matrix.shape[1], np.float32))


def _matrix_first(r: Building, node: Node, matrix: Floats) -> None:
    """Constant (O, I) times ``x`` (..., I, n), whose columns are turned into rows and back."""
    x = r.tensor(node.inputs[1])
    rank = len(x.shape)
    if matrix.ndim != 2 or rank < 2 or x.shape[-2] != matrix.shape[1]:
        raise node.unsupported(
            f"factors of shapes {list(r.shape(node.inputs[0]))} and {list(x.shape)}"
        )
    swap = (*range(rank - 2), rank - 1, rank - 2)
    turned = r.turned(x, swap)
    rows = turned.size // matrix.shape[1]
    flat = r.emit(ops.Reshape([turned]), (rows, matrix.shape[1]))
    bias = np.zeros(len(matrix), np.float32)
    y = r.emit(ops.Dense([flat], weights=matrix, bias=bias), (rows, len(matrix)))
    back = r.emit(ops.Reshape([y]), (*turned.shape[:-1], len(matrix)))
    shape = tuple(back.shape[p] for p in swap)
    r.put(node, ops.Transpose([back], perm=swap), fits(node, shape))


# -- normalisation


def _values(r: Building, node: Node, i: int, what: str, count: int) -> Floats:
    value = r.floats(node, i, what)
    if value.size != count:
        raise node.unsupported(f"{what} has {value.size} values for {count} channels")
    return value.reshape(count)


def batch_norm(r: Building, node: Node) -> None:
    of = r.operands(node, node.inputs[:1])
    x = of.tensors[0]
    if len(x.shape) < 2:
        raise node.unsupported(f"the input has shape {list(x.shape)}")
    names = ("the scale", "the bias", "the mean", "the variance")
    scale, bias, mean, var = (_values(r, node, i, n, x.shape[1]) for i, n in enumerate(names, 1))
    factor = scale / np.sqrt(var.astype(np.float64) + node.real("epsilon", 1e-5))
    offset = bias - mean * factor
    _affine(r, node, x, factor, offset, row=of.row)


def _affine(
    r: Building, node: Node, x: Tensor, factor: NDArray[np.floating], offset: NDArray[np.floating],
    *, row: bool, axis: int = 1,
) -> None:  # fmt: skip
    """``x * factor + offset`` by index of an axis, as the output."""
    around = tuple(-1 if i == axis else 1 for i in range(len(x.shape)))

    def constant(values: NDArray[np.floating], what: str) -> Tensor:
        value = values.astype(np.float32).reshape(around)
        if not np.isfinite(value).all():
            raise node.unsupported(f"its {what} is no finite number of float32")
        return Tensor(f"{node.title}/{what}", value.shape, value=value)

    y = r.emit(ops.Binary([x, constant(factor, "scale")], how="mul"), x.shape)
    r.put(node, ops.Binary([y, constant(offset, "bias")], how="add"), x.shape, row=row)


def _centred(r: Building, node: Node, x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    """Values less their mean over axes, by their deviation."""
    one = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    mean = r.emit(ops.Reduce([x], how="mean", axes=axes), one)
    less = r.emit(ops.Binary([x, mean], how="sub"), x.shape)
    squares = r.emit(ops.Map([less], fn=(("square",),)), x.shape)
    var = r.emit(ops.Reduce([squares], how="mean", axes=axes), one)
    factor = r.emit(ops.Map([var], fn=(("add", epsilon), ("rsqrt",))), one)
    return r.emit(ops.Binary([less, factor], how="mul"), x.shape)


def instance_norm(r: Building, node: Node) -> None:
    x, row = r.map(node), len(r.shape(node.inputs[0])) == 3
    scale, bias = (
        _values(r, node, i, n, x.shape[1]) for i, n in ((1, "the scale"), (2, "the bias"))
    )
    y = _centred(r, node, x, (2, 3), node.real("epsilon", 1e-5))
    _affine(r, node, y, scale, bias, row=row)


def group_norm(r: Building, node: Node) -> None:
    """Groups of channels become the channels of a taller map, which is centred and turned back."""
    x, row = r.map(node), len(r.shape(node.inputs[0])) == 3
    _, channels, height, width = x.shape
    groups = node.whole("num_groups", 0)
    if groups < 1 or channels % groups:
        raise node.unsupported(f"num_groups is {groups} for {channels} channels")
    each = channels // groups
    # Until opset 21 scale and bias are one a group.
    times = each if node.opset < 21 else 1
    scale, bias = (
        np.repeat(_values(r, node, i, what, channels // times), times)
        for i, what in ((1, "the scale"), (2, "the bias"))
    )
    tall = r.emit(ops.Reshape([x]), (1, groups, each * height, width))
    y = _centred(r, node, tall, (2, 3), node.real("epsilon", 1e-5))
    _affine(r, node, r.emit(ops.Reshape([y]), x.shape), scale, bias, row=row)


def layer_norm(r: Building, node: Node) -> None:
    x = r.tensor(node.inputs[0])
    axis = axis_of(node, node.whole("axis", -1), len(x.shape))
    y = _centred(r, node, x, tuple(range(axis, len(x.shape))), node.real("epsilon", 1e-5))
    shape = x.shape[axis:]
    for i, how in ((1, "mul"), (2, "add")):
        if not node.input(i):
            continue
        value = r.floats(node, i, "the scale" if i == 1 else "the bias")
        if np.broadcast_shapes(value.shape, shape) != shape:
            raise node.unsupported(f"scale or bias has shape {list(value.shape)}")
        value = value.reshape((1,) * (len(x.shape) - value.ndim) + value.shape)
        other = Tensor(node.inputs[i], value.shape, value=value)
        arithmetic: ops.Arithmetic = "mul" if how == "mul" else "add"
        y = r.emit(ops.Binary([y, other], how=arithmetic), x.shape)
    r.hold(node, y)


def lp_norm(r: Building, node: Node) -> None:
    of = r.operands(node, node.inputs[:1])
    x = of.tensors[0]
    if node.whole("p", 2) != 2:
        raise node.unsupported(f"p is {node.whole('p', 2)}", "use p=2")
    axis = of.axis(axis_of(node, node.whole("axis", -1), of.rank))
    r.put_like(node, ops.L2Norm([x], axis=axis), of, x.shape)


# -- along axes

#: op -> what is done before, how values are joined, what is done after
_REDUCED: dict[str, tuple[Fn, ops.Reduction, Fn]] = {
    "ReduceMean": ((), "mean", ()),
    "ReduceSum": ((), "sum", ()),
    "ReduceMax": ((), "max", ()),
    "ReduceMin": ((), "min", ()),
    "ReduceL1": ((("abs",),), "sum", ()),
    "ReduceL2": ((("square",),), "sum", (("sqrt",),)),
    "ReduceSumSquare": ((("square",),), "sum", ()),
    "ReduceLogSum": ((), "sum", (("log",),)),
    "ReduceLogSumExp": ((("exp",),), "sum", (("log",),)),
}


def _axes(r: Building, node: Node, rank: int) -> list[int]:
    from_input = node.opset >= (13 if node.op == "ReduceSum" else 18)
    given = r.wholes(node, 1, "axes") if from_input else node.wholes("axes")
    if not given:
        return [] if node.whole("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({axis_of(node, a, rank) for a in given})


def reduce(r: Building, node: Node) -> None:
    of = r.operands(node, node.inputs[:1])
    x = of.tensors[0]
    before, how, after = _REDUCED[node.op]
    axes = _axes(r, node, of.rank)
    given = r.shape(node.inputs[0])
    kept = tuple(1 if i in axes else n for i, n in enumerate(given))
    out = (
        kept
        if node.whole("keepdims", 1)
        else tuple(n for i, n in enumerate(given) if i not in axes)
    )
    if before:
        x = r.emit(ops.Map([x], fn=before), x.shape)
    ours = {of.axis(a) for a in axes}
    many = tuple(sorted(a for a in ours if x.shape[a] > 1))
    if of.row and 3 in many:
        many = tuple(sorted({*many, 2}))  # as over whole maps
    if many:
        shape = tuple(1 if i in many else n for i, n in enumerate(x.shape))
        x = r.emit(ops.Reduce([x], how=how, axes=many), shape)
        if not after and len(x.shape) == 4 and many == (2, 3):
            x.source = r.numbers.get(node.outputs[0])
    if after:
        x = r.emit(ops.Map([x], fn=after), x.shape)
    if of.row and len(out) == 3:
        r.hold(node, x, row=True)
    elif x.shape == out:
        r.hold(node, x)
    else:
        r.put(node, ops.Reshape([x]), out)


def softmax(r: Building, node: Node) -> None:
    new = node.opset >= 13
    given = r.shape(node.inputs[0])
    axis = axis_of(node, node.whole("axis", -1 if new else 1), len(given))
    of = r.operands(node, node.inputs[:1])
    x, flat = of.tensors[0], not new and math.prod(given[axis + 1 :]) > 1
    ours = of.axis(axis)
    if flat:  # over all axes from that one on
        x = r.tensor(node.inputs[0])
        shape = (math.prod(given[:axis]), math.prod(given[axis:]))
        x, ours = r.emit(ops.Reshape([x]), shape), 1
    y = r.emit(ops.Softmax([x], beta=1.0, axis=ours), x.shape)
    if node.op == "LogSoftmax":
        y = r.emit(ops.Map([y], fn=(("log",),)), x.shape)
    if flat:
        r.put(node, ops.Reshape([y]), given)
    else:
        r.hold(node, y, row=of.row)


HANDLERS: dict[str, Callable[[Building, Node], None]] = {
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "LpNormalization": lp_norm,
    **dict.fromkeys(_REDUCED, reduce),
    "Softmax": softmax,
    "LogSoftmax": softmax,
}
