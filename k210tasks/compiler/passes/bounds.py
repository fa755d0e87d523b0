"""What a tensor can hold where nobody measured it and no file tells: interval arithmetic from
the tensors whose ranges are known.

Wider than what samples would show, as intervals forget that two values go together; codes over
such a range are coarser, and cut nothing off.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.agreement import MOVING
from k210tasks.compiler.ir import Op, Tensor

Range = tuple[float, float]
Known = Callable[[Tensor], Range | None]

#: kinds that put out values of their inputs, or means of them
_KEEPING = MOVING | {"quantize", "kpu_concat"}
#: kinds whose output lies in a range whatever they read
_FIXED: dict[str, Range] = {"softmax": (0.0, 1.0), "l2norm": (-1.0, 1.0)}


def through(fn: functions.Fn, low: float, high: float) -> Range:
    """The range of ``fn`` over [low, high]."""
    y = functions.evaluate(fn, np.linspace(low, high, 1025))
    y = y[np.isfinite(y)]
    return (float(y.min()), float(y.max())) if y.size else (low, high)


def _weighted(
    w: NDArray[np.float64], bias: NDArray[np.float64], ends: NDArray[np.float64]
) -> Range:
    """The range of ``w @ x + bias``: ``w`` [O, I], ``ends`` [2, I] of x."""
    below, above = np.minimum(w, 0.0), np.maximum(w, 0.0)
    low, high = above @ ends[0] + below @ ends[1], above @ ends[1] + below @ ends[0]
    return float((low + bias).min()), float((high + bias).max())


class Bounds:
    """Ranges that follow from those that ``known`` gives of tensors."""

    def __init__(self, producers: dict[Tensor, Op], known: Known):
        self.producers, self.known = producers, known
        self._found: dict[Tensor, Range | None] = {}

    def of(self, tensor: Tensor) -> Range | None:
        """The range of a tensor; None where it follows from nothing that is known."""
        if tensor not in self._found:
            self._found[tensor] = self._follow(tensor)
        return self._found[tensor]

    def _follow(self, tensor: Tensor) -> Range | None:
        if tensor.value is not None:
            return float(tensor.value.min()), float(tensor.value.max())
        if (found := self.known(tensor)) is not None:
            return found
        op = self.producers.get(tensor)
        if op is None:
            return None
        if op.kind in _FIXED:
            return _FIXED[op.kind]
        given = [self.of(t) for t in op.inputs]
        inputs = [r for r in given if r is not None]
        if len(inputs) < len(given):
            return None
        return self._computed(op, inputs)

    def _computed(self, op: Op, inputs: list[Range]) -> Range | None:
        """What an op makes of inputs of these ranges; None of kinds that are not foreseen."""
        low, high = min(a for a, _ in inputs), max(b for _, b in inputs)
        fn = op.attrs.get("fn", ())
        if op.kind == "kpu_conv":
            low, high = self._conv(op)
        elif op.kind == "dense":
            w = op.attrs["weights"].astype(np.float64)
            ends = np.repeat([[low], [high]], w.shape[1], 1)
            low, high = _weighted(w, op.attrs["bias"], ends)
        elif op.kind == "binary":
            join = functions.JOINS[op.attrs["op"]]
            with np.errstate(all="ignore"):
                corners = [
                    float(join(np.array(a), np.array(b))) for a, b in itertools.product(*inputs)
                ]
            low, high = min(corners), max(corners)
            if op.attrs["op"] == "div" and inputs[1][0] <= 0 <= inputs[1][1]:
                return None
        elif op.kind == "pad":
            low, high = min(low, op.attrs["value"]), max(high, op.attrs["value"])
        elif op.kind == "unary":
            fn = ((op.attrs["op"],),)
        elif op.kind == "dequantize":
            low, high = (-high, -low) if op.attrs.get("negated") else (low, high)
        elif op.kind == "reduce" and op.attrs["op"] == "sum":
            count = op.input.size / op.output.size
            low, high = low * count, high * count
        elif op.kind not in _KEEPING | {"map", "requantize", "reduce"}:
            return None
        if not np.isfinite((low, high)).all():
            return None
        return through(fn, low, high) if fn else (low, high)

    def _conv(self, op: Op) -> Range:
        """Of a KPU layer before its function; what is joined counts part by part."""
        before = self.producers.get(op.input)
        joined = before is not None and before.kind == "kpu_concat"
        ends = []
        for part in before.inputs if joined and before is not None else [op.input]:
            low, high = self.of(part) or (0.0, 0.0)
            if op.attrs["weights"].shape[2] > 1:  # the zeros around it
                low, high = min(low, 0.0), max(high, 0.0)
            ends += [(low, high)] * part.shape[1]
        w = op.attrs["weights"].astype(np.float64)
        of_input = np.array(ends).T
        if op.attrs["depthwise"]:
            each = [
                _weighted(w[c].reshape(1, -1), op.attrs["bias"][c], of_input[:, [c] * w[c].size])
                for c in range(len(w))
            ]
            return min(low for low, _ in each), max(high for _, high in each)
        taps = w.shape[2] * w.shape[3]
        return _weighted(w.reshape(len(w), -1), op.attrs["bias"], np.repeat(of_input, taps, axis=1))
