"""Arithmetic on shapes: what a converter left to be computed though all of it is known.

A model converted with an open batch computes the shapes of its reshapes from the shape of
their input. With a batch of one these are constants, and the ops that compute them go.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.source_ops import SourceOp

_WHOLE = ("INT32", "INT64")

Array = NDArray[Any]


def _strided_slice(op: SourceOp, x: Array, begin: Array, end: Array, step: Array) -> Array:
    spans: list[slice | int] = []
    for i, (b, e, s) in enumerate(zip(begin.tolist(), end.tolist(), step.tolist(), strict=True)):
        if op.options.get("shrink_axis_mask", 0) >> i & 1:
            spans.append(b)
            continue
        first = None if op.options.get("begin_mask", 0) >> i & 1 else b
        last = None if op.options.get("end_mask", 0) >> i & 1 else e
        spans.append(slice(first, last, s))
    return x[tuple(spans)]


def _slice(op: SourceOp, x: Array, begin: Array, size: Array) -> Array:
    spans = zip(begin.tolist(), size.tolist(), strict=True)
    return x[tuple(slice(b, None if n < 0 else b + n) for b, n in spans)]


def _reshape(op: SourceOp, x: Array, *_: Array) -> Array:
    return x.reshape(op.outputs[0].shape)


_KNOWN: dict[str, Callable[..., Array]] = {
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "PACK": lambda op, *parts: np.stack(parts, op.options["axis"]),
    "CONCATENATION": lambda op, *parts: np.concatenate(parts, op.options["axis"]),
    "GATHER": lambda op, x, at: np.take(x, at, op.options.get("axis", 0)),
    "ADD": lambda op, a, b: a + b,
    "SUB": lambda op, a, b: a - b,
    "MUL": lambda op, a, b: a * b,
    "CAST": lambda op, x: x,
    "REDUCE_PROD": lambda op, x, axes: np.asarray(math.prod(x.ravel().tolist())),
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
}


def known(op: SourceOp) -> bool:
    """Whether ``op`` computes whole numbers from constants and fixed shapes only; if so its
    output holds them from now on."""
    if len(op.outputs) != 1 or op.outputs[0].type not in _WHOLE or not op.inputs:
        return False
    out = op.outputs[0]
    given = op.inputs[0]
    if op.name == "SHAPE":
        if given is None or given.dynamic:
            return False
        value: Array = np.array(given.shape)
    else:
        values = [t.value for t in op.inputs if t is not None and t.value is not None]
        if op.name not in _KNOWN or len(values) != len(op.inputs):
            return False
        try:
            value = _KNOWN[op.name](op, *values)
        except (ArithmeticError, IndexError, KeyError, TypeError, ValueError):
            return False  # malformed: refused as what it is
    try:
        out.value = np.asarray(value, np.int32 if out.type == "INT32" else np.int64)
    except (OverflowError, TypeError, ValueError):
        return False
    out.shape = out.value.shape
    return True
