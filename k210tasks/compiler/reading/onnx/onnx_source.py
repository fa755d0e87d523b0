"""An ``.onnx`` as the compiler sees it: its graph, ports, and which tensors can be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Graph, Tensor, nchw, nhwc
from k210tasks.compiler.problems import SeveralInputs, Unsupported, UnsupportedOps
from k210tasks.compiler.reading.onnx.building import Building
from k210tasks.compiler.reading.onnx.file import (
    BadOnnx,
    External,
    OnnxFile,
    Sizes,
    parse,
    tensor_names,
)
from k210tasks.compiler.reading.onnx.folding import fold
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.onnx.onnx_rules import rule_of, violations
from k210tasks.compiler.reading.onnx.resizing import HANDLERS as RESIZING
from k210tasks.compiler.reading.onnx.windowed import HANDLERS as WINDOWED
from k210tasks.compiler.source_ops import SourceOp, SourceTensor
from k210tasks.errors import visible

#: how N,H,W,C becomes N,C,H,W, and back
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)

#: kinds that put out values of other tensors
_MOVING = (ops.Reshape, ops.Transpose, ops.Concat, ops.Slice, ops.Pad)


@dataclass(frozen=True, slots=True)
class Presented:
    """A tensor as it is counted in: maps channels last, (1, H, W, C), one-dimensional ones as
    (1, 1, length, C), others as the file has them.

    ``name`` is the file's, ``inner`` the shape of the graph's tensor; ``last``: the file itself
    has channels last. ``moved``: it holds values of other tensors, and none of its own.
    """

    name: str
    inner: tuple[int, ...]
    last: bool = False
    moved: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return nhwc(self.inner)

    def of_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """The file's array in :attr:`shape`."""
        if self.last or len(self.inner) != 4:
            return values.reshape(self.shape)
        return values.reshape(self.inner).transpose(_TO_NHWC)

    def to_file(self, values: NDArray[Any]) -> NDArray[Any]:
        """An array of :attr:`shape` as the file has it, but for its number of dimensions."""
        if self.last or len(self.inner) != 4:
            return values
        return values.transpose(_TO_NCHW)


class OnnxSource:
    """An ONNX file taken apart: ``ops`` in execution order, ``inputs`` and ``outputs`` with maps
    channels last, as those of :class:`k210tasks.compiler.source.Source`.

    ``sizes``: shapes of inputs whose dimensions the file leaves open, as the file orders them.
    ``external`` gives the bytes of a file beside the model; see
    :func:`k210tasks.compiler.reading.onnx.file.parse`, also for what is raised.
    """

    def __init__(self, data: bytes, sizes: Sizes | None = None, external: External | None = None):
        self.data = data
        self.file: OnnxFile = parse(data, sizes, external)
        self.ops: list[SourceOp] = []
        #: what is not taken, and why
        self.found: list[tuple[SourceOp, list[str]]] = []
        #: scale and zero point of outputs that are codes
        self.codes: dict[str, tuple[float, float]] = {}
        self._names = list(dict.fromkeys(tensor_names(self.file)))
        self._last: set[str] = set()
        self._graph: Graph | None = None
        r = self._read()
        others = [SourceTensor(-1, name, (), "FLOAT32") for name in self.file.others]
        self.inputs = [self._port(self.file.input, self.file.shape), *others]
        self.outputs: list[SourceTensor] = []
        self.tensors: dict[int, Presented] = {}
        if not self.found and not others:
            self._graph = self._built(r)
            if len(self.file.shape) == 4:
                self.inputs = [self._port(self.file.input, self._graph.input.shape)]
            ends = zip(self.file.outputs, self._graph.outputs, strict=True)
            self.outputs = [self._port(name, t.shape) for name, t in ends]
            self.tensors = self._presented(self._graph)

    def graph(self) -> Graph:
        """The graph, new at every call, since passes change it.

        Raises :class:`UnsupportedOps` naming all nodes that are not taken, or
        :class:`SeveralInputs`.
        """
        self.require()
        graph, self._graph = self._graph, None  # the first is there
        return graph or self._built(self._read())

    def require(self) -> None:
        """Raise what :meth:`graph` would."""
        if self.file.others:
            raise SeveralInputs([t.name for t in self.inputs])
        if self.found:
            raise UnsupportedOps(self.found)

    def one_sample(self) -> None:
        """Raise :class:`BadOnnx` for a model that takes several samples at once."""
        if self.file.shape[0] != 1:
            raise BadOnnx(
                f"input {self.file.input!r} has shape {list(self.file.shape)}; the batch must be "
                "1, since a K210 runs one sample at a time"
            )

    @property
    def channels_first(self) -> bool:
        """Whether the file has channels first in its input, which is counted channels last."""
        return len(nchw(self.inputs[0].shape)) == 4 and self.file.input not in self._last

    def _port(self, name: str, inner: tuple[int, ...]) -> SourceTensor:
        """An input or output whose tensor of the graph has the shape ``inner``."""
        number = self._names.index(name) if name in self._names else -1
        return SourceTensor(number, name, nhwc(inner), "FLOAT32")

    def of_port(self, port: SourceTensor) -> Presented:
        """How the arrays of an input or output are counted in."""
        return Presented(port.name, nchw(port.shape), port.name in self._last)

    # -- reading

    @np.errstate(all="ignore")  # constants that become infinite are met where they are used
    def _read(self) -> Building:
        """All nodes, as far as they are taken."""
        file = self.file
        numbers = {name: k for k, name in enumerate(self._names)}
        wanted = {*file.outputs, *(name for node in file.nodes for name in node.inputs)}
        start = Tensor(file.input, file.shape, source=0)
        r = Building(file.constants, numbers, wanted, start)
        if len(file.shape) == 3 and _feeds_windows(file):
            n, c, length = file.shape
            start.shape = (n, c, 1, length)
            r.rows[file.input] = start
        else:
            r.tensors[file.input] = start
        self.codes = r.codes
        self.ops, self.found, lost = [], [], set[str]()
        for node in file.nodes:
            op = SourceOp(node.op, node.index, node.opset, [], [], {}, node.title)
            reasons = self._take(r, node, op, lost)
            reasons = None if reasons is None else [visible(reason) for reason in reasons]
            if reasons is not None:
                lost.update(node.outputs)
            if reasons:
                self.found.append((op, reasons))
            if op.outputs or reasons:  # others are constants
                self.ops.append(op)
        return r

    def _take(self, r: Building, node: Node, op: SourceOp, lost: set[str]) -> list[str] | None:
        """None where the node was read; else why not, nothing where others are to blame."""
        r.label = node.label
        names = [n for n in node.inputs if n]
        if lost.intersection(names):
            known = rule_of(node) is not None or (
                node.domain == "" and node.op in ("Constant", "Shape")
            )
            return [] if known else violations(r, node)
        if unknown := [n for n in names if not r.knows(n)]:
            return [f"tensor {unknown[0]!r} is read before it is written"]
        try:
            if fold(r, node):
                return None
            if reasons := violations(r, node):
                return reasons
            rule = rule_of(node)
            assert rule is not None
            rule.handler(r, node)
        except Unsupported as error:
            return [error.reason + (f"; {error.remedy}" if error.remedy else "")]
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            return [f"it is malformed ({type(error).__name__}: {error})"]
        op.outputs = [
            SourceTensor(r.numbers[n], n, r.shape(n), "FLOAT32")
            for n in node.outputs
            if n and r.knows(n)
        ]
        return None

    def _built(self, r: Building) -> Graph:
        outputs = []
        for name in self.file.outputs:
            if not r.knows(name):
                raise BadOnnx(f"output {name!r} is never written")
            if name in r.constants:
                raise BadOnnx(f"output {name!r} is a constant, there is nothing to compute")
            outputs.append(r.tensor(name))
            if len(outputs[-1].shape) > 4:
                raise BadOnnx(
                    f"output {name!r} has shape {list(outputs[-1].shape)}, at most four dimensions "
                    "are carried"
                )
        graph = Graph([r.start], outputs, r.ops)
        graph.sort()
        self._head(graph)
        self._tails(graph)
        return graph

    def _presented(self, graph: Graph) -> dict[int, Presented]:
        """Every tensor of the file that the graph has, as maps where one of them is a map."""
        found: dict[int, Presented] = {}
        far = {op.output for op in graph.ops if isinstance(op, ops.Pad) and op.value <= ops.FAR}
        written = [(graph.input, False)]
        written += [(op.output, isinstance(op, _MOVING)) for op in graph.ops]
        for tensor, moved in written:
            if tensor.source is None or tensor in far:
                continue
            before = found.get(tensor.source)
            inner = tensor.shape
            if before is not None:
                moved = moved and before.moved
                inner = before.inner if len(before.inner) == 4 else inner
            name = self._names[tensor.source]
            found[tensor.source] = Presented(name, inner, name in self._last, moved)
        return found

    def _head(self, graph: Graph) -> None:
        """A model fed with N,H,W,C turns that first of all: the board feeds what comes out."""
        start = graph.input
        readers = [op for op in graph.ops if start in op.inputs]
        turned = all(isinstance(op, ops.Transpose) and op.perm == _TO_NCHW for op in readers)
        if len(start.shape) != 4 or not readers or not turned or start in graph.outputs:
            return
        fed = readers[0].output
        for op in readers:
            graph.replace(op.output, fed)
            graph.ops.remove(op)
        fed.source, fed.name, graph.inputs = start.source, start.name, [fed]
        self._last.add(self.file.input)

    def _tails(self, graph: Graph) -> None:
        """Maps that are turned to N,H,W,C last of all are put out as they are."""
        for op in list(graph.ops):
            if (
                isinstance(op, ops.Transpose)
                and op.perm == _TO_NHWC
                and op.output in graph.outputs
                and not any(op.output in other.inputs for other in graph.ops)
            ):
                self._last.add(op.output.name)
                graph.outputs = [op.input if t is op.output else t for t in graph.outputs]
                graph.ops.remove(op)


def _feeds_windows(file: OnnxFile) -> bool:
    """Whether a convolution or pool reads the input itself."""
    readers = [node for node in file.nodes if file.input in node.inputs]
    maps = {*WINDOWED, *RESIZING, "BatchNormalization"}
    return any(node.op in maps for node in readers)
