"""Which reals the 256 codes of every tensor stand for.

Ranges are measured (calibration), known (an int8 source file, the preprocessing contract)
or follow from those of another tensor: what only moves or selects codes keeps them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import executor, functions
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor, as_fed
from k210tasks.compiler.numerics import ranges as choosing
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.numerics.steps import MAP_MARGIN, margin
from k210tasks.compiler.passes import clamps
from k210tasks.compiler.problems import NoCalibration

#: kinds whose output codes are input codes, moved, selected or repeated
MOVING = {
    "kpu_part", "turn", "upload", "slice", "pad", "reshape", "transpose", "resize", "pool",
    "add_padding", "remove_padding", "concat",
}  # fmt: skip

#: least step of an output as a share of what its layer can reach: the batch norm's multiplier
#: and sum have to fit their registers, and a channel's own step may be finer still, by the
#: FINEST of numerics/steps.py
FINEST_STEP = 2.0**-25

Range = tuple[float, float]


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

    def of(self, tensor: Tensor) -> Range | None:
        """The range of a tensor of the graph: measured first, then known."""
        return self.of_source(tensor.source) or tensor.range


def through(fn: functions.Fn, low: float, high: float) -> Range:
    """The range of ``fn`` over [low, high]."""
    y = functions.evaluate(fn, np.linspace(low, high, 1025))
    y = y[np.isfinite(y)]
    return (float(y.min()), float(y.max())) if y.size else (low, high)


def quant_of(low: float, high: float) -> Quant:
    scale, zero = choosing.quantisation(low, high)
    return Quant(scale, zero)


class Assigner:
    """Gives every uint8 tensor of a device graph its :class:`Quant`."""

    def __init__(self, graph: Graph, ranges: Ranges, contract: Quant | None):
        self.graph, self.ranges, self.contract = graph, ranges, contract
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self._run: dict[Tensor, NDArray[Any]] | None = None

    def assign(self) -> None:
        start = self.graph.input
        if start.dtype == "uint8":
            start.quant = self.contract or quant_of(*self._needed(start))
        for op in self.graph.ops:
            for tensor in op.outputs:
                if tensor.dtype == "uint8":
                    tensor.quant = self._quant(op, tensor)
            if op.kind == "kpu_concat" and not self.separate(op):
                self._unify(op)

    def _quant(self, op: Op, tensor: Tensor) -> Quant:
        given = op.input.quant
        if op.kind == "kpu_conv" and tensor is not op.output:
            assert op.output.quant is not None
            return op.output.quant
        if op.kind in MOVING or (op.kind == "kpu_conv" and op.attrs["identity"]):
            assert given is not None, op
            return given
        if op.kind == "kpu_concat":
            assert given is not None
            return given
        if op.attrs.get("part") == "fine":
            coarse = op.attrs["of"].quant
            assert coarse is not None
            return clamps.fine_quant(coarse)
        measured = self._needed(tensor)
        if "clamp" in op.attrs:
            if "part" in op.attrs:
                return clamps.coarse_quant(op.attrs["clamp"], measured)
            measured = clamps.within(op.attrs["clamp"], measured)
        quant = quant_of(*measured)
        if op.kind == "kpu_conv":
            least = self._reach(op) * FINEST_STEP
            if quant.scale < least:  # an output that is next to nothing, or never woke up
                wider = max(least / quant.scale, 1.0)
                quant = quant_of(quant.low * wider, quant.high * wider)
        return quant

    def _reach(self, op: Op) -> float:
        """The largest magnitude a layer can compute before its function."""
        before = self.producers.get(op.input)
        joined = before is not None and before.kind == "kpu_concat"
        parts = before.inputs if joined and before is not None else [op.input]
        quants = [t.quant for t in parts if t.quant is not None]
        largest = max(max(-q.low, q.high) for q in quants)
        weights = np.abs(op.attrs["weights"]).sum((1, 2, 3)).max(initial=0.0)
        return float(weights * largest + np.abs(op.attrs["bias"]).max(initial=0.0))

    def _needed(self, tensor: Tensor) -> Range:
        found = self.ranges.of(tensor)
        if found is None:
            found = self._derived(tensor)
        if found is None:
            found = self._measured(tensor)
        if found is None or not np.isfinite(found).all():
            raise NoCalibration(tensor.name)
        return found

    def _derived(self, tensor: Tensor) -> Range | None:
        """From what the layer's function makes of a range measured before it."""
        op = self.producers.get(tensor)
        if op is None or op.kind != "kpu_conv":
            return None
        before = self.ranges.of_source(op.attrs.get("pre"))
        return None if before is None else through(op.attrs["fn"], *before)

    def _measured(self, tensor: Tensor) -> Range | None:
        """By running the graph in float on the samples that calibration kept."""
        if self.ranges.calibration is None:
            return None
        if self._run is None:
            self._run = _extremes(self.graph, self.ranges.calibration)
        low, high = self._run[tensor]
        return float(low), float(high)

    def separate(self, concat: Op) -> bool:
        """Whether the readers of a joined map can tell its parts' scales apart: each folds
        them into its weights, and offsets too where no padding would see them."""
        zeros = {t.quant.zero_point for t in concat.inputs if t.quant is not None}
        readers = self.consumers.get(concat.output, [])
        for op in readers:
            if op.kind != "kpu_conv" or op.attrs["identity"]:
                return False
            if op.attrs["weights"].shape[2] == 3 and len(zeros) > 1:
                return False
        return bool(readers)

    def _unify(self, concat: Op) -> None:
        """One range for all parts of a joined map: wide enough for each."""
        quants = [t.quant for t in concat.inputs if t.quant is not None]
        if len(set(quants)) == 1:
            return
        joined = quant_of(min(q.low for q in quants), max(q.high for q in quants))
        for part in concat.inputs:
            writer = self.producers[part]
            for tensor in writer.outputs:
                tensor.quant = joined
            if writer.kind == "kpu_conv":
                writer.attrs["identity"] = False
            else:  # an upload: the codes it moves must have been made so
                self._requantise(writer, joined)
        concat.output.quant = joined

    def _requantise(self, op: Op, quant: Quant) -> None:
        """Let the codes that ``op`` moves be made with ``quant``."""
        source = op.input
        while (writer := self.producers.get(source)) is not None:
            source.quant = quant
            if writer.kind not in MOVING:
                for tensor in writer.outputs:
                    if tensor.dtype == "uint8":
                        tensor.quant = quant
                if writer.kind == "kpu_conv":
                    writer.attrs["identity"] = False
                return
            source = writer.input


def _extremes(graph: Graph, calibration: Calibration) -> dict[Tensor, NDArray[Any]]:
    found: dict[Tensor, NDArray[Any]] = {}
    for sample in calibration.kept:
        x = np.asarray(sample, np.float32)[None]
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        for tensor, value in executor.run(graph, as_fed(x, graph.input), keep=True).items():
            near = value[np.abs(value) < 1e29]
            ends = np.array([near.min(initial=0.0), near.max(initial=0.0)])
            if tensor in found:
                ends = np.array([min(found[tensor][0], ends[0]), max(found[tensor][1], ends[1])])
            found[tensor] = ends
    return found
