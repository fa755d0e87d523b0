"""The graph the compiler works on: tensors that are written once, ops in execution order.

Layout: a tensor of rank 4 is **N,C,H,W** from the reader on, whatever the source file
says; tensors of other ranks keep the order of the source file. Where a change of rank
makes the difference visible (a reshape of a feature map, say) the reader puts explicit
``transpose`` ops around it, and later passes move or fold them. So a rank-4 tensor with
``source`` 7 holds the values of tensor 7 of the ``.tflite`` transposed by (0, 3, 1, 2);
any other rank holds them as they are. N is always 1.

Passes never change a tensor's meaning in place: they make new tensors and ops. A tensor
that computes exactly what a tensor of the source file holds keeps its index in
``source``, so that calibration data measured on the source file can be found for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

DType = Literal["float32", "uint8", "int32"]
Place = Literal["main", "kpu"]


@dataclass(frozen=True, slots=True)
class Quant:
    """Codes to reals: ``real = (code - zero_point) * scale``, codes 0..255.

    The zero point is a whole number but for an input whose preprocessing makes it none:
    with mean 0.5 the code of real zero would be 127.5.
    """

    scale: float
    zero_point: float

    @property
    def low(self) -> float:
        """The real value of code 0."""
        return -self.zero_point * self.scale

    @property
    def high(self) -> float:
        """The real value of code 255."""
        return (255 - self.zero_point) * self.scale

    def encode(self, real: NDArray[Any]) -> NDArray[np.uint8]:
        """Nearest codes, clamped to 0..255; float64 arithmetic."""
        q = np.rint(np.asarray(real, np.float64) / self.scale + self.zero_point)
        return np.clip(q, 0, 255).astype(np.uint8)

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Reals of codes, float32."""
        real = (codes.astype(np.float64) - self.zero_point) * self.scale
        return real.astype(np.float32)


@dataclass(eq=False, slots=True)
class Tensor:
    """One value. Compared by identity.

    ``value`` is set for constants only. ``range`` holds (min, max) in reals where they
    are known without measuring (an int8 source file, the preprocessing contract).
    ``quant`` is set on uint8 tensors from the quantise pass on, ``place`` by legalise.
    ``scales`` float64 [C], where set, are those of the channels one by one (none above
    ``quant.scale``): a map that only KPU layers read need not have one scale for all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType = "float32"
    value: NDArray[Any] | None = None
    source: int | None = None
    range: tuple[float, float] | None = None
    quant: Quant | None = None
    scales: NDArray[np.float64] | None = None
    place: Place = "main"

    @property
    def channel_scales(self) -> NDArray[np.float64]:
        """Scale of each index of axis 1, for a tensor of codes."""
        assert self.quant is not None
        return np.full(self.shape[1], self.quant.scale) if self.scales is None else self.scales

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __repr__(self) -> str:
        return f"{self.name}{list(self.shape)}"


@dataclass(eq=False, slots=True)
class Op:
    """One computation; its kinds are the classes of :mod:`k210tasks.compiler.ops`.

    ``origin`` says for messages which ops of the source file it stands for, e.g.
    ``("CONV_2D #3",)``.
    """

    inputs: list[Tensor]
    outputs: list[Tensor] = field(default_factory=list)
    origin: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Its kind in words, for names and messages: ``kpu_conv``."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def output(self) -> Tensor:
        return self.outputs[0]

    @property
    def input(self) -> Tensor:
        return self.inputs[0]

    def __repr__(self) -> str:
        return f"{self.kind} {self.inputs} -> {self.outputs}"


@dataclass(eq=False, slots=True)
class Graph:
    """Ops in execution order; ``inputs`` holds exactly one tensor."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    ops: list[Op] = field(default_factory=list)

    @property
    def input(self) -> Tensor:
        return self.inputs[0]

    def producers(self) -> dict[Tensor, Op]:
        """Of every tensor an op writes; a snapshot, stale once the graph is edited."""
        return {t: op for op in self.ops for t in op.outputs}

    def consumers(self) -> dict[Tensor, list[Op]]:
        """The ops that read a tensor, in order, once per op; a snapshot."""
        found: dict[Tensor, list[Op]] = {}
        for op in self.ops:
            for tensor in dict.fromkeys(op.inputs):
                found.setdefault(tensor, []).append(op)
        return found

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor once: inputs, then in the order of the ops."""
        seen: set[Tensor] = set()
        for group in (self.inputs, *((*op.inputs, *op.outputs) for op in self.ops), self.outputs):
            for tensor in group:
                if tensor not in seen:
                    seen.add(tensor)
                    yield tensor

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Let every reader of ``old``, the graph's outputs too, read ``new``."""
        for op in self.ops:
            op.inputs = [new if t is old else t for t in op.inputs]
        self.outputs = [new if t is old else t for t in self.outputs]

    def sort(self) -> None:
        """Put the ops into a stable topological order and drop what no output needs."""
        producers = self.producers()
        order: dict[Op, None] = {}
        visiting: list[tuple[Op, int]] = []
        for output in self.outputs:
            root = producers.get(output)
            if root is None or root in order:
                continue
            visiting.append((root, 0))
            while visiting:
                op, position = visiting.pop()
                if op in order:
                    continue
                while position < len(op.inputs):
                    before = producers.get(op.inputs[position])
                    position += 1
                    if before is not None and before not in order:
                        visiting.append((op, position))
                        visiting.append((before, 0))
                        break
                else:
                    order[op] = None
        self.ops = list(order)


def as_fed(x: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Samples [N, ...] in IR layout as a graph's input ``tensor`` is fed with them: [N, ...] in
    its shape, with zeros at the end where it holds more values."""
    flat = x.reshape(len(x), -1)
    more = tensor.size - flat.shape[1]
    return np.pad(flat, ((0, 0), (0, more))).reshape(len(x), *tensor.shape[1:])


def nchw(shape: Iterable[int]) -> tuple[int, ...]:
    """The IR's shape of a tensor with this TFLite shape."""
    dims = tuple(int(n) for n in shape)
    return (dims[0], dims[3], dims[1], dims[2]) if len(dims) == 4 else dims


def nhwc(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The TFLite shape of a tensor with this IR shape."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def to_nchw(value: NDArray[Any]) -> NDArray[Any]:
    """A TFLite tensor's value in the IR's layout."""
    return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
