"""Walking over the float graph: where it is fed, what each op needs to know of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import MAX_CHANNELS, MAX_HEIGHT, MIN_SIDE, Pixels, Value, fits
from k210tasks.compiler.problems import CompileError, Unsupported
from k210tasks.kmodel.quirks import misplaces_upload


class Legaliser:
    """The values of the float graph so far, and the device graph that computes them."""

    def __init__(
        self,
        graph: Graph,
        dev: Lowering,
        float_input: bool,
        refused: list[CompileError] | None,
    ):
        self.refused = refused
        self.graph = graph
        self.dev = dev
        self.values: dict[Tensor, Value] = {}
        self.consumers = graph.consumers()
        self.float_input = float_input

    def run(self, handlers: dict[type[Op], Handler]) -> Graph:
        start = self._input()
        for op in self.graph.ops:
            self.dev.origin = op.origin
            for tensor in op.inputs:
                if tensor.value is not None and tensor not in self.values:
                    self.values[tensor] = Value(tensor.shape, tensor.name, floats=tensor)
            try:
                handlers[type(op)](self, op)
                self._note(self.values[op.output])
            except CompileError as error:
                if self.refused is None:
                    raise
                self.refused.append(error)
                self._give_up(op)
        outputs = []
        for tensor in self.graph.outputs:
            if tensor.value is not None:
                raise Unsupported(
                    f"output {tensor.name!r}",
                    f"it is a constant of shape {list(tensor.shape)}, the same for every input",
                    "leave this output out and keep its values as a table on the board",
                )
            floats = self.dev.as_floats(self.values[tensor])
            if floats in outputs or floats is start:
                copy = ops.Concat([floats], axis=0)
                floats = self.dev.emit(copy, floats.shape, dtype="float32")
            outputs.append(floats)
        graph = Graph([start], outputs, self.dev.ops)
        graph.sort()
        return graph

    # -- the input

    def _input(self) -> Tensor:
        x = self.graph.input
        shape = x.shape
        readers = self.consumers.get(x, [])
        if len(shape) != 4 and readers and all(isinstance(op, ops.Reshape) for op in readers):
            maps = [op.output for op in readers if fits4(op.output.shape)]
            if maps and len({m.shape for m in maps}) == 1:
                shape = maps[0].shape  # fed as the map it is reshaped to: the same bytes
        self.dev.origin = ("the input",)
        v = Value(x.shape, x.name, x.source, x.range)
        self.values[x] = v
        if self.float_input:
            start = Tensor(x.name, x.shape, "float32", source=x.source, range=x.range)
            v.floats = start
            return start
        start = Tensor(x.name, shape, "uint8", source=x.source, range=x.range)
        mapped = len(shape) == 4 and fits(shape)
        on_kpu = mapped and x not in self.graph.outputs and all(_reads_maps(op) for op in readers)
        if self.dev.version == 3:
            if not mapped and self._starts_dense(x):
                start = Tensor(x.name, x.shape, "float32", source=x.source, range=x.range)
                v.floats = start
                return start
            if not mapped:
                start.shape = shape = self._as_some_map(x)
            start.place = "kpu"
            if not on_kpu:
                on_kpu_copy = self.dev.copy(start)
                on_kpu_copy.source, on_kpu_copy.range = x.source, x.range
                v.codes = self.dev.main_copy(on_kpu_copy)
                if shape != x.shape:
                    v.codes = self._first_of(v.codes, x)
                else:
                    v.map = Pixels.of(on_kpu_copy)
            else:
                v.map = Pixels.of(start)
        elif on_kpu:
            start.place = "kpu"
            v.map = Pixels.of(start)
        else:
            start.shape = x.shape
            v.codes = start
        return start

    def _first_of(self, codes: Tensor, x: Tensor) -> Tensor:
        """As many codes as ``x`` has, in its shape, from the start of a dense map of codes."""
        if codes.size != x.size:
            flat = self.dev.emit(ops.Reshape([codes]), (1, codes.size))
            codes = self.dev.emit(ops.Slice([flat], begin=(0, 0), strides=(1, 1)), (1, x.size))
        return self.dev.emit(ops.Reshape([codes]), x.shape, x)

    def _starts_dense(self, x: Tensor) -> bool:
        """Whether a kmodel 3 can be fed with floats: a dense layer takes them."""
        readers = self.consumers.get(x, [])
        dense = bool(readers) and all(isinstance(op, ops.Dense) for op in readers)
        alone = dense and len(x.shape) == 2 and x not in self.graph.outputs
        return alone and self.dev.runtime.starts_dense

    def _as_some_map(self, x: Tensor) -> tuple[int, ...]:
        """The map that the values of ``x`` are fed as: a kmodel 3 starts with a convolution, and
        what comes after it reads the same bytes in another shape.

        Rows and columns of its own where it has just these; else as square as can be, of one
        channel if that is possible, with some more values at the end if it is not.
        """
        own = [n for n in x.shape[1:] if n > 1] if len(x.shape) > 2 else []
        if len(own) == 2 and fits((1, 1, *own)):
            return (1, 1, *own)
        shapes = [s for s in _maps(x.size) if not misplaces_upload(self.dev.runtime, 0, *s[2:])]
        for shape in shapes:
            if math.prod(shape) == x.size:
                return shape
        if shapes and shapes[0][1] == 1:
            return min((s for s in shapes if s[1] == 1), key=math.prod)
        raise Unsupported(
            f"input {x.name!r} of shape {list(x.shape)}",
            "a kmodel 3 starts with a convolution on a map of 4x4 to 512x256 pixels "
            f"and at most 1024 channels, which {x.size} values cannot make",
            "needs kmodel 4",
        )

    def _give_up(self, op: Op) -> None:
        """Let the ops after a refused one be looked at all the same."""
        v = self.new(op.output)
        v.floats = Tensor(op.output.name, op.output.shape, "float32", source=op.output.source)

    def _note(self, v: Value) -> None:
        """Let the layers that compute ``v`` know where in their maps its values are."""
        for part in v.parts:
            self._note(part)
        if v.vector is not None:
            tensor, shown = v.vector[0], ops.Shown(v.vector[1], (1, 1), (1, 1))
        elif v.map is not None:
            tensor, shown = v.map.tensor, ops.Shown(v.map.offset, v.map.stride, v.map.size)
        else:
            return
        writer = self.dev.producers.get(tensor)
        for one in writer.inputs if isinstance(writer, ops.KpuConcat) else [tensor]:
            layer = self.dev.producers.get(one)
            if isinstance(layer, ops.KpuConv) and one.source == v.source:
                layer.shown = shown

    # -- helpers of the handlers

    def value(self, tensor: Tensor) -> Value:
        return self.values[tensor]

    def new(self, tensor: Tensor) -> Value:
        """The value of an output being written."""
        v = Value(tensor.shape, tensor.name, tensor.source, tensor.range)
        self.values[tensor] = v
        return v

    def alone(self, tensor: Tensor) -> bool:
        """Whether one op reads ``tensor`` and no output is it."""
        return len(self.consumers.get(tensor, ())) == 1 and tensor not in self.graph.outputs

    def last(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is an output, or becomes one by a softmax alone; kmodel 4 only."""
        readers = self.consumers.get(tensor, [])
        if self.dev.version == 3:
            return False
        if tensor in self.graph.outputs:
            return not readers
        one = len(readers) == 1 and isinstance(readers[0], ops.Softmax)
        return one and self.last(readers[0].output)

    def wants_kpu(self, tensor: Tensor, depth: int = 3) -> bool:
        """Whether a reader of ``tensor`` will run on the KPU."""
        for op in self.consumers.get(tensor, ()):
            if _reads_maps(op):
                return True
            if (
                depth
                and isinstance(op, (ops.Concat, ops.Slice, ops.Pad, ops.Resize))
                and self.wants_kpu(op.output, depth - 1)
            ):
                return True
        return False


def _maps(size: int) -> Iterator[tuple[int, ...]]:
    """Shapes of maps that the KPU can be fed with and that hold ``size`` values, with less than
    a row more than that: those of few channels first, of these the squarest first."""
    for channels in range(1, MAX_CHANNELS + 1):
        if size % channels:
            continue
        pixels = size // channels
        for h in sorted(range(MIN_SIDE, MAX_HEIGHT + 1), key=lambda h: (abs(h * h - pixels), h)):
            shape = (1, channels, h, max(-(-pixels // h), MIN_SIDE))
            if fits(shape):
                yield shape


def fits4(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape can be an input map."""
    return len(shape) == 4 and fits(shape)


def _reads_maps(op: Op) -> bool:
    """Whether an op takes its feature maps from KPU RAM, as far as its kind and shape say."""
    if len(op.output.shape) != 4:
        return False
    if isinstance(op, ops.Conv):
        return op.groups in (1, op.input.shape[1])
    if isinstance(op, ops.Pool):
        return op.how == "max"
    return isinstance(op, ops.Map) or (isinstance(op, ops.Binary) and op.how in ("add", "sub"))


#: what makes a :class:`Value` of the output of an op of its kind
Handler = Callable[..., None]
