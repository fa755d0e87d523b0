"""TFLite to the compiler's graph: one function a kind of op, nothing optimised here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.constraints import SourceOp, SourceTensor, violations
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Graph, Op, Tensor, nchw, nhwc, to_nchw
from k210tasks.compiler.problems import BadModel, CompileError, Unsupported
from k210tasks.compiler.source import Source, real

_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = (0, 3, 1, 2)
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # TFLite axis of a feature map -> ours

_FUSED: dict[str, Fn] = {
    "NONE": (),
    "RELU": (functions.RELU,),
    "RELU6": (functions.RELU6,),
    "RELU_N1_TO_1": (functions.RELU_N1_TO_1,),
}


class UnsupportedOps(CompileError):
    """Every op of the model that is not taken, each with its reasons."""

    def __init__(self, found: list[tuple[SourceOp, list[str]]]):
        self.found = found
        lines = [f"{op.label}: {reason}" for op, reasons in found for reason in reasons]
        super().__init__("the model cannot be compiled:\n  " + "\n  ".join(lines))


class SeveralInputs(CompileError):
    """No K210 runtime feeds more than one input."""

    def __init__(self, names: list[str]):
        super().__init__(
            f"the model has {len(names)} inputs ({', '.join(names)}); "
            "K210 runtimes feed exactly one: join them into one tensor and split it in the model"
        )


def load(tflite: bytes | Source) -> Graph:
    """The graph of a TFLite file (or what was read of it); all unsupported ops are named at once.

    Raises :class:`BadModel`, :class:`SeveralInputs` or :class:`UnsupportedOps`.
    """
    source = tflite if isinstance(tflite, Source) else Source(tflite)
    if len(source.inputs) != 1:
        raise SeveralInputs([t.name for t in source.inputs])
    found = [(op, reasons) for op in source.ops if (reasons := violations(op))]
    if found:
        raise UnsupportedOps(found)
    return _Reader(source).graph()


class _Reader:
    def __init__(self, source: Source):
        self.source = source
        self.values: dict[int, Tensor] = {}
        self.ops: list[Op] = []
        self.label = ""

    def graph(self) -> Graph:
        start = self.source.inputs[0]
        if start.dynamic:
            raise BadModel(
                f"input {start.name!r} has no fixed shape; convert the model with a fixed one"
            )
        if start.shape[:1] != (1,):
            raise BadModel(
                f"input {start.name!r} has shape {list(start.shape)}; the batch must be 1"
            )
        self.values[start.index] = self._like(start)
        for op in self.source.ops:
            self.label = op.label
            try:
                HANDLERS[op.name](self, op)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise BadModel(
                    f"{op.label} is malformed ({type(error).__name__}: {error})"
                ) from error
        outputs = [self.get(t) for t in self.source.outputs]
        graph = Graph([self.values[start.index]], outputs, self.ops)
        graph.sort()
        return graph

    # -- tensors

    def _like(self, t: SourceTensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """A new tensor holding what ``t`` holds."""
        out = Tensor(t.name, nchw(t.shape) if shape is None else shape, source=t.index)
        if t.scale is not None and t.zero_point is not None and t.type in ("INT8", "UINT8"):
            codes = (-128, 127) if t.type == "INT8" else (0, 255)
            low, high = ((c - t.zero_point[0]) * t.scale[0] for c in codes)
            out.range = (float(low), float(high))
        return out

    def get(self, t: SourceTensor | None) -> Tensor:
        assert t is not None
        if t.index not in self.values:
            if t.value is None:
                raise BadModel(f"tensor {t.name!r} is read by {self.label} before it is written")
            value = to_nchw(real(t))
            self.values[t.index] = Tensor(t.name, value.shape, value=value, source=t.index)
        return self.values[t.index]

    def emit(
        self, kind: str, inputs: list[Tensor], shape: tuple[int, ...], /, **attrs: Any
    ) -> Tensor:
        name = f"{inputs[0].name}/{kind}"
        out = Tensor(name, tuple(int(n) for n in shape))
        self.ops.append(Op(kind, inputs, [out], attrs, (self.label,)))
        return out

    def finish(self, op: SourceOp, kind: str, inputs: list[Tensor], /, **attrs: Any) -> None:
        """The last op of a source op: it writes the source op's output."""
        out = self._like(op.outputs[0])
        self.ops.append(Op(kind, inputs, [out], attrs, (self.label,)))
        self.values[op.outputs[0].index] = out

    def as_source(self, x: Tensor) -> Tensor:
        """``x`` with its elements in TFLite's order."""
        if len(x.shape) != 4:
            return x
        if x.value is not None:
            value = x.value.transpose(_TO_NHWC)
            return Tensor(x.name, value.shape, value=value)
        return self.emit("transpose", [x], nhwc(x.shape), perm=_TO_NHWC)

    def reshape_to(self, op: SourceOp, x: Tensor, which: int = 0) -> None:
        """Write ``x``, in TFLite's order, reshaped, as an output of ``op``."""
        target = op.outputs[which]
        out = self._like(target)
        if len(target.shape) == 4:
            flat = self.emit("reshape", [x], target.shape)
            self.ops.append(Op("transpose", [flat], [out], {"perm": _TO_NCHW}, (self.label,)))
        else:
            self.ops.append(Op("reshape", [x], [out], {}, (self.label,)))
        self.values[target.index] = out

    def activation(self, op: SourceOp) -> Fn:
        return _FUSED[op.options.get("activation", "NONE")]


def _floats(t: SourceTensor | None) -> NDArray[np.float32]:
    assert t is not None
    return real(t).astype(np.float32)


def _pads(
    op: SourceOp, size: tuple[int, int], kernel: tuple[int, int]
) -> tuple[int, int, int, int]:
    """TFLite's padding (top, bottom, left, right) for effective ``kernel`` on ``size``."""
    if op.options["padding"] == "VALID":
        return (0, 0, 0, 0)
    out: list[int] = []
    for n, k, s in zip(size, kernel, op.options["stride"], strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + k - n)
        out += [total // 2, total - total // 2]
    return (out[0], out[1], out[2], out[3])


def _conv(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    kernel = _floats(op.inputs[1])
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
    r.finish(
        op,
        "conv",
        [x],
        weights=np.ascontiguousarray(weights),
        bias=_bias(op, weights.shape[0]),
        groups=groups,
        stride=op.options["stride"],
        dilation=dilation,
        pads=_pads(op, (x.shape[2], x.shape[3]), effective),
        fn=r.activation(op),
    )


def _bias(op: SourceOp, count: int) -> NDArray[np.float32]:
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    return np.zeros(count, np.float32) if bias is None else _floats(bias).reshape(count)


def _transpose_conv(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[2])
    weights = _floats(op.inputs[1]).transpose(0, 3, 1, 2)
    out = op.outputs[0].shape
    pads: list[int] = []
    for n, k, s, given in zip(
        out[1:3], weights.shape[2:], op.options["stride"], x.shape[2:], strict=True
    ):
        whole = (given - 1) * s + k
        total = max(0, whole - n) if op.options["padding"] == "SAME" else 0
        pads += [total // 2, whole - n - total // 2]
    bias = op.inputs[3] if len(op.inputs) > 3 else None
    r.finish(
        op,
        "deconv",
        [x],
        weights=np.ascontiguousarray(weights),
        bias=np.zeros(out[3], np.float32) if bias is None else _floats(bias),
        stride=op.options["stride"],
        pads=tuple(pads),
        fn=r.activation(op),
    )


def _dense(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    if op.name == "BATCH_MATMUL":
        matrix = _floats(op.inputs[1])
        weights = matrix if op.options.get("adj_y") else matrix.T
        if op.options.get("adj_x"):
            raise Unsupported(op.label, "the first factor is transposed")
    else:
        weights = _floats(op.inputs[1])
    x = r.as_source(x)
    columns = weights.shape[1]
    rows = x.size // columns
    if x.shape != (rows, columns):
        x = r.emit("reshape", [x], (rows, columns))
    attrs = {
        "weights": np.ascontiguousarray(weights),
        "bias": _bias(op, weights.shape[0]),
        "fn": r.activation(op),
    }
    if op.outputs[0].shape == (rows, weights.shape[0]):
        r.finish(op, "dense", [x], **attrs)
    else:
        y = r.emit("dense", [x], (rows, weights.shape[0]), **attrs)
        y.source = op.outputs[0].index
        y.range = r._like(op.outputs[0]).range
        r.reshape_to(op, y)


def _pool(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    kernel = op.options["filter"]
    r.finish(
        op,
        "pool",
        [x],
        op="max" if op.name == "MAX_POOL_2D" else "mean",
        kernel=kernel,
        stride=op.options["stride"],
        pads=_pads(op, (x.shape[2], x.shape[3]), kernel),
        fn=r.activation(op),
    )


def _reduce(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    rank = len(x.shape)
    const = op.const(1)
    assert const is not None
    axes = sorted({int(a) % rank for a in np.ravel(const)})
    ours = tuple(sorted(_AXIS[a] for a in axes)) if rank == 4 else tuple(axes)
    kind = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "max", "REDUCE_MIN": "min"}[op.name]
    shape = tuple(1 if i in ours else n for i, n in enumerate(x.shape))
    if nchw(op.outputs[0].shape) == shape:
        r.finish(op, "reduce", [x], op=kind, axes=ours)
    else:
        y = r.emit("reduce", [x], shape, op=kind, axes=ours)
        y.source = op.outputs[0].index if rank == 4 and ours == (2, 3) else None
        r.reshape_to(op, r.as_source(y))


def _binary(r: _Reader, op: SourceOp) -> None:
    kind = {
        "ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MINIMUM": "min", "MAXIMUM": "max",
        "SQUARED_DIFFERENCE": "sub",
    }[op.name]  # fmt: skip
    a, b = (r.get(t) for t in op.inputs[:2])
    rank = len(op.outputs[0].shape)
    a, b = (_broadcast(r, t, rank) for t in (a, b))
    fn: Fn = (("square",),) if op.name == "SQUARED_DIFFERENCE" else r.activation(op)
    r.finish(op, "binary", [a, b], op=kind, fn=fn)


def _broadcast(r: _Reader, t: Tensor, rank: int) -> Tensor:
    """``t`` with leading ones up to ``rank``, in the layout of that rank."""
    if len(t.shape) in (rank, 0) and rank != 4:
        return t
    if len(t.shape) == rank:
        return t
    shape = (1,) * (rank - len(t.shape)) + t.shape
    if t.value is not None:
        value = to_nchw(t.value.reshape(shape))
        return Tensor(t.name, value.shape, value=value)
    wide = r.emit("reshape", [t], shape)
    return r.emit("transpose", [wide], nchw(shape), perm=_TO_NCHW) if rank == 4 else wide


def _map(*fn: Any) -> Callable[[_Reader, SourceOp], None]:
    def handler(r: _Reader, op: SourceOp) -> None:
        r.finish(op, "map", [r.get(op.inputs[0])], fn=tuple(fn))

    return handler


def _leaky(r: _Reader, op: SourceOp) -> None:
    step = ("leaky", float(op.options["alpha"]))
    r.finish(op, "map", [r.get(op.inputs[0])], fn=(step,))


def _gelu(r: _Reader, op: SourceOp) -> None:
    name = "gelu_tanh" if op.options.get("approximate") else "gelu"
    r.finish(op, "map", [r.get(op.inputs[0])], fn=((name,),))


def _prelu(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    slopes = _floats(op.inputs[1])
    if np.unique(slopes).size == 1:
        r.finish(op, "map", [x], fn=(("leaky", float(slopes.flat[0])),))
        return
    # One slope a channel is beyond one table: max(x, 0) + slope * min(x, 0).
    shape = (1, slopes.size, 1, 1) if len(x.shape) == 4 else (slopes.size,)
    factor = Tensor(f"{x.name}/slopes", shape, value=slopes.reshape(shape))
    above = r.emit("map", [x], x.shape, fn=(functions.RELU,))
    below = r.emit("map", [x], x.shape, fn=(("clamp", -math.inf, 0.0),))
    scaled = r.emit("binary", [below, factor], x.shape, op="mul", fn=())
    r.finish(op, "binary", [above, scaled], op="add", fn=())


def _softmax(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    axis = 1 if len(x.shape) == 4 else len(x.shape) - 1
    r.finish(op, "softmax", [x], beta=float(op.options.get("beta", 1.0)), axis=axis)


def _l2norm(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    r.finish(op, "l2norm", [x], axis=1 if len(x.shape) == 4 else len(x.shape) - 1)


def _pad(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    pads = [(int(a), int(b)) for a, b in const.reshape(-1, 2)]
    if len(x.shape) == 4:
        pads = [pads[i] for i in _TO_NCHW]
    value = op.const(2)
    fill = 0.0
    if op.name == "PADV2" and value is not None:
        fill = float(np.ravel(_floats(op.inputs[2]))[0])
    r.finish(op, "pad", [x], pads=tuple(pads), value=fill)


def _concat(r: _Reader, op: SourceOp) -> None:
    parts = [r.get(t) for t in op.inputs]
    rank = len(op.outputs[0].shape)
    axis = op.options["axis"] % rank
    axis = _AXIS[axis] if rank == 4 else axis
    if fn := r.activation(op):
        y = r.emit("concat", parts, nchw(op.outputs[0].shape), axis=axis)
        r.finish(op, "map", [y], fn=fn)
    else:
        r.finish(op, "concat", parts, axis=axis)


def _reshape(r: _Reader, op: SourceOp) -> None:
    r.reshape_to(op, r.as_source(r.get(op.inputs[0])))


def _transpose(r: _Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    const = op.const(1)
    assert const is not None
    perm = tuple(int(p) for p in const)
    if len(perm) == 4:
        perm = tuple(_TO_NHWC[perm[i]] for i in _TO_NCHW)
    r.finish(op, "transpose", [x], perm=perm)


def _cut(
    r: _Reader, op: SourceOp, which: int, begin: list[int], strides: list[int], shape: list[int]
) -> None:
    """A slice in TFLite's axes as output ``which`` of ``op``."""
    x = r.get(op.inputs[1] if op.name == "SPLIT" else op.inputs[0])
    if len(x.shape) == 4:
        begin, strides, shape = ([v[i] for i in _TO_NCHW] for v in (begin, strides, shape))
    target = op.outputs[which]
    attrs = {"begin": tuple(begin), "strides": tuple(strides)}
    if nchw(target.shape) == tuple(shape):
        out = r._like(target)
        r.ops.append(Op("slice", [x], [out], attrs, (r.label,)))
        r.values[target.index] = out
    else:
        y = r.emit("slice", [x], tuple(shape), **attrs)
        r.reshape_to(op, r.as_source(y), which)


def _strided_slice(r: _Reader, op: SourceOp) -> None:
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


def _slice(r: _Reader, op: SourceOp) -> None:
    begins, sizes = op.const(1), op.const(2)
    assert begins is not None
    assert sizes is not None
    begin = [int(b) for b in begins]
    shape = [n - b if s < 0 else int(s) for n, b, s in zip(op.shape(0), begin, sizes, strict=True)]
    _cut(r, op, 0, begin, [1] * len(begin), shape)


def _split(r: _Reader, op: SourceOp) -> None:
    given = op.shape(1 if op.name == "SPLIT" else 0)
    const = op.const(0 if op.name == "SPLIT" else 2)
    assert const is not None
    axis = int(np.ravel(const)[0]) % len(given)
    begin = [0] * len(given)
    for which, out in enumerate(op.outputs):
        _cut(r, op, which, list(begin), [1] * len(given), list(out.shape))
        begin[axis] += out.shape[axis]


def _resize(r: _Reader, op: SourceOp) -> None:
    r.finish(
        op,
        "resize",
        [r.get(op.inputs[0])],
        mode="nearest" if op.name == "RESIZE_NEAREST_NEIGHBOR" else "bilinear",
        align_corners=bool(op.options.get("align_corners")),
        half_pixel=bool(op.options.get("half_pixel_centers")),
    )


def _same(r: _Reader, op: SourceOp) -> None:
    """QUANTIZE and DEQUANTIZE: the graph is in reals, so they change nothing."""
    source = op.inputs[0]
    assert source is not None
    if source.value is not None:
        value = to_nchw(_floats(source))
        r.values[op.outputs[0].index] = Tensor(op.outputs[0].name, value.shape, value=value)
    else:
        x = r.get(source)
        if x.range is None:
            x.range = r._like(op.outputs[0]).range
        r.values[op.outputs[0].index] = x


HANDLERS: dict[str, Callable[[_Reader, SourceOp], None]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _dense,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"), _binary
    ),
    "RELU": _map(functions.RELU),
    "RELU6": _map(functions.RELU6),
    "RELU_N1_TO_1": _map(functions.RELU_N1_TO_1),
    "RELU_0_TO_1": _map(("clamp", 0.0, 1.0)),
    "LEAKY_RELU": _leaky,
    "PRELU": _prelu,
    "ELU": _map(("elu",)),
    "GELU": _gelu,
    "HARD_SWISH": _map(("hard_swish",)),
    "LOGISTIC": _map(("logistic",)),
    "TANH": _map(("tanh",)),
    **{
        name: _map((name.lower(),))
        for name in (
            "ABS", "NEG", "CEIL", "FLOOR", "ROUND", "EXP", "LOG", "SQRT", "RSQRT", "SIN", "COS",
            "SQUARE",
        )
    },
    "SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2norm,
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
    "QUANTIZE": _same,
    "DEQUANTIZE": _same,
}  # fmt: skip
