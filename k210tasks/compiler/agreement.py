"""Which tensors of codes must mean the same by them, and the checks that they do.

* What only moves, selects or repeats codes has one scale and zero point for input and output.
* A KPU layer's map and its copy in main memory have one scale and zero point.
* The parts of a joined map have one scale and zero point unless every reader is a KPU layer
  that folds each part's own into its weights; one zero point where such a reader is padded,
  since the KPU puts one code around all channels.
* That code is the zero point of the layer's input, and what its registers subtract.
* Channels have scales of their own only in maps that nothing but such layers reads, written
  by a function that gives them: a bound of it lies where no channel's codes reach beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from k210tasks.compiler import functions, ops
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.ops import KpuConcat, KpuConv

#: kinds whose output codes are input codes, moved, selected or repeated
MOVING: tuple[type[Op], ...] = (
    ops.KpuPart, ops.Turn, ops.Upload, ops.Slice, ops.Pad, ops.Reshape, ops.Transpose, ops.Resize,
    ops.Pool, ops.AddPadding, ops.RemovePadding, ops.Concat,
)  # fmt: skip

#: what the parts of a joined map have to share
Sharing = Literal["codes", "zero point", "nothing"]


def moves(op: Op) -> bool:
    """Whether the codes that ``op`` writes are codes that it reads."""
    if isinstance(op, KpuConv):
        return op.identity
    return isinstance(op, MOVING) and op.output.dtype == "uint8"


def sharing(readers: list[Op]) -> Sharing:
    """What the parts of a map joined for ``readers`` must share."""
    layers = [op for op in readers if isinstance(op, KpuConv) and not op.identity]
    if not readers or len(layers) < len(readers):
        return "codes"
    return "zero point" if any(padded(op) for op in layers) else "nothing"


def padded(op: KpuConv) -> bool:
    """Whether a KPU layer looks at the code around its map."""
    return bool(op.weights.shape[2] == 3)


class Classes:
    """Tensors in classes of equals: what is joined is in one class, joined by anyone."""

    def __init__(self) -> None:
        self._above: dict[Tensor, Tensor] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor that stands for the class."""
        root = tensor
        while (above := self._above.get(root)) is not None:
            root = above
        while tensor is not root:
            self._above[tensor], tensor = root, self._above[tensor]
        return root

    def join(self, *tensors: Tensor) -> None:
        first = self.of(tensors[0])
        for tensor in tensors[1:]:
            if (other := self.of(tensor)) is not first:
                self._above[other] = first


def classes(graph: Graph) -> tuple[Classes, Classes]:
    """Classes of tensors with one scale and zero point, and with one zero point."""
    codes, zeros = Classes(), Classes()
    consumers = graph.consumers()
    for op in graph.ops:
        if isinstance(op, KpuConv):
            codes.join(*op.outputs)
        if moves(op):
            codes.join(*op.inputs, op.output)
        if isinstance(op, KpuConcat):
            shared = sharing(consumers.get(op.output, []))
            codes.join(*(op.inputs if shared == "codes" else op.inputs[:1]), op.output)
            if shared == "zero point":
                zeros.join(*op.inputs)
    for tensor in graph.tensors():
        zeros.join(tensor, codes.of(tensor))
    return codes, zeros


# -- the checks


def faults(graph: Graph) -> Iterator[tuple[Op, str]]:
    """Every op whose codes do not mean what its readers take them for."""
    consumers, producers = graph.consumers(), graph.producers()
    for op in graph.ops:
        first = op.first if isinstance(op, ops.KpuPart) else 0
        if moves(op) and not all(_equal(given, op.output, first) for given in op.inputs):
            yield op, "what moves codes has one quantisation for input and output"
        if isinstance(op, KpuConv):
            if any(not _equal(op.output, other) for other in op.outputs[1:]):
                yield op, "a map and its copy in main memory have one quantisation"
            if what := _numbers(op, producers):
                yield op, what
        if isinstance(op, KpuConcat):
            shared = sharing(consumers.get(op.output, []))
            parts = op.inputs
            if shared == "codes" and any(not _equal(op.output, part) for part in parts):
                yield op, "the parts of a joined map have one quantisation"
            if shared == "zero point" and len({_zero(part) for part in parts}) > 1:
                yield op, "the parts of a map that a padded layer reads have one zero point"
        for tensor in op.outputs:
            if tensor.scales is not None and (what := _scales(op, tensor, graph, consumers)):
                yield op, what


def _zero(tensor: Tensor) -> int:
    assert tensor.quant is not None
    return round(tensor.quant.zero_point)


def _equal(a: Tensor, b: Tensor, first: int = 0) -> bool:
    """Whether codes mean the same in both; ``first``: the channel of ``a`` that is 0 of ``b``."""
    if a.quant != b.quant or (a.scales is None) != (b.scales is None):
        return False
    if a.scales is None or b.scales is None:
        return True
    return np.array_equal(a.scales[first : first + len(b.scales)], b.scales)


def _numbers(op: KpuConv, producers: dict[Tensor, Op]) -> str | None:
    """What is wrong with the codes in a layer's registers, where they are chosen."""
    numbers = op.numbers
    if numbers is None:
        return None
    before = producers.get(op.input)
    parts = before.inputs if isinstance(before, KpuConcat) else [op.input]
    zeros = {_zero(part) for part in parts}
    if len(zeros) > 1:
        return None if not padded(op) else "a padded layer reads one zero point"
    (zero,) = zeros
    if numbers.arg_w != -zero:
        return f"the registers subtract {-numbers.arg_w}, the input's zero point is {zero}"
    wanted = zero if op.pad_code is None else op.pad_code
    if padded(op) and numbers.pad_value != min(max(wanted, 0), 255):
        return f"the code around the map is {numbers.pad_value}, not {wanted}"
    return None


def _scales(op: Op, tensor: Tensor, graph: Graph, consumers: dict[Tensor, list[Op]]) -> str | None:
    """What is wrong with a map's scales channel by channel."""
    assert tensor.scales is not None
    assert tensor.quant is not None
    readers = consumers.get(tensor, [])
    if tensor in graph.outputs or not all(isinstance(r, (KpuConv, KpuConcat)) for r in readers):
        return "scales by channel are for maps that KPU layers read"
    if not isinstance(op, KpuConv) or len(tensor.scales) != tensor.shape[1]:
        return "scales by channel are given by KPU layers, one a channel"
    if not op.identity and not keeps_factors(
        op.fn, round(tensor.quant.zero_point), float(tensor.scales.max())
    ):
        return "scales by channel need a function that keeps factors"
    return None


def homogeneous(fn: functions.Fn) -> tuple[float, float] | None:
    """The bounds between which a function commutes with positive factors; None of others."""
    fn = functions.simplify(fn)
    clamp = functions.clamp_of(fn)
    if clamp is not None:
        return clamp if clamp[0] in (0.0, -math.inf) and clamp[1] > 0 else None
    return (-math.inf, math.inf) if len(fn) == 1 and fn[0][0] == "leaky" else None


def keeps_factors(fn: functions.Fn, zero_point: int, step: float) -> bool:
    """Whether channels with codes up to ``step`` apart may have scales of their own after
    ``fn``: none then reaches beyond its bound."""
    bounds = homogeneous(fn)
    return bounds is not None and (255 - zero_point) * step <= bounds[1] * (1 + 1e-9)
