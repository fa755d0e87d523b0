"""The meaning of the graph: a plain numpy interpreter that every pass is tested against.

Float kinds run in float32. Ops on codes run on reals too: ``quantize`` rounds to the
codes of its output and ``dequantize`` maps them back, so a quantised graph shows the
error of its scales, not the arithmetic of the KPU, which belongs to the simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from k210tasks.compiler.forms import POOLS
from k210tasks.compiler.functions import JOINS, evaluate
from k210tasks.compiler.ir import Graph, Op, Tensor

Array = NDArray[Any]


def run(graph: Graph, x: Array, *, keep: bool = False) -> dict[Tensor, Array]:
    """The values of the outputs (``keep``: of every tensor) for input ``x``, IR layout."""
    values: dict[Tensor, Array] = {graph.input: np.asarray(x, np.float32)}
    last = {t: i for i, op in enumerate(graph.ops) for t in op.inputs}
    for i, op in enumerate(graph.ops):
        inputs = [t.value if t.value is not None else values[t] for t in op.inputs]
        result = KINDS[op.kind](op, *inputs)
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


def _fn(op: Op, y: Array) -> Array:
    return evaluate(op.attrs.get("fn", ()), np.ascontiguousarray(y, np.float32))


def windows(
    x: Array,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    """Views (..., rows, columns, kernel rows, kernel columns) of every window of ``x``."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(x, spans, axis=(-2, -1))
    return view[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def padded(x: Array, pads: tuple[int, int, int, int], value: float) -> Array:
    """``x`` with (top, bottom, left, right) more pixels of ``value``; negative crops."""
    t, b, left, r = pads
    h, w = x.shape[-2:]
    x = x[..., max(0, -t) : h - max(0, -b), max(0, -left) : w - max(0, -r)]
    edges = ((max(0, t), max(0, b)), (max(0, left), max(0, r)))
    return np.pad(x, ((0, 0),) * (x.ndim - 2) + edges, constant_values=value)


def correlate(x: Array, weights: Array, groups: int, **window: Any) -> Array:
    """(1, C, H, W) with (O, C/groups, kh, kw) kernels, no padding: (1, O, rows, columns)."""
    view = windows(x[0], weights.shape[2:], **window)
    out, per = weights.shape[0], weights.shape[0] // groups
    rows, columns = view.shape[1:3]
    if groups == 1:
        patches = view.transpose(0, 3, 4, 1, 2).reshape(-1, rows * columns)
        return (weights.reshape(out, -1) @ patches).reshape(1, out, rows, columns)
    view = view.reshape(groups, -1, *view.shape[1:])
    kernels = weights.reshape(groups, per, *weights.shape[1:])
    y = np.einsum("gcyxij,gocij->goyx", view, kernels, optimize=True)
    return y.reshape(1, out, rows, columns)


def _conv(op: Op, x: Array) -> Array:
    a = op.attrs
    x = padded(x, a["pads"], a.get("pad_value", 0.0))
    y = correlate(x, a["weights"], a["groups"], stride=a["stride"], dilation=a["dilation"])
    return _fn(op, y + a["bias"].reshape(1, -1, 1, 1))


def _deconv(op: Op, x: Array) -> Array:
    weights, (sy, sx) = op.attrs["weights"], op.attrs["stride"]
    out, _, kh, kw = weights.shape
    h, w = x.shape[2:]
    whole = np.zeros((out, (h - 1) * sy + kh, (w - 1) * sx + kw), np.float32)
    for i in range(kh):
        for j in range(kw):
            part = np.tensordot(weights[:, :, i, j], x[0], axes=1)
            whole[:, i : i + (h - 1) * sy + 1 : sy, j : j + (w - 1) * sx + 1 : sx] += part
    t, b, left, r = op.attrs["pads"]
    y = padded(whole[None], (-t, -b, -left, -r), 0.0)
    return _fn(op, y + op.attrs["bias"].reshape(1, -1, 1, 1))


def _dense(op: Op, x: Array) -> Array:
    return _fn(op, x @ op.attrs["weights"].T + op.attrs["bias"])


def _pool(op: Op, x: Array) -> Array:
    a = op.attrs
    if a["op"] == "max":
        y = windows(padded(x, a["pads"], -np.inf), a["kernel"], a["stride"]).max((-2, -1))
        return _fn(op, y)
    view = windows(padded(x, a["pads"], 0.0), a["kernel"], a["stride"])
    ones = padded(np.ones((1, 1, *x.shape[2:]), np.float32), a["pads"], 0.0)
    return _fn(op, view.sum((-2, -1)) / windows(ones, a["kernel"], a["stride"]).sum((-2, -1)))


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
        return view.max((-2, -1))
    if name == "mean":
        return view.mean((-2, -1))
    return view[..., 0, 1 if name == "right-top" else 0]


def _kpu_conv(op: Op, x: Array) -> Array:
    a = op.attrs
    weights = a["weights"]
    if weights.shape[2] == 3:
        x = padded(x, (1, 1, 1, 1), a["pad_value"])
    y = correlate(x, weights, x.shape[1] if a["depthwise"] else 1)
    return kpu_pool(_fn(op, y + a["bias"].reshape(1, -1, 1, 1)), a["pool"])


def _softmax(op: Op, x: Array) -> Array:
    axis = op.attrs["axis"]
    e = np.exp((x - x.max(axis, keepdims=True)) * np.float32(op.attrs["beta"]))
    return e / e.sum(axis, keepdims=True)


def _l2norm(op: Op, x: Array) -> Array:
    return x / np.sqrt(np.maximum(np.square(x).sum(op.attrs["axis"], keepdims=True), 1e-10))


def _slice(op: Op, x: Array) -> Array:
    spans = zip(op.attrs["begin"], op.attrs["strides"], op.output.shape, strict=True)
    return x[tuple(slice(b, b + (n - 1) * s + 1, s) for b, s, n in spans)]


def _resize_axis(op: Op, n: int, out: int) -> Array:
    """Where each output coordinate of one axis lies in the input, as TFLite has it."""
    at = np.arange(out, dtype=np.float32) + np.float32(0.5 if op.attrs["half_pixel"] else 0)
    if op.attrs["align_corners"] and out > 1:
        return at * np.float32((n - 1) / (out - 1))
    return at * np.float32(n / out)


def nearest(op: Op, n: int, out: int) -> NDArray[np.int64]:
    """Which of ``n`` pixels of one axis a resize to ``out`` takes, as TFLite has it."""
    at = _resize_axis(op, n, out)
    at = np.floor(at + np.float32(0.5)) if op.attrs["align_corners"] else np.floor(at)
    return np.minimum(at, n - 1).astype(np.int64)


def _resize(op: Op, x: Array) -> Array:
    y, xs = (_resize_axis(op, x.shape[i], op.output.shape[i]) for i in (2, 3))
    h, w = x.shape[2:]
    if op.attrs["mode"] == "nearest":
        rows, columns = (nearest(op, x.shape[i], op.output.shape[i]) for i in (2, 3))
        return x[:, :, rows][:, :, :, columns]
    if op.attrs["half_pixel"]:
        y, xs = y - np.float32(0.5), xs - np.float32(0.5)
    for axis, at, n in ((2, y, h), (3, xs, w)):
        low = np.clip(np.floor(at).astype(int), 0, n - 1)
        high = np.clip(np.ceil(at).astype(int), 0, n - 1)
        part = np.clip(at - np.floor(at), 0, 1).astype(np.float32)
        part = part.reshape((-1, 1) if axis == 2 else (1, -1))
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def _quantize(op: Op, x: Array) -> Array:
    quant = op.output.quant
    if quant is None and op.attrs.get("part") == "fine":
        return np.zeros_like(x)  # nothing is left before anything is rounded
    if "clamp" in op.attrs:
        x = np.clip(x, *op.attrs["clamp"])
    return x if quant is None else quant.decode(quant.encode(x))


_REDUCE: dict[str, Callable[..., Array]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
}

KINDS: dict[str, Callable[..., Array]] = {
    "conv": _conv,
    "deconv": _deconv,
    "dense": _dense,
    "pool": _pool,
    "binary": lambda op, a, b: _fn(op, JOINS[op.attrs["op"]](a, b)),
    "map": _fn,
    "reduce": lambda op, x: _REDUCE[op.attrs["op"]](x, axis=op.attrs["axes"], keepdims=True),
    "softmax": _softmax,
    "l2norm": _l2norm,
    "pad": lambda op, x: np.pad(x, op.attrs["pads"], constant_values=op.attrs["value"]),
    "concat": lambda op, *parts: np.concatenate(parts, op.attrs["axis"]),
    "reshape": lambda op, x: x.reshape(op.output.shape),
    "transpose": lambda op, x: x.transpose(op.attrs["perm"]),
    "slice": _slice,
    "resize": _resize,
    "kpu_conv": _kpu_conv,
    "kpu_concat": lambda op, *parts: np.concatenate(parts, 1),
    "kpu_part": lambda op, x: x[:, op.attrs["first"] : op.attrs["first"] + op.output.shape[1]],
    "upload": lambda op, x: x,
    "quantize": _quantize,
    "dequantize": lambda op, x: -x if op.attrs.get("negated") else x,
    "requantize": lambda op, x: _quantize(op, _fn(op, x)),
    "turn": lambda op, x: x,
    "add_padding": lambda op, x: np.repeat(x, 16, 1).reshape(op.output.shape),
    "remove_padding": lambda op, x: x[:, :, op.attrs["pixel"][0], op.attrs["pixel"][1]],
    "unary": lambda op, x: evaluate(((op.attrs["op"],),), x),
}
