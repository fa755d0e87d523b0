"""The meaning of the graph: a plain numpy interpreter that every pass is tested against.

Float kinds run in float32. Ops on codes run on reals too: ``quantize`` rounds to the
codes of its output and ``dequantize`` maps them back, so a quantised graph shows the
error of its scales, not the arithmetic of the KPU, which belongs to the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.forms import POOLS
from k210tasks.compiler.functions import JOINS, Fn, evaluate
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.ops import Pads, Pair

Array = NDArray[Any]


def run(graph: Graph, x: Array, *, keep: bool = False) -> dict[Tensor, Array]:
    """The values of the outputs (``keep``: of every tensor) for input ``x``, IR layout."""
    values: dict[Tensor, Array] = {graph.input: np.asarray(x, np.float32)}
    last = {t: i for i, op in enumerate(graph.ops) for t in op.inputs}
    for i, op in enumerate(graph.ops):
        inputs = [t.value if t.value is not None else values[t] for t in op.inputs]
        result = compute(op, *inputs)
        for tensor in op.outputs:
            values[tensor] = result
        if not keep:
            for tensor in op.inputs:
                if last[tensor] == i and tensor not in graph.outputs:
                    values.pop(tensor, None)
    if keep:
        return values
    return {t: t.value if t.value is not None else values[t] for t in graph.outputs}


def outputs(graph: Graph, x: Array) -> list[Array]:
    """The outputs in the graph's order, IR layout, float32."""
    values = run(graph, x)
    return [values[t] for t in graph.outputs]


def compute(op: Op, *inputs: Array) -> Array:
    """What one op makes of its inputs: its output, IR layout."""
    return np.asarray(KINDS[type(op)](op, *inputs))


def _fn(fn: Fn, y: Array) -> Array:
    return evaluate(fn, np.ascontiguousarray(y, np.float32))


def windows(
    x: Array,
    kernel: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Array:
    """Views (..., rows, columns, kernel rows, kernel columns) of every window of ``x``."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, spans, axis=(-2, -1))
    return view[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def padded(x: Array, pads: Pads, value: float) -> Array:
    """``x`` with (top, bottom, left, right) more pixels of ``value``; negative crops."""
    t, b, left, r = pads
    h, w = x.shape[-2:]
    x = x[..., max(0, -t) : h - max(0, -b), max(0, -left) : w - max(0, -r)]
    edges = ((max(0, t), max(0, b)), (max(0, left), max(0, r)))
    return np.pad(x, ((0, 0),) * (x.ndim - 2) + edges, constant_values=value)


def correlate(
    x: Array, weights: Array, groups: int, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Array:
    """(1, C, H, W) with (O, C/groups, kh, kw) kernels, no padding: (1, O, rows, columns)."""
    kh, kw = weights.shape[2:]
    view = windows(x[0], (kh, kw), stride, dilation)
    out, per = weights.shape[0], weights.shape[0] // groups
    rows, columns = view.shape[1:3]
    if groups == 1:
        patches = view.transpose(0, 3, 4, 1, 2).reshape(-1, rows * columns)
        return (weights.reshape(out, -1) @ patches).reshape(1, out, rows, columns)
    view = view.reshape(groups, -1, *view.shape[1:])
    kernels = weights.reshape(groups, per, *weights.shape[1:])
    y = np.einsum("gcyxij,gocij->goyx", view, kernels, optimize=True)
    return np.reshape(y, (1, out, rows, columns))


def _with_bias(y: Array, bias: Array) -> Array:
    return y + bias.reshape(1, -1, 1, 1)


def _conv(op: ops.Conv, x: Array) -> Array:
    y = correlate(padded(x, op.pads, 0.0), op.weights, op.groups, op.stride, op.dilation)
    return _fn(op.fn, _with_bias(y, op.bias))


def _deconv(op: ops.Deconv, x: Array) -> Array:
    weights, (sy, sx) = op.weights, op.stride
    out, _, kh, kw = weights.shape
    h, w = x.shape[2:]
    whole = np.zeros((out, (h - 1) * sy + kh, (w - 1) * sx + kw), np.float32)
    for i in range(kh):
        for j in range(kw):
            part = np.tensordot(weights[:, :, i, j], x[0], axes=1)
            whole[:, i : i + (h - 1) * sy + 1 : sy, j : j + (w - 1) * sx + 1 : sx] += part
    t, b, left, r = op.pads
    return _fn(op.fn, _with_bias(padded(whole[None], (-t, -b, -left, -r), 0.0), op.bias))


def _dense(op: ops.Dense, x: Array) -> Array:
    return _fn(op.fn, x @ op.weights.T + op.bias)


def _pool(op: ops.Pool, x: Array) -> Array:
    if op.how == "max":
        y = windows(padded(x, op.pads, -np.inf), op.kernel, op.stride).max((-2, -1))
        return _fn(op.fn, y)
    view = windows(padded(x, op.pads, 0.0), op.kernel, op.stride)
    ones = padded(np.ones((1, 1, *x.shape[2:]), np.float32), op.pads, 0.0)
    count = windows(ones, op.kernel, op.stride).sum((-2, -1))
    return _fn(op.fn, view.sum((-2, -1)) / count)


def kpu_pool(y: Array, pool: int) -> Array:
    """The pool stage on reals (reference, section 1.5); means are not floored."""
    name, size, stride = POOLS[pool]
    h, w = y.shape[2:]
    if stride == 1 and size == 2:
        y = np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
    else:
        y = y[:, :, : h // stride * stride, : w // stride * stride]
    view = windows(y, (size, size), (stride, stride))
    if name == "max":
        return np.asarray(view.max((-2, -1)))
    if name == "mean":
        return np.asarray(view.mean((-2, -1)))
    return view[..., 0, 1 if name == "right-top" else 0]


def _kpu_conv(op: ops.KpuConv, x: Array) -> Array:
    if op.weights.shape[2] == 3:
        x = padded(x, (1, 1, 1, 1), op.pad_value)
    y = correlate(x, op.weights, x.shape[1] if op.depthwise else 1)
    return kpu_pool(_fn(op.fn, _with_bias(y, op.bias)), op.pool)


def _softmax(op: ops.Softmax, x: Array) -> Array:
    e = np.exp((x - x.max(op.axis, keepdims=True)) * np.float32(op.beta))
    return np.asarray(e / e.sum(op.axis, keepdims=True))


def _l2norm(op: ops.L2Norm, x: Array) -> Array:
    power = np.square(x).sum(op.axis, keepdims=True)
    return np.asarray(x / np.sqrt(np.maximum(power, 1e-10)))


def _slice(op: ops.Slice, x: Array) -> Array:
    spans = zip(op.begin, op.strides, op.output.shape, strict=True)
    return x[tuple(slice(b, b + (n - 1) * s + 1, s) for b, s, n in spans)]


def _resize_axis(op: ops.Resize, n: int, out: int) -> Array:
    """Where each output coordinate of one axis lies in the input, as TFLite has it."""
    at = np.arange(out, dtype=np.float32) + np.float32(0.5 if op.half_pixel else 0)
    if op.align_corners and out > 1:
        return at * np.float32((n - 1) / (out - 1))
    return at * np.float32(n / out)


def nearest(op: ops.Resize, n: int, out: int) -> NDArray[np.int64]:
    """Which of ``n`` pixels of one axis a resize to ``out`` takes, as TFLite has it."""
    at = _resize_axis(op, n, out)
    at = np.floor(at + np.float32(0.5)) if op.align_corners else np.floor(at)
    return np.minimum(at, n - 1).astype(np.int64)


def _resize(op: ops.Resize, x: Array) -> Array:
    y, xs = (_resize_axis(op, x.shape[i], op.output.shape[i]) for i in (2, 3))
    h, w = x.shape[2:]
    if op.mode == "nearest":
        rows, columns = (nearest(op, x.shape[i], op.output.shape[i]) for i in (2, 3))
        return x[:, :, rows][:, :, :, columns]
    if op.half_pixel:
        y, xs = y - np.float32(0.5), xs - np.float32(0.5)
    for axis, at, n in ((2, y, h), (3, xs, w)):
        low = np.clip(np.floor(at).astype(int), 0, n - 1)
        high = np.clip(np.ceil(at).astype(int), 0, n - 1)
        part = np.clip(at - np.floor(at), 0, 1).astype(np.float32)
        part = part.reshape((-1, 1) if axis == 2 else (1, -1))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def _rounded(tensor: Tensor, x: Array) -> Array:
    return x if tensor.quant is None else tensor.quant.decode(tensor.quant.encode(x))


def _quantize(op: ops.Quantize, x: Array) -> Array:
    if op.output.quant is None and op.part == "fine":
        return np.zeros_like(x)  # nothing is left before anything is rounded
    return _rounded(op.output, x if op.clamp is None else np.clip(x, *op.clamp))


def _binary(op: ops.Binary, a: Array, b: Array) -> Array:
    return _fn(op.fn, JOINS[op.how](a, b))


def _concat(op: ops.Concat, *parts: Array) -> Array:
    return np.concatenate(parts, op.axis)


_REDUCE: dict[ops.Reduction, Callable[..., Array]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
}


Kind = TypeVar("Kind", bound=Op)
_Compute = Callable[..., Array]


def _of(kind: type[Kind], compute: Callable[[Kind, Array], Array]) -> tuple[type[Op], _Compute]:
    """A row of :data:`KINDS`, of a kind with one input."""
    return kind, compute


#: kind -> what it computes, of the op and the values of its inputs
KINDS: dict[type[Op], _Compute] = dict((
    _of(ops.Conv, _conv),
    _of(ops.Deconv, _deconv),
    _of(ops.Dense, _dense),
    _of(ops.Pool, _pool),
    (ops.Binary, _binary),
    _of(ops.Map, lambda op, x: _fn(op.fn, x)),
    _of(ops.Reduce, lambda op, x: _REDUCE[op.how](x, axis=op.axes, keepdims=True)),
    _of(ops.Softmax, _softmax),
    _of(ops.L2Norm, _l2norm),
    _of(ops.Pad, lambda op, x: np.pad(x, op.pads, constant_values=op.value)),
    (ops.Concat, _concat),
    _of(ops.Reshape, lambda op, x: x.reshape(op.output.shape)),
    _of(ops.Transpose, lambda op, x: x.transpose(op.perm)),
    _of(ops.Slice, _slice),
    _of(ops.Resize, _resize),
    _of(ops.KpuConv, _kpu_conv),
    (ops.KpuConcat, lambda op, *parts: np.concatenate(parts, 1)),
    _of(ops.KpuPart, lambda op, x: x[:, op.first : op.first + op.output.shape[1]]),
    _of(ops.Upload, lambda op, x: x),
    _of(ops.Quantize, _quantize),
    _of(ops.Dequantize, lambda op, x: -x if op.negated else x),
    _of(ops.Requantize, lambda op, x: _rounded(op.output, _fn(op.fn, x))),
    _of(ops.Turn, lambda op, x: x),
    _of(ops.AddPadding, lambda op, x: np.repeat(x, 16, 1).reshape(op.output.shape)),
    _of(ops.RemovePadding, lambda op, x: x[:, :, op.pixel[0], op.pixel[1]]),
    _of(ops.Unary, lambda op, x: evaluate(((op.how,),), x)),
))  # fmt: skip
