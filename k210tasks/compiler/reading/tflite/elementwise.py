"""Functions of single values, and of two tensors value by value, as read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from k210tasks.compiler import functions
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Tensor, to_nchw
from k210tasks.compiler.ops import Arithmetic, Binary, Map
from k210tasks.compiler.reading.state import Handler, Reader, floats
from k210tasks.compiler.source_ops import SourceOp

_BINARY: dict[str, Arithmetic] = {
    "ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MINIMUM": "min", "MAXIMUM": "max",
    "SQUARED_DIFFERENCE": "sub",
}  # fmt: skip


def _binary(r: Reader, op: SourceOp) -> None:
    a, b = (r.get(t) for t in op.inputs[:2])
    rank = len(op.outputs[0].shape)
    a, b = (_broadcast(r, t, rank) for t in (a, b))
    fn: Fn = (("square",),) if op.name == "SQUARED_DIFFERENCE" else r.activation(op)
    r.finish(op, Binary([a, b], how=_BINARY[op.name], fn=fn))


def _broadcast(r: Reader, t: Tensor, rank: int) -> Tensor:
    """``t`` with leading ones up to ``rank``, in the layout of that rank."""
    if len(t.shape) == rank or (not t.shape and rank != 4):
        return t
    return r.reshaped(t, (1,) * (rank - len(t.shape)) + t.shape)


def _add_n(r: Reader, op: SourceOp) -> None:
    parts = [r.get(t) for t in op.inputs]
    if len(parts) == 1:
        r.values[op.outputs[0].index] = parts[0]
        return
    total = parts[0]
    for part in parts[1:-1]:
        total = r.emit(Binary([total, part], how="add"), total.shape)
    r.finish(op, Binary([total, parts[-1]], how="add"))


#: exponent -> the function it is
_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def _pow(r: Reader, op: SourceOp) -> None:
    exponent = float(np.ravel(floats(op.inputs[1]))[0])
    fn: Fn = () if exponent == 1 else ((_POWERS[exponent],),)
    r.finish(op, Map([r.get(op.inputs[0])], fn=fn))


def _map(*fn: Any) -> Handler:
    def handler(r: Reader, op: SourceOp) -> None:
        r.finish(op, Map([r.get(op.inputs[0])], fn=tuple(fn)))

    return handler


def _leaky(r: Reader, op: SourceOp) -> None:
    fn = (("leaky", float(op.options["alpha"])),)
    r.finish(op, Map([r.get(op.inputs[0])], fn=fn))


def _gelu(r: Reader, op: SourceOp) -> None:
    name = "gelu_tanh" if op.options.get("approximate") else "gelu"
    r.finish(op, Map([r.get(op.inputs[0])], fn=((name,),)))


def _prelu(r: Reader, op: SourceOp) -> None:
    x = r.get(op.inputs[0])
    slopes = floats(op.inputs[1])
    if np.unique(slopes).size == 1:
        r.finish(op, Map([x], fn=(("leaky", float(slopes.flat[0])),)))
        return
    # Several slopes are beyond one table: max(x, 0) + slope * min(x, 0).
    value = slopes.reshape((1,) * (len(x.shape) - slopes.ndim) + slopes.shape)
    value = to_nchw(value)
    factor = Tensor(f"{x.name}/slopes", value.shape, value=value)
    above = r.emit(Map([x], fn=(functions.RELU,)), x.shape)
    below = r.emit(Map([x], fn=(("clamp", -math.inf, 0.0),)), x.shape)
    scaled = r.emit(Binary([below, factor], how="mul"), x.shape)
    r.finish(op, Binary([above, scaled], how="add"))


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
    **dict.fromkeys(_BINARY, _binary),
    "ADD_N": _add_n,
    "POW": _pow,
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
