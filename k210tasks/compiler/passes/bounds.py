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

from k210tasks.compiler import functions, ops
from k210tasks.compiler.agreement import MOVING
from k210tasks.compiler.ir import Op, Tensor

Range = tuple[float, float]
Known = Callable[[Tensor], Range | None]

#: kinds that put out values of their inputs, or means of them
_KEEPING = (*MOVING, ops.Quantize, ops.KpuConcat)
#: kinds whose output lies in a range whatever they read
_FIXED: dict[type[Op], Range] = {ops.Softmax: (0.0, 1.0), ops.L2Norm: (-1.0, 1.0)}


def through(fn: functions.Fn, low: float, high: float) -> Range:
    """The range of ``fn`` over [low, high]."""
    y = functions.evaluate(fn, np.linspace(low, high, 1025))
    y = y[np.isfinite(y)]
    return (float(y.min()), float(y.max())) if y.size else (low, high)


def _weighted(
    w: NDArray[np.float64], bias: NDArray[np.floating], ends: NDArray[np.float64]
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
        if type(op) in _FIXED:
            return _FIXED[type(op)]
        given = [self.of(t) for t in op.inputs]
        inputs = [r for r in given if r is not None]
        if len(inputs) < len(given):
            return None
        return self._computed(op, inputs)

    def _computed(self, op: Op, inputs: list[Range]) -> Range | None:
        """What an op makes of inputs of these ranges; None of kinds that are not foreseen."""
        low, high = min(a for a, _ in inputs), max(b for _, b in inputs)
        fn = op.fn if isinstance(op, ops.Activated) else ()
        if isinstance(op, ops.KpuConv):
            low, high = self._conv(op)
        elif isinstance(op, ops.Dense):
            w = op.weights.astype(np.float64)
            ends = np.repeat([[low], [high]], w.shape[1], 1)
            low, high = _weighted(w, op.bias, ends)
        elif isinstance(op, ops.Binary):
            join = functions.JOINS[op.how]
            with np.errstate(all="ignore"):
                corners = [
                    float(join(np.array(a), np.array(b))) for a, b in itertools.product(*inputs)
                ]
            low, high = min(corners), max(corners)
            if op.how == "div" and inputs[1][0] <= 0 <= inputs[1][1]:
                return None
        elif isinstance(op, ops.Pad):
            low, high = min(low, op.value), max(high, op.value)
        elif isinstance(op, ops.Unary):
            fn = ((op.how,),)
        elif isinstance(op, ops.Dequantize):
            low, high = (-high, -low) if op.negated else (low, high)
        elif isinstance(op, ops.Reduce) and op.how == "sum":
            count = op.input.size / op.output.size
            low, high = low * count, high * count
        elif not isinstance(op, (*_KEEPING, ops.Map, ops.Requantize, ops.Reduce)):
            return None
        if not np.isfinite((low, high)).all():
            return None
        return through(fn, low, high) if fn else (low, high)

    def _conv(self, op: ops.KpuConv) -> Range:
        """Of a KPU layer before its function; what is joined counts part by part."""
        before = self.producers.get(op.input)
        ends = []
        for part in before.inputs if isinstance(before, ops.KpuConcat) else [op.input]:
            low, high = self.of(part) or (0.0, 0.0)
            if op.weights.shape[2] > 1:  # the zeros around it
                low, high = min(low, 0.0), max(high, 0.0)
            ends += [(low, high)] * part.shape[1]
        w = op.weights.astype(np.float64)
        of_input = np.array(ends).T
        if op.depthwise:
            each = [
                _weighted(w[c].reshape(1, -1), op.bias[c], of_input[:, [c] * w[c].size])
                for c in range(len(w))
            ]
            return min(low for low, _ in each), max(high for _, high in each)
        taps = w.shape[2] * w.shape[3]
        return _weighted(w.reshape(len(w), -1), op.bias, np.repeat(of_input, taps, axis=1))
