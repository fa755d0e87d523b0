"""Functions of single values, and of several tensors value by value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from k210tasks.compiler import functions, ops
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building, Operands, fits
from k210tasks.compiler.reading.onnx.nodes import Node

_BELOW: functions.Primitive = ("clamp", -math.inf, 0.0)
#: log(1 + exp(x)), without an overflow: max(x, 0) + log(1 + exp(-|x|))
_SOFTPLUS: Fn = (
    ("join", "add", (functions.RELU,), (("abs",), ("neg",), ("exp",), ("add", 1.0), ("log",))),
)


def _exponential(node: Node, alpha: float, inner: float, gain: float = 1.0) -> Fn:
    """``gain * (max(x, 0) + min(0, alpha * (exp(x / inner) - 1)))``"""
    if not alpha or not inner:
        raise node.unsupported(f"alpha is {alpha if not alpha else inner:g}")
    below: Fn = (("elu",), ("mul", alpha * gain))
    if inner != 1:
        below = (("mul", 1 / inner), *below)
    return (("join", "add", (functions.RELU, ("mul", gain)), (_BELOW, *below)),)


def _elu(node: Node) -> Fn:
    alpha = node.real("alpha", 1.0)
    return (("elu",),) if alpha == 1 else _exponential(node, alpha, 1.0)


def _selu(node: Node) -> Fn:
    return _exponential(
        node, node.real("alpha", 1.67326319217681884765625), 1.0,
        node.real("gamma", 1.05070102214813232421875),
    )  # fmt: skip


def _celu(node: Node) -> Fn:
    alpha = node.real("alpha", 1.0)
    return (("elu",),) if alpha == 1 else _exponential(node, alpha, alpha)


def _hard_sigmoid(node: Node) -> Fn:
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    return (("mul", alpha), ("add", beta), ("clamp", 0.0, 1.0))


def _gelu(node: Node) -> Fn:
    kind = node.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise node.unsupported(f"approximate is {kind!r}")
    return (("gelu_tanh" if kind == "tanh" else "gelu",),)


def _swish(node: Node) -> Fn:
    alpha = node.real("alpha", 1.0)
    return (("join", "mul", (), (("mul", alpha), ("logistic",))),)


def _named(*names: str) -> Callable[[Node], Fn]:
    return lambda node: tuple((name,) for name in names)


#: op -> its function, from its attributes
FUNCTIONS: dict[str, Callable[[Node], Fn]] = {
    "Relu": lambda node: (functions.RELU,),
    "LeakyRelu": lambda node: (("leaky", node.real("alpha", 0.01)),),
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Sigmoid": _named("logistic"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _named("hard_swish"),
    "Tanh": _named("tanh"),
    "Softplus": lambda node: _SOFTPLUS,
    "Softsign": lambda node: (("join", "div", (), (("abs",), ("add", 1.0))),),
    "Mish": lambda node: (("join", "mul", (), (*_SOFTPLUS, ("tanh",))),),
    "Gelu": _gelu,
    "Swish": _swish,
    "Erf": _named("erf"),
    "Sqrt": _named("sqrt"),
    "Exp": _named("exp"),
    "Log": _named("log"),
    "Neg": _named("neg"),
    "Abs": _named("abs"),
    "Floor": _named("floor"),
    "Ceil": _named("ceil"),
    "Round": _named("round"),
    "Sin": _named("sin"),
    "Cos": _named("cos"),
    "Reciprocal": _named("reciprocal"),
}


def mapped(r: Building, node: Node, fn: Fn) -> None:
    """``fn`` of every value of the first input."""
    of = r.operands(node, node.inputs[:1])
    x = of.tensors[0]
    if len(x.shape) <= 4:
        r.put_like(node, ops.Map([x], fn=fn), of, x.shape)
        return
    flat = r.emit(ops.Reshape([x]), (1, x.size))
    r.put(node, ops.Reshape([r.emit(ops.Map([flat], fn=fn), flat.shape)]), x.shape)


def function(r: Building, node: Node) -> None:
    mapped(r, node, FUNCTIONS[node.op](node))


def clip(r: Building, node: Node) -> None:
    ends: list[float] = []
    for i, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        if node.opset < 11:
            ends.append(float(node.attributes.get(name, default)))
        elif not node.input(i):
            ends.append(default)
        else:
            value = r.const(node, i)
            if value is None or value.size != 1:
                raise node.unsupported(f"{name} is computed or no single number")
            ends.append(float(value.ravel()[0]))
    if any(math.isnan(end) for end in ends):
        raise node.unsupported(f"it clips to {ends}")
    low, high = (
        (-math.inf if ends[0] < -3e38 else ends[0]),
        (math.inf if ends[1] > 3e38 else ends[1]),
    )
    mapped(r, node, (("clamp", min(low, high), high),))


#: exponent -> the function it is
_POWERS: dict[float, Fn] = {
    1.0: (), 2.0: (("square",),), 0.5: (("sqrt",),), -0.5: (("rsqrt",),),
    -1.0: (("reciprocal",),), 3.0: (("join", "mul", (), (("square",),)),),
}  # fmt: skip


def power(r: Building, node: Node) -> None:
    exponent = r.floats(node, 1, "the exponent")
    values = np.unique(exponent)
    if len(values) != 1 or float(values[0]) not in _POWERS:
        raise node.unsupported(f"the exponent is {values.tolist()}: {sorted(_POWERS)} are possible")
    fits(node, np.broadcast_shapes(r.shape(node.inputs[0]), exponent.shape))
    mapped(r, node, _POWERS[float(values[0])])


_BINARY: dict[str, ops.Arithmetic] = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Min": "min", "Max": "max",
    "Sum": "add", "Mean": "add",
}  # fmt: skip


def binary(r: Building, node: Node) -> None:
    for i, name in enumerate(node.inputs):
        if name in r.constants:
            r.floats(node, i, f"input {name!r}")
    of = r.operands(node)
    parts, how = of.tensors, _BINARY[node.op]
    try:
        shape = fits(node, np.broadcast_shapes(*(t.shape for t in parts)))
    except ValueError as error:
        shapes = " and ".join(str(list(r.shape(n))) for n in node.inputs)
        raise node.unsupported(f"its inputs have shapes {shapes}") from error
    total = parts[0]
    for part in parts[1:-1]:
        between = np.broadcast_shapes(total.shape, part.shape)
        total = r.emit(ops.Binary([total, part], how=how), between)
    last: Any = ops.Map([total]) if len(parts) == 1 else ops.Binary([total, parts[-1]], how=how)
    if node.op == "Mean" and len(parts) > 1:
        last.fn = (("mul", 1 / len(parts)),)
    r.put_like(node, last, of, shape)


def prelu(r: Building, node: Node) -> None:
    slopes = r.floats(node, 1, "the slope")
    if np.unique(slopes).size == 1:
        mapped(r, node, (("leaky", float(slopes.flat[0])),))
        return
    of = r.operands(node)
    x, factor = of.tensors
    if np.broadcast_shapes(x.shape, factor.shape) != x.shape:
        raise node.unsupported(f"the slope has shape {list(slopes.shape)}")
    _slopes(r, node, of, x, factor)


def _slopes(r: Building, node: Node, of: Operands, x: Tensor, factor: Tensor) -> None:
    """Several slopes are beyond one table: max(x, 0) + slope * min(x, 0)."""
    above = r.emit(ops.Map([x], fn=(functions.RELU,)), x.shape)
    below = r.emit(ops.Map([x], fn=(_BELOW,)), x.shape)
    scaled = r.emit(ops.Binary([below, factor], how="mul"), x.shape)
    r.put_like(node, ops.Binary([above, scaled], how="add"), of, x.shape)


HANDLERS = {
    **dict.fromkeys(FUNCTIONS, function),
    **dict.fromkeys(_BINARY, binary),
    "Clip": clip,
    "Pow": power,
    "PRelu": prelu,
}
