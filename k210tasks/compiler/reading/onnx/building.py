"""The graph under construction while an ONNX file is read, and what its handlers share.

Maps are N,C,H,W in the file as in the graph. One-dimensional ones (N, C, length) are worked on as
maps of a single row, (N, C, 1, length), for as long as ops go along with that: ``rows`` holds
these, and whatever needs the shape of the file gets it by a reshape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.ops import Reshape, Transpose
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.state import Builder
from k210tasks.compiler.shape_laws import MOST_VALUES

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Operands:
    """Inputs of a node in one layout. ``rank`` is that of the file; ``row``: whether they are
    one-dimensional maps as maps of one row."""

    tensors: list[Tensor]
    rank: int
    row: bool

    def axis(self, axis: int) -> int:
        """An axis of the file, from 0 on, in the layout of the tensors."""
        return axis + 1 if self.row and axis == 2 else axis


class Building(Builder):
    """Tensors by their names in the file: ``constants``, ``tensors`` as the file has them, and
    ``rows``. ``start`` is the input; ``numbers`` gives tensors of the file their ``source``."""

    def __init__(
        self,
        constants: dict[str, NDArray[Any]],
        numbers: dict[str, int],
        wanted: set[str],
        start: Tensor,
    ) -> None:
        super().__init__()
        self.constants = dict(constants)
        self.start = start
        self.numbers = numbers
        self.tensors: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        #: scale and zero point of what the file has in codes
        self.codes: dict[str, tuple[float, float]] = {}
        #: every name that is read by a node, or put out
        self.wanted = wanted

    # -- what a node reads

    def knows(self, name: str) -> bool:
        return name in self.constants or name in self.tensors or name in self.rows

    def shape(self, name: str) -> Shape:
        """As the file has it."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        if name in self.tensors:
            return self.tensors[name].shape
        n, c, _, length = self.rows[name].shape
        return (n, c, length)

    def const(self, node: Node, i: int) -> NDArray[Any] | None:
        """The value of an input that is a constant; None where it is computed or left out."""
        return self.constants.get(node.input(i))

    def wholes(self, node: Node, i: int, what: str) -> list[int] | None:
        """Whole numbers that an input holds; None where it is left out."""
        if not node.input(i):
            return None
        value = self.const(node, i)
        if value is None:
            raise node.unsupported(f"{what} is computed", "export the model with fixed sizes")
        if value.dtype.kind not in "iu":
            raise node.unsupported(f"{what} is no list of whole numbers")
        return [int(n) for n in value.ravel()]

    def floats(self, node: Node, i: int, what: str) -> NDArray[np.float32]:
        """A constant of finite floats."""
        value = self.const(node, i)
        if value is None:
            raise node.unsupported(
                f"{what} {'is left out' if not node.input(i) else 'is computed'}"
            )
        if value.dtype.kind not in "fiub":
            raise node.unsupported(f"{what} holds {value.dtype.name} values")
        value = value.astype(np.float32)
        if not np.isfinite(value).all():
            raise node.unsupported(f"{what} holds infinity or values that are no number")
        return value

    def tensor(self, name: str) -> Tensor:
        """A tensor in the file's own shape."""
        if name in self.constants:
            return self._constant(name, self.constants[name])
        if name not in self.tensors:
            self.tensors[name] = self.emit(Reshape([self.rows[name]]), self.shape(name))
        return self.tensors[name]

    def map(self, node: Node, i: int = 0) -> Tensor:
        """An input as a map of four dimensions; refused where it is none."""
        name = node.input(i)
        shape = self.shape(name)
        if len(shape) not in (3, 4):
            raise node.unsupported(f"the input has shape {list(shape)}, it must be a map")
        if shape[0] != 1:
            raise node.unsupported(f"the input has shape {list(shape)}, the batch must be 1")
        if len(shape) == 4:
            return self.tensor(name)
        if name not in self.rows:
            n, c, length = shape
            self.rows[name] = self.emit(Reshape([self.tensor(name)]), (n, c, 1, length))
        return self.rows[name]

    def operands(self, node: Node, names: Iterable[str] | None = None) -> Operands:
        """Inputs of a node, all as rows if one of them is a row, in the rank of the longest."""
        given = list(node.inputs if names is None else names)
        rank = max(len(self.shape(n)) for n in given)
        row = rank == 3 and any(n in self.rows for n in given)
        return Operands([self._as(n, rank, row=row) for n in given], rank, row)

    def _as(self, name: str, rank: int, *, row: bool) -> Tensor:
        """A tensor with leading ones up to ``rank``, as a row if that is asked for."""
        if row and name in self.rows:
            return self.rows[name]
        shape = (1,) * (rank - len(self.shape(name))) + self.shape(name)
        if row:
            shape = (*shape[:2], 1, shape[2])
        if name in self.constants:
            return self._constant(name, self.constants[name].reshape(shape))
        x = self.tensor(name)
        return x if x.shape == shape else self.emit(Reshape([x]), shape)

    def _constant(self, name: str, value: NDArray[Any]) -> Tensor:
        value = np.asarray(value, np.float32)
        return Tensor(name, value.shape, value=value)

    # -- what it puts out

    def named(self, name: str, shape: Shape) -> Tensor:
        """A new tensor of the graph that holds what the file's of that name does."""
        return Tensor(name, tuple(int(n) for n in shape), source=self.numbers.get(name))

    def put(
        self, node: Node, op: Op, shape: Iterable[int], *, row: bool = False, which: int = 0
    ) -> None:
        """Write output ``which`` of a node: ``shape`` in the layout of ``row``."""
        self.let(node, self.write(op, self.named(node.outputs[which], tuple(shape))), row, which)

    def let(self, node: Node, x: Tensor, row: bool = False, which: int = 0) -> None:
        """``x``, which is there already, as an output of a node."""
        if len(x.shape) == 4 and x.shape[0] != 1 and x.value is None:
            raise node.unsupported(
                f"output {node.outputs[which]!r} has shape {list(x.shape)}, the batch must be 1"
            )
        if x.size > MOST_VALUES:
            raise node.unsupported(
                f"{node.outputs[which]!r} has shape {list(x.shape)}: more than any K210 holds"
            )
        (self.rows if row else self.tensors)[node.outputs[which]] = x

    def hold(self, node: Node, x: Tensor, *, row: bool = False) -> None:
        """As :meth:`let`, and ``x`` is what the file calls by that name, if it is nothing else."""
        if x.source is None and x.value is None:
            x.source, x.name = self.numbers.get(node.outputs[0]), node.outputs[0]
        self.let(node, x, row)

    def put_like(self, node: Node, op: Op, of: Operands, shape: Iterable[int]) -> None:
        """Write the output in the layout of the operands."""
        self.put(node, op, shape, row=of.row)

    def turned(self, x: Tensor, perm: tuple[int, ...]) -> Tensor:
        """``x`` with its axes in another order."""
        if perm == tuple(range(len(perm))):
            return x
        return self.emit(Transpose([x], perm=perm), tuple(x.shape[p] for p in perm))


def fits(node: Node, shape: Iterable[int]) -> Shape:
    """A shape that some K210 could hold; refused otherwise, before anything is made of it."""
    dims = tuple(int(n) for n in shape)
    if any(n < 1 for n in dims) or math.prod(dims) > MOST_VALUES:
        raise node.unsupported(f"it makes a tensor of shape {list(dims)}")
    return dims


def axis_of(node: Node, axis: int, rank: int) -> int:
    """An axis that may count from the end."""
    if not -rank <= axis < rank:
        raise node.unsupported(f"axis {axis} of an input of {rank} dimensions")
    return axis % rank
