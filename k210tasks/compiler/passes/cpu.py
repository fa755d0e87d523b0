"""Layers beside the KPU: what the CPU layers of each kmodel version can carry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from k210tasks.compiler import executor, functions
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Op, Tensor, Within
from k210tasks.compiler.passes import transposes
from k210tasks.compiler.passes.lowering import (
    MAX_CHANNELS,
    MAX_HEIGHT,
    MAX_WIDTH,
    Lowering,
    Value,
)
from k210tasks.compiler.problems import NeedsKmodel4, Unsupported
from k210tasks.kmodel.runtimes import Runtime

#: steps of functions that are one unary opcode of kmodel 4
UNARY = ("abs", "ceil", "cos", "exp", "floor", "log", "neg", "rsqrt", "sin", "square")


def _floats(dev: Lowering, kind: str, inputs: list[Tensor], shape: tuple[int, ...],
            like: Value | None = None, **attrs: Any) -> Tensor:  # fmt: skip
    return dev.emit(kind, inputs, shape, like, dtype="float32", **attrs)


def _scalar(value: float) -> Tensor:
    return Tensor(f"{value:g}", (1,), value=np.array([value], np.float32))


def _with(dev: Lowering, op: str, x: Tensor, c: float, fn: Fn = ()) -> Tensor:
    """``x op c``."""
    return _floats(dev, "binary", [x, _scalar(c)], x.shape, op=op, fn=fn)


def _under(dev: Lowering, c: float, x: Tensor) -> Tensor:
    """``c / x``."""
    return _floats(dev, "binary", [_scalar(c), x], x.shape, op="div", fn=())


def _two(dev: Lowering, op: str, a: Tensor, b: Tensor) -> Tensor:
    return _floats(dev, "binary", [a, b], a.shape, op=op, fn=())


def _logistic(dev: Lowering, x: Tensor) -> Tensor:
    e = _floats(dev, "unary", [_floats(dev, "unary", [x], x.shape, op="neg")], x.shape, op="exp")
    return _under(dev, 1.0, _with(dev, "add", e, 1.0))


def _tanh(dev: Lowering, x: Tensor) -> Tensor:
    # 1 - 2 / (exp(2x) + 1): no overflow turns into a NaN at either end.
    e = _floats(dev, "unary", [_with(dev, "mul", x, 2.0)], x.shape, op="exp")
    return _with(
        dev, "add", _with(dev, "mul", _under(dev, 2.0, _with(dev, "add", e, 1.0)), -1.0), 1.0
    )


def _step(dev: Lowering, x: Tensor, step: functions.Step) -> Tensor:
    """One step of a function in the opcodes of kmodel 4."""
    name, *p = step
    if name in UNARY:
        return _floats(dev, "unary", [x], x.shape, op=name)
    if name in ("add", "mul"):
        return _with(dev, name, x, p[0])
    if name == "clamp":
        return _with(dev, "add", x, 0.0, ((name, *p),))
    if name == "leaky":
        return _two(dev, "max" if p[0] <= 1 else "min", x, _with(dev, "mul", x, p[0]))
    if name == "elu":
        low = _with(dev, "min", x, 0.0)
        below = _with(dev, "add", _floats(dev, "unary", [low], x.shape, op="exp"), -1.0)
        return _two(dev, "add", _with(dev, "max", x, 0.0), below)
    if name == "logistic":
        return _logistic(dev, x)
    if name == "tanh":
        return _tanh(dev, x)
    if name == "hard_swish":
        return _two(
            dev, "mul", x, _with(dev, "mul", _with(dev, "add", x, 3.0, (functions.RELU6,)), 1 / 6)
        )
    if name == "sqrt":
        return _two(
            dev, "mul", x, _floats(dev, "unary", [_with(dev, "max", x, 1e-30)], x.shape, op="rsqrt")
        )
    if name == "join":
        a, b = (_steps(dev, x, fn) for fn in p[1:])
        return _two(dev, p[0], a, b)
    if name == "reciprocal":
        return _under(dev, 1.0, x)
    if name == "gelu_tanh":
        cube = _two(dev, "mul", x, _floats(dev, "unary", [x], x.shape, op="square"))
        inner = _two(dev, "add", x, _with(dev, "mul", cube, 0.044715))
        half = _with(dev, "add", _tanh(dev, _with(dev, "mul", inner, math.sqrt(2 / math.pi))), 1.0)
        return _with(dev, "mul", _two(dev, "mul", x, half), 0.5)
    raise Unsupported(dev.label, f"{name} of values that no KPU layer computes")


def _steps(dev: Lowering, x: Tensor, fn: Fn) -> Tensor:
    for step in functions.simplify(fn):
        x = _step(dev, x, step)
    return x


def v3_carries(fn: Fn, runtime: Runtime) -> bool:
    """Whether kmodel 3 has a CPU layer for the function, on floats."""
    return fn == (("logistic",),) and "Logistic" not in runtime.lacks


def _floats_first(dev: Lowering, v: Value) -> bool:
    """Whether a value was computed in floats, so that codes of it are less exact."""
    if v.floats is None:
        return v.unclamped is not None
    before = dev.producers.get(v.floats)
    return before is None or before.kind != "dequantize"


def _pays(fn: Fn) -> bool:
    """Whether one table of codes saves floats more than one layer: else those are exact."""
    return len(fn) > 1 or any(step[0] not in (*UNARY, "add", "mul", "clamp") for step in fn)


def function(dev: Lowering, v: Value, out: Value, fn: Fn, inner: Within | None = None) -> None:
    """A function of each value; ``inner``: a tensor of the source between its steps."""
    fn = functions.simplify(fn)
    if dev.tables and (v.codes is not None or v.on_kpu) and _pays(fn):
        out.codes = dev.emit("requantize", [dev.as_codes(v)], out.shape, out, fn=fn)
    elif dev.version == 4:
        x = _steps(dev, dev.as_floats(v), fn)
        x.name, x.source, x.range = out.name, out.source, out.range
        out.floats = x
    elif fn and functions.clamp_of(fn) and (_floats_first(dev, v) or dev.runtime.requantizes_part):
        out.unclamped = (dev.as_floats(v), fn[0])
    elif v3_carries(fn, dev.runtime):
        out.floats = _floats(dev, "map", [dev.as_floats(v)], out.shape, out, fn=fn)
    elif len(fn) > 1 and fn[0][0] == "clamp" and _floats_first(dev, v):
        # Codes of the floats would be spent on what the clamp cuts off.
        held = Value(v.shape, f"{v.name}/clamped", unclamped=(dev.as_floats(v), fn[0]))
        if inner is not None and inner[1:] == fn[0][1:]:
            held.source, held.range = inner.tensor.source, inner.tensor.range
        function(dev, held, out, fn[1:])
    else:
        # Byte to byte: any function, at the price of codes.
        out.codes = dev.emit("requantize", [dev.as_codes(v)], out.shape, out, fn=fn)


def _then(dev: Lowering, out: Value, fn: Fn, x: Tensor, inner: Within | None = None) -> None:
    """Finish ``out`` with ``x`` put through ``fn``; ``inner`` as in :func:`function`."""
    if not fn:
        x.name, x.source, x.range = out.name, out.source, out.range
        out.floats = x
        return
    function(dev, Value(x.shape, x.name, floats=x), out, fn, inner)


def _clamp_first(fn: Fn) -> tuple[Fn, Fn]:
    """What a layer's own clamp can do, and the rest."""
    return (fn[:1], fn[1:]) if fn and fn[0][0] == "clamp" else ((), fn)


def _beyond_kpu(v: Value, weights: np.ndarray) -> str:
    """Why the KPU cannot compute a convolution."""
    _, c, h, w = v.shape
    channels = max(c, weights.shape[0])
    if channels > MAX_CHANNELS:
        return f"{channels} channels; the KPU takes at most {MAX_CHANNELS}"
    if h > MAX_HEIGHT or w > MAX_WIDTH:
        return f"a map of {w}x{h} pixels; the KPU takes at most {MAX_WIDTH}x{MAX_HEIGHT}"
    return (
        f"a {weights.shape[2]}x{weights.shape[3]} kernel on a map of {w}x{h} pixels with {c} "
        "channels is beyond what the KPU can be made to compute"
    )


def conv(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    a = op.attrs
    if dev.version == 3:
        raise NeedsKmodel4(dev.label, _beyond_kpu(v, a["weights"]))
    own, rest = _clamp_first(a["fn"])
    attrs = {k: a[k] for k in ("weights", "bias", "groups", "stride", "dilation", "pads")}
    _then(dev, out, rest, _floats(dev, "conv", [dev.as_floats(v)], out.shape, fn=own, **attrs))


def deconv(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    a = op.attrs
    if dev.version == 3:
        raise NeedsKmodel4(dev.label, "a transposed convolution")
    # The device's layer forgets the bias, so it is added by a layer of its own.
    bias = a["bias"]
    zero = np.zeros_like(bias)
    attrs = {"weights": a["weights"], "bias": zero, "stride": a["stride"], "pads": a["pads"]}
    x = _floats(dev, "deconv", [dev.as_floats(v)], out.shape, fn=(), **attrs)
    own, rest = _clamp_first(a["fn"])
    if bias.any() or own:
        shift = Tensor(f"{out.name}/bias", (1, bias.size, 1, 1), value=bias.reshape(1, -1, 1, 1))
        x = _floats(dev, "binary", [x, shift], out.shape, op="add", fn=own)
    _then(dev, out, rest, x)


def dense(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    a = op.attrs
    # Kmodel 3 has a field for ReLU, which most runtimes ignore.
    own, rest = _clamp_first(a["fn"]) if dev.version == 4 else ((), a["fn"])
    if dev.version == 3 and v.shape[0] != 1:
        raise NeedsKmodel4(dev.label, f"a dense layer on {v.shape[0]} rows")
    x = _floats(
        dev, "dense", [dev.as_floats(v)], out.shape, weights=a["weights"], bias=a["bias"], fn=own
    )
    _then(dev, out, rest, x, a.get("pre"))


def pool(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    a = op.attrs
    attrs = {k: a[k] for k in ("op", "kernel", "stride", "pads")}
    if dev.version == 3 and a["op"] == "max":
        raw = out if not a["fn"] else Value(out.shape, f"{out.name}/max")
        raw.codes = dev.emit("pool", [dev.as_codes(v)], out.shape, raw, fn=(), **attrs)
        if a["fn"]:
            function(dev, raw, out, a["fn"], a.get("pre"))
        return
    own, rest = _clamp_first(a["fn"]) if dev.version == 4 else ((), a["fn"])
    x = _floats(dev, "pool", [dev.as_floats(v)], out.shape, fn=own, **attrs)
    _then(dev, out, rest, x, a.get("pre"))


def binary(dev: Lowering, a: Value, b: Value, out: Value, op: Op) -> None:
    if dev.version == 3 and (op.attrs["op"] != "add" or a.shape != b.shape):
        raise NeedsKmodel4(
            dev.label, f"{op.attrs['op']} of {list(a.shape)} and {list(b.shape)} on the CPU"
        )
    own, rest = _clamp_first(op.attrs["fn"]) if dev.version == 4 else ((), op.attrs["fn"])
    inputs = [dev.as_floats(a), dev.as_floats(b)]
    if dev.version == 3 and any(t.value is not None for t in inputs):
        raise NeedsKmodel4(dev.label, "adding a constant map")
    x = _floats(dev, "binary", inputs, out.shape, op=op.attrs["op"], fn=own)
    _then(dev, out, rest, x, op.attrs.get("pre"))


def concat(dev: Lowering, parts: list[Value], out: Value, op: Op) -> None:
    axis = op.attrs["axis"]
    inputs = [dev.as_floats(p) for p in parts]
    if dev.version == 3:
        if any(n != 1 for n in out.shape[:axis]):
            raise NeedsKmodel4(dev.label, f"a concatenation along axis {axis} of {list(out.shape)}")
        if any(t.value is not None for t in inputs):
            raise NeedsKmodel4(dev.label, "a concatenation with constants")
    out.floats = _floats(dev, "concat", inputs, out.shape, out, axis=axis)


def move(dev: Lowering, v: Value, out: Value, op: Op, **attrs: Any) -> None:
    """Reshape, transpose or slice: on codes where the values are codes, else on floats."""
    if dev.version == 3 and op.kind == "slice":
        begin, strides = attrs["begin"], attrs["strides"]
        lead = [i for i, n in enumerate(out.shape) if n != v.shape[i]]
        if len(lead) != 1 or strides[lead[0]] != 1 or any(n != 1 for n in v.shape[: lead[0]]):
            raise NeedsKmodel4(dev.label, f"a slice from {list(begin)} by {list(strides)}")
    coded = v.codes is not None or v.on_kpu
    x = dev.as_codes(v) if coded else dev.as_floats(v)
    if op.kind == "transpose" and len(out.shape) > 4:
        x = transposes.in_four_dimensions(dev, x, attrs["perm"])
        x.name, x.source, x.range = out.name, out.source, out.range
    else:
        x = dev.emit(op.kind, [x], out.shape, out, dtype=x.dtype, **attrs)
    if coded:
        out.codes = x
    else:
        out.floats = x


def _device_nearest(n: int, out: int) -> list[int]:
    scale = np.float32(n) / np.float32(out)
    return [min(math.floor(np.float32(i) * scale), n - 1) for i in range(out)]


def _source_nearest(op: Op, n: int, out: int) -> list[int]:
    return [int(i) for i in executor.nearest(op, n, out)]


def resize(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    attrs = {k: op.attrs[k] for k in ("mode", "align_corners", "half_pixel")}
    sizes = list(zip(v.shape[2:], out.shape[2:], strict=True))
    nearest = op.attrs["mode"] == "nearest"
    if nearest and all(_device_nearest(n, m) == _source_nearest(op, n, m) for n, m in sizes):
        attrs |= {"align_corners": False, "half_pixel": False}  # the device's own way does
        dev.resize(v, out, **attrs)
    elif dev.version == 3:
        what = "resizing by other than a whole factor" if nearest else "bilinear resizing"
        raise NeedsKmodel4(dev.label, what)
    elif nearest or op.attrs["half_pixel"]:
        _resize_by_matrices(dev, v, out, op)
    else:
        out.floats = _floats(dev, "resize", [dev.as_floats(v)], out.shape, out, **attrs)


def _resize_by_matrices(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    """What the device's own layer picks other pixels for: columns, then rows, each a product
    with the matrix that says how much of which pixel goes where."""
    _, c, h, w = v.shape
    _, _, oh, ow = out.shape
    swap = (0, 1, 3, 2)
    x = dev.as_floats(v)
    for n, m, other in ((w, ow, h), (h, oh, ow)):
        rows = _floats(dev, "reshape", [x], (c * other, n))
        weights = _resize_matrix(op, n, m)
        bias = np.zeros(m, np.float32)
        y = _floats(dev, "dense", [rows], (c * other, m), weights=weights, bias=bias, fn=())
        y = _floats(dev, "reshape", [y], (1, c, other, m))
        x = _floats(dev, "transpose", [y], (1, c, m, other), perm=swap)
    x.name, x.source, x.range = out.name, out.source, out.range
    out.floats = x


def _resize_matrix(op: Op, n: int, m: int) -> np.ndarray:
    """(m, n): how ``op`` resizes n pixels of one axis to m."""
    if op.attrs["mode"] == "nearest":
        return np.eye(n, dtype=np.float32)[executor.nearest(op, n, m)]
    source, target = Tensor("", (1, 1, n, n)), Tensor("", (1, 1, m, n))
    one = Op("resize", [source], [target], op.attrs)
    eye = np.eye(n, dtype=np.float32).reshape(1, 1, n, n)
    return np.asarray(executor.KINDS["resize"](one, eye)).reshape(m, n)


def reduce(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    how, axes = op.attrs["op"], op.attrs["axes"]
    if v.parts:
        reduced = []
        for part in v.parts:
            small = Value((1, part.shape[1], *out.shape[2:]), f"{part.name}/{how}")
            reduce(dev, part, small, op)
            reduced.append(dev.as_floats(small))
        out.floats = _floats(dev, "concat", reduced, out.shape, out, axis=1)
        return
    if dev.version == 3 and len(v.shape) == 4:
        axes = tuple(i for i, n in enumerate(v.shape) if n != 1 and i in axes) or (3,)
    if (dev.version == 3 and axes != (2, 3)) or (dev.version == 3 and how != "mean"):
        _reduce_window(dev, v, out, how, axes)
    else:
        axes = op.attrs["axes"]
        out.floats = _floats(dev, "reduce", [dev.as_floats(v)], out.shape, out, op=how, axes=axes)


def _reduce_window(dev: Lowering, v: Value, out: Value, how: str, axes: tuple[int, ...]) -> None:
    """A mean or maximum over rows, columns or both as a pool of one window an output."""
    if how not in ("mean", "max") or len(v.shape) != 4 or not set(axes) <= {2, 3}:
        raise NeedsKmodel4(dev.label, f"{how} over axes {list(axes)}")
    kernel = tuple(n if i in axes else 1 for i, n in enumerate(v.shape))[2:]
    attrs: dict[str, Any] = {"op": how, "kernel": kernel, "stride": kernel}
    attrs |= {"pads": (0, 0, 0, 0), "fn": ()}
    if how == "max":
        out.codes = dev.emit("pool", [dev.as_codes(v)], out.shape, out, **attrs)
    else:
        out.floats = _floats(dev, "pool", [dev.as_floats(v)], out.shape, out, **attrs)


def _last(dev: Lowering, v: Value, out: Value, op: Op, kind: str, **attrs: Any) -> None:
    """A layer that works on runs of neighbouring floats, for any axis."""
    axis, x = op.attrs["axis"], dev.as_floats(v)
    after = math.prod(v.shape[axis + 1 :])
    before = math.prod(v.shape[:axis])
    if dev.version == 3 and (after != 1 or before != 1):
        raise NeedsKmodel4(dev.label, f"{kind} of {before * after} vectors")
    if after == 1:
        out.floats = _floats(dev, kind, [x], out.shape, out, axis=axis, **attrs)
        return
    perm = (*range(axis), *range(axis + 1, len(v.shape)), axis)
    moved = tuple(v.shape[p] for p in perm)
    y = _floats(dev, kind, [_floats(dev, "transpose", [x], moved, perm=perm)], moved,
                axis=len(moved) - 1, **attrs)  # fmt: skip
    back = tuple(perm.index(i) for i in range(len(perm)))
    out.floats = _floats(dev, "transpose", [y], out.shape, out, perm=back)


def softmax(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    beta = op.attrs["beta"]
    if dev.version == 3 and beta != 1:
        raise NeedsKmodel4(dev.label, f"a softmax with beta {beta:g}")
    if dev.version == 3 and not _floats_first(dev, v):
        # The v3 runtime takes the largest logit for at least zero, so that very negative
        # ones all vanish. A softmax does not mind an offset: let code 0 be zero.
        codes = dev.as_codes(v)
        floats = _floats(dev, "dequantize", [codes], v.shape, from_zero=True)
        v = Value(v.shape, v.name, floats=floats)
    _last(dev, v, out, op, "softmax", beta=beta)


def l2norm(dev: Lowering, v: Value, out: Value, op: Op) -> None:
    if dev.version == 3:
        _last(dev, v, out, op, "l2norm")
        return
    axis, x = op.attrs["axis"], dev.as_floats(v)
    square = _floats(dev, "unary", [x], v.shape, op="square")
    shape = tuple(1 if i == axis else n for i, n in enumerate(v.shape))
    total = _floats(dev, "reduce", [square], shape, op="sum", axes=(axis,))
    factor = _floats(dev, "unary", [_with(dev, "max", total, 1e-10)], shape, op="rsqrt")
    out.floats = _floats(dev, "binary", [x, factor], v.shape, out, op="mul", fn=())
