"""The legal forms of the graph, and the checker that runs after every pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np

from k210tasks.compiler import functions, ops
from k210tasks.compiler.agreement import faults
from k210tasks.compiler.ir import Graph, Op
from k210tasks.compiler.problems import PassBroke

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """How an op of one kind looks: numbers of inputs and outputs, and the least height and width
    of the maps it puts out.

    ``law`` asserts what more has to hold in one format, so that every runtime of it computes
    the same.
    """

    inputs: tuple[int, int] = (1, 1)
    outputs: tuple[int, int] = (1, 1)
    least: int = 1
    law: Callable[[Op], None] | None = None


Forms = dict[type[Op], Form]

#: kinds that stand for whole TFLite ops, in float, before legalise
FLOAT: Forms = {
    **dict.fromkeys((
        ops.Conv, ops.Deconv, ops.Dense, ops.Pool, ops.Map, ops.Reduce, ops.Softmax, ops.L2Norm,
        ops.Pad, ops.Reshape, ops.Transpose, ops.Slice, ops.Resize,
    ), Form()),
    ops.Binary: Form((2, 2)),
    ops.Concat: Form((1, 1024)),
}  # fmt: skip

#: kinds that stand for the layers of a kmodel
DEVICE: Forms = {
    **dict.fromkeys((
        ops.KpuPart, ops.Quantize, ops.Dequantize, ops.Requantize, ops.Turn, ops.AddPadding,
        ops.RemovePadding, ops.Unary,
    ), Form()),
    ops.KpuConv: Form(outputs=(1, 2), least=4),
    ops.KpuConcat: Form((1, 1024)),
    ops.Upload: Form(least=4),
}  # fmt: skip

#: kernel and stride of the KPU's pools, and what they do (reference, section 1.5)
POOLS: dict[int, tuple[str, int, int]] = {
    0: ("none", 1, 1),
    1: ("max", 2, 2),
    2: ("mean", 2, 2),
    3: ("max", 4, 4),
    4: ("mean", 4, 4),
    5: ("left-top", 2, 2),
    6: ("right-top", 2, 2),
    7: ("left-top", 4, 4),
    8: ("mean", 2, 1),
    9: ("max", 2, 1),
}


# -- the shape of what an op puts out, and what has to hold of all it carries


def _windows(
    op: ops.Conv | ops.Pool, kernel: tuple[int, ...], dilation: ops.Pair = (1, 1)
) -> tuple[int, ...]:
    """Rows and columns of windows on the map."""
    t, b, left, r = op.pads
    whole = (op.input.shape[2] + t + b, op.input.shape[3] + left + r)
    rows = zip(whole, kernel, op.stride, dilation, strict=True)
    return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in rows)


def _above_zero(what: str, *numbers: int) -> None:
    assert all(isinstance(n, int) and n >= 1 for n in numbers), f"{what} {numbers}: from 1 on"


def _on_map(op: Op) -> None:
    assert len(op.input.shape) == 4, "its input is a map"


def _axis(op: Op, *axes: int) -> None:
    assert all(0 <= a < len(op.input.shape) for a in axes), f"no axis {axes}"
    assert len(set(axes)) == len(axes), f"an axis twice in {axes}"


def _one_of(what: str, values: object) -> None:
    assert what in get_args(values), f"{what!r} is none of {get_args(values)}"


def _weighted(op: ops.Conv | ops.Deconv | ops.Dense | ops.KpuConv, rank: int) -> None:
    for what, values, n in (("weights", op.weights, rank), ("bias", op.bias, 1)):
        assert values.dtype == np.float32, f"{what} of {values.dtype}"
        assert values.ndim == n, f"{what} of {values.ndim} dimensions"
        assert np.isfinite(values).all(), f"{what} that are no numbers"
    assert op.bias.shape == op.weights.shape[:1], "one bias a channel"


def _function(fn: functions.Fn) -> None:
    """That every primitive is known, with as many numbers as it takes."""
    assert isinstance(fn, tuple), "a function is a tuple"
    for name, *parameters in fn:
        assert name in functions.PRIMITIVES, f"no function {name!r}"
        numbers = parameters
        if name == "join":
            how, *both = parameters
            assert how in functions.JOINS, f"no join {how!r}"
            assert len(both) == 2, "a join is of two functions"
            for part in both:
                _function(part)
            numbers = []
        assert len(numbers) == functions.PARAMETERS.get(name, 0), f"{name} with {numbers}"
        assert not any(math.isnan(n) for n in numbers), f"{name} with {numbers}"
        assert name != "clamp" or numbers[0] <= numbers[1], f"a clamp to {numbers}"


def _conv(op: ops.Conv) -> Shape:
    _on_map(op)
    _weighted(op, 4)
    _above_zero("stride", *op.stride)
    _above_zero("dilation", *op.dilation)
    assert min(op.pads) >= 0, f"pads {op.pads}"
    assert op.weights.shape[1] * op.groups == op.input.shape[1], "channels of kernel and input"
    assert len(op.weights) % op.groups == 0, "groups of equal size"
    return (1, len(op.weights), *_windows(op, op.weights.shape[2:], op.dilation))


def _deconv(op: ops.Deconv) -> Shape:
    _on_map(op)
    _weighted(op, 4)
    _above_zero("stride", *op.stride)
    assert op.weights.shape[1] == op.input.shape[1], "channels of kernel and input differ"
    t, b, left, r = op.pads
    cut = zip(op.input.shape[2:], op.weights.shape[2:], op.stride, (t + b, left + r), strict=True)
    return (1, len(op.weights), *((n - 1) * s + k - less for n, k, s, less in cut))


def _dense(op: ops.Dense) -> Shape:
    _weighted(op, 2)
    assert op.input.shape[-1] == op.weights.shape[1], "columns of the weights and the input differ"
    return (*op.input.shape[:-1], len(op.weights))


def _pool(op: ops.Pool) -> Shape:
    _on_map(op)
    _one_of(op.how, ops.Pooling)
    _above_zero("kernel", *op.kernel)
    _above_zero("stride", *op.stride)
    assert min(op.pads) >= 0, f"pads {op.pads}"
    return (*op.input.shape[:2], *_windows(op, op.kernel))


def _binary(op: ops.Binary) -> Shape:
    _one_of(op.how, ops.Arithmetic)
    return np.broadcast_shapes(*(t.shape for t in op.inputs))


def _reduce(op: ops.Reduce) -> Shape:
    _one_of(op.how, ops.Reduction)
    _axis(op, *op.axes)
    return tuple(1 if i in op.axes else n for i, n in enumerate(op.input.shape))


def _along(op: ops.Softmax | ops.L2Norm) -> Shape:
    _axis(op, op.axis)
    assert not isinstance(op, ops.Softmax) or math.isfinite(op.beta), f"beta {op.beta}"
    return op.input.shape


def _pad(op: ops.Pad) -> Shape:
    assert math.isfinite(op.value), f"pads of {op.value}"
    return tuple(n + a + b for n, (a, b) in zip(op.input.shape, op.pads, strict=True))


def _concat(op: ops.Concat | ops.KpuConcat) -> Shape:
    axis = op.axis if isinstance(op, ops.Concat) else 1
    _axis(op, axis)
    shape = list(op.input.shape)
    for part in op.inputs[1:]:
        shape[axis] += part.shape[axis]
        same = [n for i, n in enumerate(part.shape) if i != axis]
        assert same == shape[:axis] + shape[axis + 1 :], "parts differ beside the axis"
    return tuple(shape)


def _reshape(op: ops.Reshape) -> Shape:
    assert op.input.size == op.output.size, "a reshape keeps the number of elements"
    return op.output.shape


def _transpose(op: ops.Transpose) -> Shape:
    assert sorted(op.perm) == list(range(len(op.input.shape))), f"{op.perm} is no permutation"
    return tuple(op.input.shape[p] for p in op.perm)


def _slice(op: ops.Slice) -> Shape:
    _above_zero("strides", *op.strides)
    for n, begin, stride, count in zip(
        op.input.shape, op.begin, op.strides, op.output.shape, strict=True
    ):
        inside = begin >= 0 and begin + (count - 1) * stride < n
        assert inside, "a slice stays inside its input"
    return op.output.shape


def _resize(op: ops.Resize) -> Shape:
    _on_map(op)
    assert op.mode in ("nearest", "bilinear"), f"no resizing {op.mode!r}"
    return (*op.input.shape[:2], *op.output.shape[2:])


def _kpu_conv(op: ops.KpuConv) -> Shape:
    _on_map(op)
    _weighted(op, 4)
    w, channels = op.weights, op.input.shape[1]
    assert w.shape[2:] in ((1, 1), (3, 3)), "the KPU has 1x1 and 3x3 kernels"
    assert w.shape[1] == (1 if op.depthwise else channels), "channels"
    assert not op.depthwise or len(w) == channels, "channels"
    assert not (op.depthwise and op.pool), "no pool after a depthwise layer"
    # A spare channel is put out; a depthwise layer reads one for it, too.
    most = max(channels + op.spare * op.depthwise, len(w) + op.spare)
    assert most <= 1024, f"{most} channels; at most 1024"
    assert op.pool in POOLS, f"no pool {op.pool}"
    assert op.spare in (0, 1), f"{op.spare} spare channels"
    assert op.pad_code is None or 0 <= op.pad_code <= 255, f"no code {op.pad_code}"
    assert not (op.identity and op.fn), "codes are passed on as they are"
    if op.numbers is not None:
        _, inner, rows, columns = op.numbers.codes.shape
        assert (len(op.numbers.codes), inner, rows, columns) == w.shape, "codes of the weights"
        assert 0 <= op.numbers.pad_value <= 255, f"no code {op.numbers.pad_value}"
    stride = POOLS[op.pool][2]
    return (1, len(w), op.input.shape[2] // stride, op.input.shape[3] // stride)


def _kpu_part(op: ops.KpuPart) -> Shape:
    count = op.output.shape[1]
    assert 0 <= op.first <= op.input.shape[1] - count, "a part lies within its map"
    return (1, count, *op.input.shape[2:])


def _quantize(op: ops.Quantize) -> Shape:
    assert op.clamp is None or op.clamp[0] <= op.clamp[1], f"a clamp to {op.clamp}"
    assert (op.part == "fine") == (op.of is not None), "a fine part is of a coarse one"
    assert op.part != "coarse" or op.clamp is not None, "a coarse part clamps"
    return op.input.shape


def _dequantize(op: ops.Dequantize) -> Shape:
    said = (op.negated, op.from_zero, op.constant is not None)
    assert sum(said) <= 1, "codes are turned into floats in one way"
    assert op.constant is None or math.isfinite(op.constant), f"a constant {op.constant}"
    return op.input.shape


def _remove_padding(op: ops.RemovePadding) -> Shape:
    inside = all(0 <= at < n for at, n in zip(op.pixel, op.input.shape[2:], strict=True))
    assert inside, f"no pixel {op.pixel}"
    return op.input.shape[:2]


def _same(op: Op) -> Shape:
    return op.input.shape


#: kind -> the shape that its op puts out; asserts what has to hold of what the op carries
CARRIED: dict[type[Op], Callable[..., Shape]] = {
    ops.Conv: _conv,
    ops.Deconv: _deconv,
    ops.Dense: _dense,
    ops.Pool: _pool,
    ops.Binary: _binary,
    ops.Map: _same,
    ops.Reduce: _reduce,
    ops.Softmax: _along,
    ops.L2Norm: _along,
    ops.Pad: _pad,
    ops.Concat: _concat,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Slice: _slice,
    ops.Resize: _resize,
    ops.KpuConv: _kpu_conv,
    ops.KpuConcat: _concat,
    ops.KpuPart: _kpu_part,
    ops.Upload: _same,
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
    ops.Requantize: _same,
    ops.Turn: _same,
    ops.AddPadding: lambda op: (*op.input.shape[:2], 4, 4),
    ops.RemovePadding: _remove_padding,
    ops.Unary: _same,
}


def no_activation(op: Op) -> None:
    """Kmodel 3: most runtimes ignore the activation of a dense layer."""
    assert isinstance(op, ops.Dense)
    assert not op.fn, "a dense layer of kmodel 3 has no activation"


def _window_rows(op: Op) -> tuple[tuple[int, int, int, int], ...]:
    """Of rows and columns: pixels of input and output, stride, pixels before the first."""
    stride: tuple[int, ...] = (1, 1)
    before = (0, 0)
    if isinstance(op, ops.Pool):
        stride, before = op.stride, (op.pads[0], op.pads[2])
    elif isinstance(op, ops.Pad):
        before = (op.pads[2][0], op.pads[3][0])
    elif isinstance(op, ops.Slice) and not any(op.begin):
        stride = op.strides[2:]
    sizes = zip(op.input.shape[2:], op.output.shape[2:], stride, before, strict=True)
    return tuple((n, m, s, b) for n, m, s, b in sizes)


def windows_within(op: Op) -> None:
    """Kmodel 3: runtimes compute how many pixels of a window lie on the map without a sign, so
    that a window that starts beyond the first pixel after the map reads what lies there. One
    that starts right after it is empty, and so is one before it; an empty one has no mean."""
    if len(op.output.shape) != 4 or (op.output.dtype == "float32" and not isinstance(op, ops.Pool)):
        return
    mean = isinstance(op, ops.Pool) and op.how == "mean"
    for n, m, stride, before in _window_rows(op):
        last = (m - 1) * stride - before
        assert last <= n - mean, f"a window starts {last - n} pixels after the map"


_KPU_IN = (ops.KpuConv, ops.KpuConcat, ops.KpuPart)
_KPU_OUT = (*_KPU_IN, ops.Upload, ops.AddPadding)


def check(graph: Graph, after: str, kinds: Forms, *, placed: bool = False) -> None:
    """Raise :class:`PassBroke` unless every op of ``graph`` has a legal form.

    ``kinds`` is the table of what may occur; ``placed``, once scales are chosen, also checks
    that feature maps are where their readers expect them and that codes mean the same to all
    (:mod:`k210tasks.compiler.agreement`).
    """
    known = set(graph.inputs)
    for op in graph.ops:

        def broke(what: str, op: Op = op) -> PassBroke:
            return PassBroke(after, repr(op), what)

        form = kinds.get(type(op))
        if form is None:
            raise broke("this kind may not occur here")
        if not form.inputs[0] <= len(op.inputs) <= form.inputs[1]:
            raise broke("wrong number of inputs")
        if not form.outputs[0] <= len(op.outputs) <= form.outputs[1]:
            raise broke("wrong number of outputs")
        for tensor in op.inputs:
            if tensor.value is None and tensor not in known:
                raise broke(f"{tensor} is read before it is written")
        try:
            shape = CARRIED[type(op)](op)
            if isinstance(op, (ops.Activated, ops.Unary)):
                _function(op.fn if isinstance(op, ops.Activated) else ((op.how,),))
            if form.law is not None:
                form.law(op)
        except (AssertionError, ValueError) as error:
            raise broke(str(error)) from error
        if form.least > 1 and min(shape[2:]) < form.least:
            raise broke(f"a map of less than {form.least}x{form.least} in KPU RAM")
        for tensor in op.outputs:
            if tensor in known:
                raise broke(f"{tensor} is written twice")
            if tensor.shape != tuple(shape):
                raise broke(f"the output should be {list(shape)}")
            known.add(tensor)
        if placed:
            for tensor in op.inputs:
                if (tensor.place == "kpu") != isinstance(op, _KPU_IN):
                    raise broke(f"{tensor} is in the wrong memory")
            if (op.output.place == "kpu") != isinstance(op, _KPU_OUT):
                raise broke("the output is in the wrong memory")
            for tensor in (*op.inputs, *op.outputs):
                if tensor.dtype == "uint8" and tensor.quant is None:
                    raise broke(f"{tensor} has codes without a scale")
    if placed:
        for op, what in faults(graph):
            raise PassBroke(after, repr(op), what)
    for tensor in graph.outputs:
        if tensor not in known and tensor.value is None:
            raise PassBroke(after, repr(tensor), "the output is never written")
