"""Functions of single values, and of two tensors value by value, as read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from k210tasks.compiler import functions
from k210tasks.compiler.constraints import SourceOp
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Tensor, nchw, to_nchw
from k210tasks.compiler.reading.state import TO_NCHW, Handler, Reader, floats


def _binary(r: Reader, op: SourceOp) -> None:
    kind = {
        "ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MINIMUM": "min", "MAXIMUM": "max",
        "SQUARED_DIFFERENCE": "sub",
    }[op.name]  # fmt: skip
    a, b = (r.get(t) for t in op.inputs[:2])
    rank = len(op.outputs[0].shape)
    a, b = (_broadcast(r, t, rank) for t in (a, b))
    fn: Fn = (("square",),) if op.name == "SQUARED_DIFFERENCE" else r.activation(op)
    r.finish(op, "binary", [a, b], op=kind, fn=fn)


def _broadcast(r: Reader, t: Tensor, rank: int) -> Tensor:
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
    return r.emit("transpose", [wide], nchw(shape), perm=TO_NCHW) if rank == 4 else wide


def _map(*fn: Any) -> Handler:
    def handler(r: Reader, op: SourceOp) -> None:
        r.finish(op, "map", [r.get(op.inputs[0])], fn=tuple(fn))

    return handler


def _leaky(r: Reader, op: SourceOp) -> None:
    step = ("leaky", float(op.options["alpha"]))
    r.finish(op, "map", [r.get(op.inputs[0])], fn=(step,))


def _gelu(r: Reader, op: SourceOp) -> None:
    name = "gelu_tanh" if op.options.get("approximate") else "gelu"
    r.finish(op, "map", [r.get(op.inputs[0])], fn=((name,),))


def _prelu(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    slopes = floats(op.inputs[1])
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


def _same(r: Reader, op: SourceOp) -> None:
    """QUANTIZE and DEQUANTIZE: the graph is in reals, so they change nothing."""
    source = op.inputs[0]
    assert source is not None
    if source.value is not None:
        value = to_nchw(floats(source))
        r.values[op.outputs[0].index] = Tensor(op.outputs[0].name, value.shape, value=value)
    else:
        x = r.get(source)
        if x.range is None:
            x.range = r.like(op.outputs[0]).range
        r.values[op.outputs[0].index] = x


HANDLERS: dict[str, Handler] = {
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
    "QUANTIZE": _same,
    "DEQUANTIZE": _same,
}  # fmt: skip
