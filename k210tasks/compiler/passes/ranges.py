"""Which reals the 256 codes of every tensor stand for.

Ranges are measured (calibration), known (an int8 source file, the preprocessing contract)
or follow from those of other tensors (:mod:`k210tasks.compiler.passes.bounds`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import agreement, executor, functions
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor, as_fed
from k210tasks.compiler.numerics import range_choice as choosing
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.numerics.channel_scales import MAP_MARGIN, margin
from k210tasks.compiler.numerics.fixed import finest_step
from k210tasks.compiler.ops import NEVER, Activated, Concat, KpuConcat, KpuConv, Quantize, copy_of
from k210tasks.compiler.passes import clamps
from k210tasks.compiler.passes.bounds import Bounds, Range, through
from k210tasks.compiler.problems import NoCalibration

INT8 = 127  # steps of a symmetric weight


class Ranges:
    """Measured or known ranges of tensors of the source file, by the method asked for."""

    def __init__(self, calibration: Calibration | None, method: choosing.Method):
        self.calibration, self.method = calibration, method
        self._chosen: dict[int, Range] = {}

    def of_source(self, index: int | None) -> Range | None:
        """The range of tensor ``index`` of the file; None where it was not measured."""
        if index is None or self.calibration is None:
            return None
        stats = self.calibration.tensors.get(index)
        if stats is None:
            return None
        if index not in self._chosen:
            h = stats.histogram
            low, high = choosing.choose(self.method, h.counts, h.width, stats.low, stats.high)
            if self.method == "minmax":  # what the samples did not show must not be cut off
                stretch = margin(MAP_MARGIN, stats.pixel_count * self.calibration.samples)
                low, high = low * stretch, high * stretch
            self._chosen[index] = low, high
        return self._chosen[index]

    def before(self, op: KpuConv) -> Range | None:
        """The range of a layer's values before its function."""
        return None if op.pre is None else self.of(op.pre.tensor)

    def of(self, tensor: Tensor) -> Range | None:
        """The range of a tensor of the graph: measured first, then known."""
        return self.of_source(tensor.source) or tensor.range


def quant_with(low: float, high: float, zero_point: int) -> Quant:
    """Codes for a range with a zero point that is given."""
    return Quant(choosing.scale_with(low, high, zero_point), zero_point)


#: share of a step, and of the codes for a zero point, by which two quantisations hardly differ
NEAR = 0.02


class Assigner:
    """Gives every uint8 tensor of a device graph its :class:`Quant`: one range a class of
    tensors whose codes must mean the same (:mod:`k210tasks.compiler.agreement`)."""

    def __init__(self, graph: Graph, ranges: Ranges, contract: Quant | None):
        self.graph, self.ranges, self.contract = graph, ranges, contract
        rescale_parts(graph)
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.codes, self.zeros = agreement.classes(graph)
        if ranges.calibration is None:
            self._join_as_filed()
        #: what a layer puts out -> its least step, for any of its channels
        self.least: dict[Tensor, float] = {}
        #: classes of codes by the class of zero points that they are in
        self._members: dict[Tensor, dict[Tensor, None]] = {}
        self._run: dict[Tensor, NDArray[Any]] | None = None
        self._bounds = Bounds(self.producers, self._known)

    def _join_as_filed(self) -> None:
        """Let the parts of a joined map have one scale, as a quantised file has it: with scales of
        their own its weights would be rounded anew, and nothing was measured to make up for it."""
        start = self.codes.of(self.graph.input)
        for op in self.graph.ops:
            if isinstance(op, KpuConcat) and op.output.source is not None:
                parts = [*op.inputs, op.output]
                if start not in map(self.codes.of, parts):
                    self.codes.join(*parts)
                    self.zeros.join(*parts)

    def assign(self) -> None:
        needed = self._ranges()
        zeros = {
            group: choosing.shared_zero_point([needed[own] for own in members])
            for group, members in self._members.items()
        }
        given = {}
        if self.graph.input.dtype == "uint8" and self.contract is not None:
            given[self.codes.of(self.graph.input)] = self.contract
        quants = {own: quant_with(*r, zeros[self.zeros.of(own)]) for own, r in needed.items()}
        given |= self._copied(needed, zeros, quants | given)
        quants = {own: quant_with(*r, zeros[self.zeros.of(own)]) for own, r in needed.items()}
        quants |= given
        self._parts(quants)
        self._shares(quants)
        for op in self.graph.ops:
            if isinstance(op, KpuConv) and not op.identity:
                own = self.codes.of(op.output)
                least = self.least[op.output] = self._least(op, quants)
                if quants[own].scale < least:  # next to nothing, or what never woke up
                    quants[own] = Quant(least, quants[own].zero_point)
        for tensor in self.graph.tensors():
            if tensor.dtype == "uint8":
                tensor.quant = quants[self.codes.of(tensor)]
        self._settle_copies()

    def _copied(
        self, needed: dict[Tensor, Range], zeros: dict[Tensor, int], quants: dict[Tensor, Quant]
    ) -> dict[Tensor, Quant]:
        """Classes that can have the codes of what is copied into them, where theirs would be
        almost the same: values rounded to steps that differ by little have errors of one sign.
        Brings ``zeros``, by class of zero points, in line."""
        found: dict[Tensor, Quant] = {}
        for op in self.graph.ops:
            if not isinstance(op, KpuConv) or not op.rescales:
                continue
            own, origin = self.codes.of(op.output), quants[self.codes.of(op.input)]
            group, ratio = self.zeros.of(own), quants[own].scale / origin.scale
            whole = origin.zero_point == round(origin.zero_point)
            near = abs(zeros[group] - origin.zero_point) <= NEAR * 255 and abs(ratio - 1) <= NEAR
            (low, high), half = needed[own], origin.scale / 2
            fits = origin.low - half <= low and high <= origin.high + half
            if near and whole and fits and group not in map(self.zeros.of, found):
                zeros[group] = round(origin.zero_point)
                found[own] = origin
        return found

    def shares_zero(self, tensor: Tensor) -> bool:
        """Whether maps of other scales have the zero point of this one."""
        return len(self._members[self.zeros.of(tensor)]) > 1

    def tells_apart(self, concat: Op) -> bool:
        """Whether the parts of a joined map may have scales of their own."""
        return agreement.sharing(self.consumers.get(concat.output, [])) != "codes"

    def _ranges(self) -> dict[Tensor, Range]:
        """Class -> a range wide enough for every map of it that is computed."""
        found: dict[Tensor, Range] = {}
        start = self.graph.input
        made = [(start, start)] if start.dtype == "uint8" else []
        for op in self.graph.ops:
            joins = isinstance(op, KpuConcat)
            if op.output.dtype == "uint8" and not joins and not agreement.moves(op):
                made.append((op.output, self._origin(op)))
        for tensor, origin in made:
            own = self.codes.of(tensor)
            writer = self.producers.get(tensor)
            clamp = _clamp(writer)
            if origin is start and self.contract is not None:
                low, high = self.contract.low, self.contract.high
            elif isinstance(writer, Quantize) and writer.part == "fine":
                low, high = 0.0, 0.0  # of no range: it is what another code leaves
            else:
                low, high = self._needed(origin)
                low, high = clamps.within(clamp, (low, high)) if clamp else (low, high)
            before = found.get(own, (0.0, 0.0))
            found[own] = min(before[0], low), max(before[1], high)
            self._members.setdefault(self.zeros.of(own), {})[own] = None
        return found

    def _parts(self, quants: dict[Tensor, Quant]) -> None:
        """What codes mean that clamp in two parts, the second of what the first leaves."""
        for op in self.graph.ops:
            if not isinstance(op, Quantize):
                continue
            if op.part == "coarse" and op.clamp is not None:
                measured = self._needed(op.output)
                quants[self.codes.of(op.output)] = clamps.coarse_quant(op.clamp, measured)
            elif op.part == "fine" and op.of is not None:
                coarse = quants[self.codes.of(op.of)]
                quants[self.codes.of(op.output)] = clamps.fine_quant(coarse)

    def _shares(self, quants: dict[Tensor, Quant]) -> None:
        """Let the steps of the squares that a product is made of be the same for sum and
        difference, and whole shares of the coarsest, as weights are: what is rounded or weighed
        in another way than its counterpart does not cancel."""
        for op in self.graph.ops:
            if not isinstance(op, KpuConv) or op.role != "product":
                continue
            owns = [self.codes.of(part) for part in self.producers[op.input].inputs]
            pairs = list(zip(owns[: len(owns) // 2], owns[len(owns) // 2 :], strict=True))
            share = max(quants[own].scale for own in owns) / INT8
            for pair in pairs:
                coarser = max(quants[own].scale for own in pair)
                count = math.ceil(coarser / share - 1e-9)
                for own in pair:
                    quants[own] = Quant(count * share, quants[own].zero_point)

    def _origin(self, op: Op) -> Tensor:
        """The tensor whose range ``op``'s output has: of a copy the one that is copied."""
        tensor = op.output
        while (isinstance(op, KpuConv) and op.rescales) or agreement.moves(op):
            tensor = op.input
            before = self.producers.get(tensor)
            if before is None or isinstance(before, (KpuConcat, Concat)):
                break
            op, tensor = before, before.output
        return tensor

    def _least(self, op: KpuConv, quants: dict[Tensor, Quant]) -> float:
        """The least step of a layer's output, from what it can compute before its function."""
        before = self.producers.get(op.input)
        parts = before.inputs if isinstance(before, KpuConcat) else [op.input]
        given = [quants[self.codes.of(t)] for t in parts]
        largest = max(max(-q.low, q.high) for q in given)
        values = largest * float(np.abs(op.weights).sum((1, 2, 3)).max(initial=0.0))
        bias = float(np.abs(op.bias).max(initial=0.0))
        if len({q.zero_point for q in given}) > 1:  # the bias takes up how they differ
            bias += values
        return finest_step(values + bias, bias)

    def _needed(self, tensor: Tensor) -> Range:
        found = self._known(tensor)
        if found is None:
            found = self._measured(tensor)
        if found is None:
            found = self._bounds.of(tensor)
        if found is None or not np.isfinite(found).all():
            raise NoCalibration(tensor.name)
        return found

    def _known(self, tensor: Tensor) -> Range | None:
        if tensor is self.graph.input and self.contract is not None:
            return self.contract.low, self.contract.high
        return self.ranges.of(tensor) or self._derived(tensor)

    def _derived(self, tensor: Tensor) -> Range | None:
        """From what the layer's function makes of a range measured before it."""
        op = self.producers.get(tensor)
        before = self.ranges.before(op) if isinstance(op, KpuConv) else None
        return through(op.fn, *before) if isinstance(op, KpuConv) and before else None

    def _measured(self, tensor: Tensor) -> Range | None:
        """By running the graph in float on the samples that calibration kept."""
        if self.ranges.calibration is None:
            return None
        if self._run is None:
            self._run = _extremes(self.graph, self.ranges.calibration)
        low, high = self._run[tensor]
        return float(low), float(high)

    def _settle_copies(self) -> None:
        """Let copies that need not scale anything be copies of codes again."""
        for op in self.graph.ops:
            if isinstance(op, KpuConv) and op.rescales:
                joined = isinstance(self.producers.get(op.input), KpuConcat)
                op.identity = not joined and op.input.quant == op.output.quant
                op.rescales = False


def rescale_parts(graph: Graph) -> None:
    """Let the copies among the parts that must share a zero point or more change the scale of
    what they copy, so that its other readers keep theirs; what is the model's input, whose
    codes are given, is copied for it. Edits ``graph``."""
    producers, consumers = graph.producers(), graph.consumers()
    for concat in [op for op in graph.ops if isinstance(op, KpuConcat)]:
        if agreement.sharing(consumers.get(concat.output, [])) == "nothing":
            continue
        for i, part in enumerate(concat.inputs):
            writer = producers.get(part)
            layer = isinstance(writer, KpuConv)
            if writer is None or (not layer and _given(part, graph, producers)):
                same = Tensor(f"{part.name}/copy", part.shape, "uint8", place="kpu")
                writer = copy_of(part, same, concat.origin)
                concat.inputs[i] = writer.output
                graph.ops.insert(graph.ops.index(concat), writer)
            if isinstance(writer, KpuConv) and writer.identity:
                writer.identity, writer.rescales = False, True


def _clamp(op: Op | None) -> Range | None:
    """Where the values end that an op can put out: a quantised file tells the range of a clamp
    that changes no codes as that of what it clamps."""
    if isinstance(op, Quantize) and op.clamp is not None:
        return op.clamp
    fn = functions.simplify(op.fn) if isinstance(op, Activated) else ()
    return fn[-1][1:] if fn and fn[-1][0] == "clamp" else None


def _given(tensor: Tensor, graph: Graph, producers: dict[Tensor, Op]) -> bool:
    """Whether the codes of ``tensor`` are those of the model's input."""
    op = producers.get(tensor)
    if op is not None and agreement.moves(op):
        return any(_given(part, graph, producers) for part in op.inputs)
    return tensor is graph.input


def _extremes(graph: Graph, calibration: Calibration) -> dict[Tensor, NDArray[Any]]:
    found: dict[Tensor, NDArray[Any]] = {}
    for sample in calibration.kept:
        x = np.asarray(sample, np.float32)[None]
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        for tensor, value in executor.run(graph, as_fed(x, graph.input), keep=True).items():
            near = value[np.abs(value) < -NEVER / 10]
            ends = np.array([near.min(initial=0.0), near.max(initial=0.0)])
            if tensor in found:
                ends = np.array([min(found[tensor][0], ends[0]), max(found[tensor][1], ends[1])])
            found[tensor] = ends
    return found
