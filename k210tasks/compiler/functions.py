"""Elementwise functions: what a KPU activation table or a CPU op computes per value.

A function is a tuple of primitives, applied left to right; a primitive is a tuple of a name
and its parameters, e.g. ``(("mul", 0.5), ("logistic",))``. The empty tuple is the identity.
Clamping is one, ``("clamp", low, high)``, whatever the source calls it. One of
``("join", op, f, g)`` is ``f(x) op g(x)`` for two functions of the same value, as in
``x * logistic(x)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Primitive = tuple[Any, ...]
Fn = tuple[Primitive, ...]

AFFINE = ("mul", "neg", "add")

RELU: Primitive = ("clamp", 0.0, math.inf)
RELU6: Primitive = ("clamp", 0.0, 6.0)
RELU_N1_TO_1: Primitive = ("clamp", -1.0, 1.0)


def _logistic(x: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))


def _leaky(x: NDArray[Any], a: float) -> NDArray[Any]:
    return np.where(x >= 0, x, x * a)


def _elu(x: NDArray[Any]) -> NDArray[Any]:
    return np.where(x >= 0, x, np.expm1(np.minimum(x, 0)))


def _erf(x: NDArray[Any]) -> NDArray[Any]:
    return np.fromiter((math.erf(v) for v in x.ravel().tolist()), float, x.size).reshape(x.shape)


def _gelu(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _gelu_tanh(x: NDArray[Any]) -> NDArray[Any]:
    inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return np.asarray(0.5 * x * (1 + inner))


#: name -> the function of the value and the primitive's parameters
PRIMITIVES: dict[str, Callable[..., NDArray[Any]]] = {
    "clamp": np.clip,
    "add": lambda x, c: x + c,
    "mul": lambda x, c: x * c,
    "leaky": _leaky,
    "elu": _elu,
    "logistic": _logistic,
    "tanh": np.tanh,
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "erf": _erf,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "abs": np.abs,
    "neg": np.negative,
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.rint,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "cos": np.cos,
    "square": np.square,
    "reciprocal": lambda x: 1 / x,
}

#: how many numbers a primitive takes, where it takes some
PARAMETERS = {"clamp": 2, "add": 1, "mul": 1, "leaky": 1}

#: what a ``join`` may do with its two values
JOINS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
}

PRIMITIVES["join"] = lambda x, op, f, g: JOINS[op](evaluate(f, x), evaluate(g, x))


def evaluate(fn: Fn, x: NDArray[Any]) -> NDArray[Any]:
    """``fn`` of every element, in the floating type of ``x``."""
    with np.errstate(all="ignore"):
        for name, *parameters in fn:
            x = np.asarray(PRIMITIVES[name](x, *parameters), x.dtype)
    return x


def simplify(fn: Fn) -> Fn:
    """The same function with neighbouring clamps, sums and products merged."""
    merged: list[Primitive] = []
    for one in fn:
        last = merged[-1] if merged else None
        if last and one[0] == last[0] == "clamp":
            low = min(max(last[1], one[1]), one[2])
            high = max(min(last[2], one[2]), one[1])
            merged[-1] = ("clamp", low, high)
        elif last and one[0] == last[0] == "add":
            merged[-1] = ("add", last[1] + one[1])
        elif last and one[0] == last[0] == "mul":
            merged[-1] = ("mul", last[1] * one[1])
        elif one == ("clamp", -math.inf, math.inf):
            continue
        else:
            merged.append(one)
    return tuple(merged)


def affine_first(fn: Fn) -> tuple[float, float, Fn]:
    """``(scale, offset, rest)``: a function as ``rest(scale * x + offset)``, with as much of it in
    factor and offset as can be; what comes after a clamp may come before it."""
    scale, offset = 1.0, 0.0
    fn = simplify(fn)
    while fn:
        clamp = fn[0] if fn[0][0] == "clamp" and len(fn) > 1 else None
        one = fn[1] if clamp else fn[0]
        if one[0] not in AFFINE or one == ("mul", 0):
            break
        factor = one[1] if one[0] == "mul" else -1.0 if one[0] == "neg" else 1.0
        more = one[1] if one[0] == "add" else 0.0
        scale, offset = scale * factor, offset * factor + more
        if clamp:
            ends = sorted(end * factor + more for end in clamp[1:])
            fn = (("clamp", *ends), *fn[2:])
        else:
            fn = fn[1:]
    return scale, offset, fn


def clamp_of(fn: Fn) -> tuple[float, float] | None:
    """(low, high) when ``fn`` is the identity but for clamping, else None."""
    if not fn:
        return (-math.inf, math.inf)
    if len(fn) == 1 and fn[0][0] == "clamp":
        return (fn[0][1], fn[0][2])
    return None


def least(fn: Fn) -> float:
    """What no value of ``fn`` is below, as far as its last primitive tells; else -infinity."""
    if not fn:
        return -math.inf
    if fn[-1][0] == "clamp":
        return float(fn[-1][1])
    return 0.0 if fn[-1][0] in ("logistic", "abs", "square", "exp", "sqrt") else -math.inf
