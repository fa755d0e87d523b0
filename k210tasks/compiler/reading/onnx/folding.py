"""Nodes whose inputs are all constants, and what asks for shapes: computed while reading.

Exporters write the arithmetic on shapes into the model, and old ones weights that are turned or
scaled. What grows is bounded before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.reading.onnx.building import Building, axis_of
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.shape_laws import MOST_VALUES

Array = NDArray[Any]
Fold = Callable[..., Any]

#: ONNX's numbers of element types
_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
    9: np.bool_, 10: np.float32, 11: np.float32, 12: np.uint32, 13: np.uint64,
}  # fmt: skip


def _room(node: Node, *shape: int) -> tuple[int, ...]:
    if any(n < 0 for n in shape) or math.prod(shape) > MOST_VALUES:
        raise node.unsupported(f"it makes a constant of shape {list(shape)}")
    return tuple(shape)


def _list(a: Array) -> list[int]:
    return [int(n) for n in np.ravel(a)]


def _axes(node: Node, axes: Array | None, rank: int) -> tuple[int, ...]:
    given = node.wholes("axes") if axes is None else _list(axes)
    return tuple(axis_of(node, a, rank) for a in given or ())


def _cast(node: Node, x: Array) -> Array:
    kind = node.whole("to", 1)
    if kind not in _TYPES:
        raise node.unsupported(f"to is type {kind}")
    return x.astype(_TYPES[kind])


def _constant_of_shape(node: Node, shape: Array) -> Array:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    return np.full(_room(node, *_list(shape)), np.ravel(value)[0])


def _range(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    first, last, step = (np.ravel(a)[0].item() for a in (start, limit, delta))
    _room(node, max(0, math.ceil((float(last) - float(first)) / float(step))))
    return np.asarray(np.arange(first, last, step), start.dtype)


def _expand(node: Node, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, _room(node, *np.broadcast_shapes(x.shape, tuple(_list(shape)))))


def _tile(node: Node, x: Array, times: Array) -> Array:
    _room(node, *(n * t for n, t in zip(x.shape, _list(times), strict=True)))
    return np.tile(x, _list(times))


def reshaped(node: Node, given: tuple[int, ...], wanted: list[int]) -> tuple[int, ...]:
    """The shape that a Reshape to ``wanted`` (0: as it is, -1: what is left) gives."""
    shape = list(wanted)
    if not node.whole("allowzero", 0):
        for i, n in enumerate(shape):
            if n == 0:
                if i >= len(given):
                    raise node.unsupported(f"shape {wanted} of an input of shape {list(given)}")
                shape[i] = given[i]
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        size = math.prod(given)
        if rest <= 0 or size % rest:
            raise node.unsupported(f"shape {wanted} of an input of shape {list(given)}")
        shape[shape.index(-1)] = size // rest
    if any(n < 0 for n in shape) or math.prod(shape) != math.prod(given):
        raise node.unsupported(f"shape {wanted} of an input of shape {list(given)}")
    return tuple(shape)


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    return x.reshape(reshaped(node, x.shape, _list(shape)))


def _unsqueeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    count = len(node.wholes("axes") or []) if axes is None else axes.size
    return np.expand_dims(x, _axes(node, axes, x.ndim + count))


def _squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    given = _axes(node, axes, x.ndim)
    return np.squeeze(x, given or None)


def slices(
    node: Node, given: tuple[int, ...], lists: list[list[int] | None]
) -> tuple[list[int], list[int], list[int]]:
    """Begins, counts and steps of every axis; ``lists``: starts, ends, axes, steps."""
    starts, ends, axes, steps = lists
    if starts is None or ends is None:
        raise node.unsupported("it has no starts or no ends")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.unsupported("starts, ends, axes and steps differ in number")
    begin, count, step = [0] * len(given), list(given), [1] * len(given)
    for s, e, a, by in zip(starts, ends, axes, steps, strict=True):
        i = axis_of(node, a, len(given))
        if by == 0:
            raise node.unsupported("a step is 0")
        span = range(*slice(s, e, by).indices(given[i]))
        begin[i], count[i], step[i] = span.start, len(span), by
    return begin, count, step


def _slice(node: Node, x: Array, *more: Array | None) -> Array:
    if node.opset < 10:
        lists = [node.wholes(n) for n in ("starts", "ends", "axes")]
    else:
        lists = [None if a is None else _list(a) for a in more]
    begin, count, step = slices(node, x.shape, (lists + [None] * 4)[:4])
    for i, (b, n, s) in enumerate(zip(begin, count, step, strict=True)):
        x = np.take(x, b + s * np.arange(n), i)
    return x


def _gather(node: Node, x: Array, at: Array) -> Array:
    axis = axis_of(node, node.whole("axis", 0), x.ndim)
    _room(node, *x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    return np.take(x, at, axis)


def _concat(node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, axis_of(node, node.whole("axis", 0), parts[0].ndim))


def _pad(
    node: Node, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None
) -> Array:
    if node.text("mode", "constant") != "constant" or axes is not None:
        raise node.unsupported("a constant is padded by its edges, or along some axes only")
    n = _list(pads)
    pairs = list(zip(n[: x.ndim], n[x.ndim :], strict=True))
    _room(node, *(d + a + b for d, (a, b) in zip(x.shape, pairs, strict=True)))
    fill = 0 if value is None else np.ravel(value)[0]
    return np.pad(x, pairs, constant_values=fill)


def _reduced(of: Callable[..., Any]) -> Fold:
    def fold(node: Node, x: Array, axes: Array | None = None) -> Array:
        given = _axes(node, axes, x.ndim)
        if not given and node.whole("noop_with_empty_axes", 0):
            return x
        keep = bool(node.whole("keepdims", 1))
        return np.asarray(of(x, axis=given or None, keepdims=keep), x.dtype)

    return fold


def _joined(of: Callable[[Array, Array], Array]) -> Fold:
    def fold(node: Node, *parts: Array) -> Array:
        total = parts[0]
        for part in parts[1:]:
            _room(node, *np.broadcast_shapes(total.shape, part.shape))
            total = of(total, part)
        return total

    return fold


def _each(of: Callable[[Array], Array]) -> Fold:
    def fold(node: Node, x: Array) -> Array:
        return np.asarray(of(x), x.dtype)

    return fold


def _divided(a: Array, b: Array) -> Array:
    """Whole numbers are divided as C does, towards zero."""
    if a.dtype.kind in "iu":
        return np.asarray(np.sign(a) * np.sign(b) * (abs(a) // np.maximum(abs(b), 1)), a.dtype)
    return a / b


def _transpose(node: Node, x: Array) -> Array:
    return x.transpose(node.wholes("perm") or tuple(reversed(range(x.ndim))))


def _dequantized(node: Node, x: Array, scale: Array, zero: Array | None = None) -> Array:
    if x.dtype.kind not in "iu":
        raise node.unsupported(f"it reads {x.dtype.name} values")
    if node.whole("block_size", 0):
        raise node.unsupported("its scales are for blocks of values")
    if scale.size > 1:
        around = [1] * x.ndim
        around[axis_of(node, node.whole("axis", 1), x.ndim)] = -1
        scale = scale.reshape(around)
        zero = None if zero is None else zero.reshape(around)
    shifted = x.astype(np.float64) - (0 if zero is None else zero.astype(np.float64))
    return np.asarray(shifted * scale, np.float32)


#: op -> its value of the node and the values of its inputs, None for those left out
FOLDS: dict[str, Fold] = {
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Slice": _slice,
    "Gather": _gather,
    "Concat": _concat,
    "Pad": _pad,
    "Transpose": _transpose,
    "Identity": lambda node, x: x,
    "Flatten": lambda node, x: x.reshape(math.prod(x.shape[: node.whole("axis", 1)]), -1),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceMean": _reduced(np.mean),
    "Add": _joined(np.add),
    "Sub": _joined(np.subtract),
    "Mul": _joined(np.multiply),
    "Div": _joined(_divided),
    "Max": _joined(np.maximum),
    "Min": _joined(np.minimum),
    "Pow": _joined(np.power),
    "Mod": lambda node, a, b: _joined(np.fmod if node.whole("fmod", 0) else np.mod)(node, a, b),
    "Equal": _joined(np.equal),
    "Less": _joined(np.less),
    "Greater": _joined(np.greater),
    "And": _joined(np.logical_and),
    "Or": _joined(np.logical_or),
    "Not": lambda node, x: np.logical_not(x),
    "Where": lambda node, c, a, b: np.where(c, a, b),
    "Neg": _each(np.negative),
    "Abs": _each(np.abs),
    "Sqrt": _each(np.sqrt),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Floor": _each(np.floor),
    "Ceil": _each(np.ceil),
    "Reciprocal": _each(np.reciprocal),
    "DequantizeLinear": _dequantized,
}


def _constant(node: Node) -> Array:
    for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                       ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if name in node.attributes:
            return np.asarray(node.attributes[name], kind)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise node.unsupported("its value is no tensor of numbers")
    return value


def _shape(node: Node, r: Building) -> Array:
    shape = r.shape(node.inputs[0])
    return np.array(shape[slice(node.whole("start", 0), node.attributes.get("end"))], np.int64)


def fold(r: Building, node: Node) -> bool:
    """Whether nothing is left to compute of ``node``: its output is a constant from now on."""
    if node.domain or not node.outputs or not node.outputs[0]:
        return False
    if node.op == "Constant":
        value = _constant(node)
    elif node.op == "Shape" and node.inputs:
        value = _shape(node, r)
    elif node.op == "Size" and node.inputs:
        value = np.array(math.prod(r.shape(node.inputs[0])), np.int64)
    elif node.op in FOLDS and all(not n or n in r.constants for n in node.inputs):
        given = [r.constants[n] if n else None for n in node.inputs]
        if any(a is not None and a.dtype == object for a in given):
            return False
        try:
            value = np.asarray(FOLDS[node.op](node, *given))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise node.unsupported(f"its constants do not fit together ({error})") from error
    else:
        return False
    if value.dtype == np.float64:
        value = value.astype(np.float32)
    r.constants[node.outputs[0]] = value
    return True
