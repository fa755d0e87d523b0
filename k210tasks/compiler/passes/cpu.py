"""Layers beside the KPU: what the CPU layers of each kmodel version can carry."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from k210tasks.compiler import executor, functions, ops
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes import transposes
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import MAX_CHANNELS, MAX_HEIGHT, MAX_WIDTH, Value
from k210tasks.compiler.problems import NeedsKmodel4, Unsupported
from k210tasks.kmodel.runtimes import Runtime

#: functions that are one unary opcode of kmodel 4
UNARY = ("abs", "ceil", "cos", "exp", "floor", "log", "neg", "rsqrt", "sin", "square")


def _floats(dev: Lowering, op: Op, shape: tuple[int, ...], like: Value | None = None) -> Tensor:
    return dev.emit(op, shape, like, dtype="float32")


def _unary(dev: Lowering, how: str, x: Tensor) -> Tensor:
    return _floats(dev, ops.Unary([x], how=how), x.shape)


def _hold(x: Tensor, out: Value) -> None:
    """``x``, which some op writes, as the floats of ``out``."""
    x.name, x.source, x.range = out.name, out.source, out.range
    out.floats = x


def _scalar(value: float) -> Tensor:
    return Tensor(f"{value:g}", (1,), value=np.array([value], np.float32))


def _with(dev: Lowering, how: ops.Arithmetic, x: Tensor, c: float, fn: Fn = ()) -> Tensor:
    """``x how c``."""
    return _floats(dev, ops.Binary([x, _scalar(c)], how=how, fn=fn), x.shape)


def _under(dev: Lowering, c: float, x: Tensor) -> Tensor:
    """``c / x``."""
    return _floats(dev, ops.Binary([_scalar(c), x], how="div"), x.shape)


def _two(dev: Lowering, how: ops.Arithmetic, a: Tensor, b: Tensor) -> Tensor:
    return _floats(dev, ops.Binary([a, b], how=how), a.shape)


def _logistic(dev: Lowering, x: Tensor) -> Tensor:
    e = _unary(dev, "exp", _unary(dev, "neg", x))
    return _under(dev, 1.0, _with(dev, "add", e, 1.0))


def _tanh(dev: Lowering, x: Tensor) -> Tensor:
    # 1 - 2 / (exp(2x) + 1): no overflow turns into a NaN at either end.
    e = _unary(dev, "exp", _with(dev, "mul", x, 2.0))
    return _with(
        dev, "add", _with(dev, "mul", _under(dev, 2.0, _with(dev, "add", e, 1.0)), -1.0), 1.0
    )


#: erf by a polynomial of 1 / (1 + P x) times exp(-x²), 1.5e-7 off at most: Abramowitz and Stegun,
#: Handbook of Mathematical Functions, 7.1.26; the highest power first.
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERF_P = 0.3275911


def _erf(dev: Lowering, x: Tensor) -> Tensor:
    x = _with(dev, "add", x, 0.0, (("clamp", -9.0, 9.0),))  # beyond it is 1, and squares are huge
    size = _unary(dev, "abs", x)
    t = _under(dev, 1.0, _with(dev, "add", _with(dev, "mul", size, _ERF_P), 1.0))
    fall = _with(dev, "mul", t, _ERF[0])
    for factor in _ERF[1:]:
        fall = _two(dev, "mul", _with(dev, "add", fall, factor), t)
    fall = _two(
        dev, "mul", fall, _unary(dev, "exp", _with(dev, "mul", _unary(dev, "square", x), -1.0))
    )
    rise = _with(dev, "add", _with(dev, "mul", fall, -1.0), 1.0)
    sign = _with(dev, "add", _with(dev, "mul", x, 1e20), 0.0, (("clamp", -1.0, 1.0),))
    return _two(dev, "mul", rise, sign)


def _primitive(dev: Lowering, x: Tensor, one: functions.Primitive) -> Tensor:
    """One primitive of a function in the opcodes of kmodel 4."""
    name, *p = one
    if name in UNARY:
        return _unary(dev, name, x)
    if name in ("add", "mul"):
        return _with(dev, name, x, p[0])
    if name == "clamp":
        return _with(dev, "add", x, 0.0, ((name, *p),))
    if name == "leaky":
        return _two(dev, "max" if p[0] <= 1 else "min", x, _with(dev, "mul", x, p[0]))
    if name == "elu":
        low = _with(dev, "min", x, 0.0)
        below = _with(dev, "add", _unary(dev, "exp", low), -1.0)
        return _two(dev, "add", _with(dev, "max", x, 0.0), below)
    if name == "logistic":
        return _logistic(dev, x)
    if name == "tanh":
        return _tanh(dev, x)
    if name == "erf":
        return _erf(dev, x)
    if name == "gelu":
        whole = _with(dev, "add", _erf(dev, _with(dev, "mul", x, math.sqrt(0.5))), 1.0)
        return _with(dev, "mul", _two(dev, "mul", x, whole), 0.5)
    if name == "hard_swish":
        return _two(
            dev, "mul", x, _with(dev, "mul", _with(dev, "add", x, 3.0, (functions.RELU6,)), 1 / 6)
        )
    if name == "sqrt":
        return _two(dev, "mul", x, _unary(dev, "rsqrt", _with(dev, "max", x, 1e-30)))
    if name == "join":
        a, b = (_composed(dev, x, fn) for fn in p[1:])
        return _two(dev, p[0], a, b)
    if name == "reciprocal":
        return _under(dev, 1.0, x)
    if name == "gelu_tanh":
        cube = _two(dev, "mul", x, _unary(dev, "square", x))
        inner = _two(dev, "add", x, _with(dev, "mul", cube, 0.044715))
        half = _with(dev, "add", _tanh(dev, _with(dev, "mul", inner, math.sqrt(2 / math.pi))), 1.0)
        return _with(dev, "mul", _two(dev, "mul", x, half), 0.5)
    raise Unsupported(dev.label, f"{name} of values that no KPU layer computes")


def _composed(dev: Lowering, x: Tensor, fn: Fn) -> Tensor:
    for one in functions.simplify(fn):
        x = _primitive(dev, x, one)
    return x


def v3_carries(fn: Fn, runtime: Runtime) -> bool:
    """Whether kmodel 3 has a CPU layer for the function, on floats."""
    return fn == (("logistic",),) and "Logistic" not in runtime.lacks


def _floats_first(dev: Lowering, v: Value) -> bool:
    """Whether a value was computed in floats, so that codes of it are less exact."""
    if v.floats is None:
        return v.unclamped is not None
    before = dev.producers.get(v.floats)
    return not isinstance(before, ops.Dequantize)


def _pays(fn: Fn) -> bool:
    """Whether one table of codes saves floats more than one layer: else those are exact."""
    return len(fn) > 1 or any(name not in (*UNARY, "add", "mul", "clamp") for name, *_ in fn)


def function(dev: Lowering, v: Value, out: Value, fn: Fn, inner: ops.Within | None = None) -> None:
    """A function of each value; ``inner``: a tensor of the source inside it."""
    fn = functions.simplify(fn)
    if dev.tables and (v.codes is not None or v.on_kpu) and _pays(fn):
        out.codes = dev.emit(ops.Requantize([dev.as_codes(v)], fn=fn), out.shape, out)
    elif dev.version == 4:
        _hold(_composed(dev, dev.as_floats(v), fn), out)
    elif fn and functions.clamp_of(fn) and (_floats_first(dev, v) or dev.runtime.requantizes_part):
        out.unclamped = (dev.as_floats(v), fn[0])
    elif v3_carries(fn, dev.runtime):
        out.floats = _floats(dev, ops.Map([dev.as_floats(v)], fn=fn), out.shape, out)
    elif len(fn) > 1 and fn[0][0] == "clamp" and _floats_first(dev, v):
        # Codes of the floats would be spent on what the clamp cuts off.
        held = Value(v.shape, f"{v.name}/clamped", unclamped=(dev.as_floats(v), fn[0]))
        if inner is not None and inner[1:] == fn[0][1:]:
            held.source, held.range = inner.tensor.source, inner.tensor.range
        function(dev, held, out, fn[1:])
    else:
        # Byte to byte: any function, at the price of codes.
        out.codes = dev.emit(ops.Requantize([dev.as_codes(v)], fn=fn), out.shape, out)


def _then(dev: Lowering, out: Value, fn: Fn, x: Tensor, inner: ops.Within | None = None) -> None:
    """Finish ``out`` with ``x`` put through ``fn``; ``inner`` as in :func:`function`."""
    if fn:
        before = Value(x.shape, x.name, floats=x)
        if inner is not None and inner[1:] == (-math.inf, math.inf):
            before.source, before.range = inner.tensor.source, inner.tensor.range
        function(dev, before, out, fn, inner)
    else:
        _hold(x, out)


def _clamp_first(fn: Fn) -> tuple[Fn, Fn]:
    """What a layer's own clamp can do, and the rest."""
    return (fn[:1], fn[1:]) if fn and fn[0][0] == "clamp" else ((), fn)


def _beyond_kpu(v: Value, weights: ops.Floats) -> str:
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


def conv(dev: Lowering, v: Value, out: Value, op: ops.Conv) -> None:
    if dev.version == 3:
        raise NeedsKmodel4(dev.label, _beyond_kpu(v, op.weights))
    own, rest = _clamp_first(op.fn)
    layer = replace(op, inputs=[dev.as_floats(v)], fn=own, pre=None)
    _then(dev, out, rest, _floats(dev, layer, out.shape))


def deconv(dev: Lowering, v: Value, out: Value, op: ops.Deconv) -> None:
    if dev.version == 3:
        raise NeedsKmodel4(dev.label, "a transposed convolution")
    # The device's layer forgets the bias, so it is added by a layer of its own.
    bias = op.bias
    zero = np.zeros_like(bias)
    layer = replace(op, inputs=[dev.as_floats(v)], bias=zero, fn=(), pre=None)
    x = _floats(dev, layer, out.shape)
    own, rest = _clamp_first(op.fn)
    if bias.any() or own:
        shift = Tensor(f"{out.name}/bias", (1, bias.size, 1, 1), value=bias.reshape(1, -1, 1, 1))
        x = _floats(dev, ops.Binary([x, shift], how="add", fn=own), out.shape)
    _then(dev, out, rest, x)


def dense(dev: Lowering, v: Value, out: Value, op: ops.Dense) -> None:
    # Kmodel 3 has a field for ReLU, which most runtimes ignore.
    own, rest = _clamp_first(op.fn) if dev.version == 4 else ((), op.fn)
    if dev.version == 3 and v.shape[0] != 1:
        raise NeedsKmodel4(dev.label, f"a dense layer on {v.shape[0]} rows")
    layer = replace(op, inputs=[dev.as_floats(v)], fn=own, pre=None)
    _then(dev, out, rest, _floats(dev, layer, out.shape), op.pre)


def pool(dev: Lowering, v: Value, out: Value, op: ops.Pool) -> None:
    if dev.version == 3 and op.how == "max":
        raw = out if not op.fn else Value(out.shape, f"{out.name}/max")
        layer = replace(op, inputs=[dev.as_codes(v)], fn=(), pre=None)
        raw.codes = dev.emit(layer, out.shape, raw)
        if op.fn:
            function(dev, raw, out, op.fn, op.pre)
        return
    own, rest = _clamp_first(op.fn) if dev.version == 4 else ((), op.fn)
    layer = replace(op, inputs=[dev.as_floats(v)], fn=own, pre=None)
    _then(dev, out, rest, _floats(dev, layer, out.shape), op.pre)


def binary(dev: Lowering, a: Value, b: Value, out: Value, op: ops.Binary) -> None:
    if dev.version == 3 and (op.how != "add" or a.shape != b.shape):
        raise NeedsKmodel4(dev.label, f"{op.how} of {list(a.shape)} and {list(b.shape)} on the CPU")
    own, rest = _clamp_first(op.fn) if dev.version == 4 else ((), op.fn)
    inputs = [dev.as_floats(a), dev.as_floats(b)]
    if dev.version == 3 and any(t.value is not None for t in inputs):
        raise NeedsKmodel4(dev.label, "adding a constant map")
    x = _floats(dev, ops.Binary(inputs, how=op.how, fn=own), out.shape)
    _then(dev, out, rest, x, op.pre)


def concat(dev: Lowering, parts: list[Value], out: Value, op: ops.Concat) -> None:
    axis = op.axis
    inputs = [dev.as_floats(p) for p in parts]
    if dev.version == 3:
        if any(n != 1 for n in out.shape[:axis]):
            raise NeedsKmodel4(dev.label, f"a concatenation along axis {axis} of {list(out.shape)}")
        if any(t.value is not None for t in inputs):
            raise NeedsKmodel4(dev.label, "a concatenation with constants")
    out.floats = _floats(dev, ops.Concat(inputs, axis=axis), out.shape, out)


def move(dev: Lowering, v: Value, out: Value, op: ops.Reshape | ops.Transpose | ops.Slice) -> None:
    """On codes where the values are codes, else on floats."""
    if dev.version == 3 and isinstance(op, ops.Slice):
        begin, strides = op.begin, op.strides
        lead = [i for i, n in enumerate(out.shape) if n != v.shape[i]]
        if len(lead) != 1 or strides[lead[0]] != 1 or any(n != 1 for n in v.shape[: lead[0]]):
            raise NeedsKmodel4(dev.label, f"a slice from {list(begin)} by {list(strides)}")
    coded = v.codes is not None or v.on_kpu
    x = dev.as_codes(v) if coded else dev.as_floats(v)
    if isinstance(op, ops.Transpose) and len(out.shape) > 4:
        x = transposes.in_four_dimensions(dev, x, op.perm)
        x.name, x.source, x.range = out.name, out.source, out.range
    else:
        x = dev.emit(replace(op, inputs=[x]), out.shape, out, dtype=x.dtype)
    if coded:
        out.codes = x
    else:
        out.floats = x


def _device_nearest(n: int, out: int) -> list[int]:
    scale = np.float32(n) / np.float32(out)
    return [min(math.floor(np.float32(i) * scale), n - 1) for i in range(out)]


def _source_nearest(op: ops.Resize, n: int, out: int) -> list[int]:
    return [int(i) for i in executor.nearest(op, n, out)]


def resize(dev: Lowering, v: Value, out: Value, op: ops.Resize) -> None:
    sizes = list(zip(v.shape[2:], out.shape[2:], strict=True))
    nearest = op.mode == "nearest"
    if nearest and all(_device_nearest(n, m) == _source_nearest(op, n, m) for n, m in sizes):
        dev.resize(v, out)  # the device's own way does
    elif dev.version == 3:
        what = "resizing by other than a whole factor" if nearest else "bilinear resizing"
        raise NeedsKmodel4(dev.label, what)
    elif nearest or op.half_pixel:
        _resize_by_matrices(dev, v, out, op)
    else:
        layer = replace(op, inputs=[dev.as_floats(v)])
        out.floats = _floats(dev, layer, out.shape, out)


def _resize_by_matrices(dev: Lowering, v: Value, out: Value, op: ops.Resize) -> None:
    """What the device's own layer picks other pixels for: columns, then rows, each a product
    with the matrix that says how much of which pixel goes where."""
    _, c, h, w = v.shape
    _, _, oh, ow = out.shape
    swap = (0, 1, 3, 2)
    x = dev.as_floats(v)
    for n, m, other in ((w, ow, h), (h, oh, ow)):
        rows = _floats(dev, ops.Reshape([x]), (c * other, n))
        product = ops.Dense([rows], weights=_resize_matrix(op, n, m), bias=np.zeros(m, np.float32))
        y = _floats(dev, ops.Reshape([_floats(dev, product, (c * other, m))]), (1, c, other, m))
        x = _floats(dev, ops.Transpose([y], perm=swap), (1, c, m, other))
    _hold(x, out)


def _resize_matrix(op: ops.Resize, n: int, m: int) -> ops.Floats:
    """(m, n): how ``op`` resizes n pixels of one axis to m."""
    eye = np.eye(n, dtype=np.float32)
    if op.mode == "nearest":
        return eye[executor.nearest(op, n, m)]
    one = replace(op, outputs=[Tensor("", (1, 1, m, n))])
    return executor.compute(one, eye.reshape(1, 1, n, n)).reshape(m, n)


def reduce(dev: Lowering, v: Value, out: Value, op: ops.Reduce) -> None:
    how, axes = op.how, op.axes
    if v.parts:
        reduced = []
        for part in v.parts:
            small = Value((1, part.shape[1], *out.shape[2:]), f"{part.name}/{how}")
            reduce(dev, part, small, op)
            reduced.append(dev.as_floats(small))
        out.floats = _floats(dev, ops.Concat(reduced, axis=1), out.shape, out)
        return
    if dev.version == 3 and len(v.shape) == 4:
        axes = tuple(i for i, n in enumerate(v.shape) if n != 1 and i in axes) or (3,)
    if (dev.version == 3 and axes != (2, 3)) or (dev.version == 3 and how != "mean"):
        _reduce_window(dev, v, out, how, axes)
    else:
        layer = replace(op, inputs=[dev.as_floats(v)])
        out.floats = _floats(dev, layer, out.shape, out)


def _reduce_window(dev: Lowering, v: Value, out: Value, how: ops.Reduction, axes: tuple[int, ...],
                   ) -> None:  # fmt: skip
    """A mean or maximum over rows, columns or both as a pool of one window an output."""
    if how not in ("mean", "max") or len(v.shape) != 4 or not set(axes) <= {2, 3}:
        raise NeedsKmodel4(dev.label, f"{how} over axes {list(axes)}")
    h, w = (n if i in axes else 1 for i, n in enumerate(v.shape[2:], 2))
    x = dev.as_codes(v) if how == "max" else dev.as_floats(v)
    layer = ops.Pool([x], how=how, kernel=(h, w), stride=(h, w), pads=(0, 0, 0, 0))
    if how == "max":
        out.codes = dev.emit(layer, out.shape, out)
    else:
        out.floats = _floats(dev, layer, out.shape, out)


def _last(dev: Lowering, v: Value, out: Value, op: ops.Softmax | ops.L2Norm) -> None:
    """A layer that works on runs of neighbouring floats, for any axis."""
    axis, x = op.axis, dev.as_floats(v)
    after = math.prod(v.shape[axis + 1 :])
    before = math.prod(v.shape[:axis])
    if dev.version == 3 and (after != 1 or before != 1):
        raise NeedsKmodel4(dev.label, f"{op.kind} of {before * after} vectors")
    if after == 1:
        out.floats = _floats(dev, replace(op, inputs=[x]), out.shape, out)
        return
    perm = (*range(axis), *range(axis + 1, len(v.shape)), axis)
    moved = tuple(v.shape[p] for p in perm)
    x = _floats(dev, ops.Transpose([x], perm=perm), moved)
    y = _floats(dev, replace(op, inputs=[x], axis=len(moved) - 1), moved)
    back = tuple(perm.index(i) for i in range(len(perm)))
    out.floats = _floats(dev, ops.Transpose([y], perm=back), out.shape, out)


def softmax(dev: Lowering, v: Value, out: Value, op: ops.Softmax) -> None:
    if dev.version == 3 and op.beta != 1:
        raise NeedsKmodel4(dev.label, f"a softmax with beta {op.beta:g}")
    if dev.version == 3 and not _floats_first(dev, v):
        # The v3 runtime takes the largest logit for at least zero, so that very negative
        # ones all vanish. A softmax does not mind an offset: let code 0 be zero.
        codes = dev.as_codes(v)
        floats = _floats(dev, ops.Dequantize([codes], from_zero=True), v.shape)
        v = Value(v.shape, v.name, floats=floats)
    _last(dev, v, out, op)


def l2norm(dev: Lowering, v: Value, out: Value, op: ops.L2Norm) -> None:
    if dev.version == 3:
        _last(dev, v, out, op)
        return
    axis, x = op.axis, dev.as_floats(v)
    square = _unary(dev, "square", x)
    shape = tuple(1 if i == axis else n for i, n in enumerate(v.shape))
    total = _floats(dev, ops.Reduce([square], how="sum", axes=(axis,)), shape)
    factor = _unary(dev, "rsqrt", _with(dev, "max", total, 1e-10))
    out.floats = _floats(dev, ops.Binary([x, factor], how="mul"), v.shape, out)
