"""Which maps may have a scale for each channel, and giving it to them.

A map only KPU layers read needs no common scale: its readers fold each channel's into
their weights. It must be written by a layer whose function commutes with a positive
factor, as linear layers, ReLU and leaky ReLU do; ReLU6 does, too, when no channel's codes
reach beyond six.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import agreement, functions
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics import range_choice as choosing
from k210tasks.compiler.numerics.calibration import TensorStats
from k210tasks.compiler.numerics.channel_scales import (
    BALANCE,
    FREE_BALANCE,
    channel_scales,
    telling_pixels,
)
from k210tasks.compiler.ops import KpuConcat, KpuConv
from k210tasks.compiler.passes.ranges import Assigner, Ranges


def assign_scales(graph: Graph, assigner: Assigner, ranges: Ranges) -> None:
    """Set ``scales`` of every map that can have them and was measured."""
    calibration = ranges.calibration
    if calibration is None:
        return
    for op in graph.ops:
        if not isinstance(op, KpuConv) or op.identity or op.output.quant is None:
            continue
        bounds = agreement.homogeneous(op.fn)
        if bounds is None or not _only_layers_read(op.output, assigner):
            continue
        extremes = _extremes(op, ranges)
        if extremes is None:
            continue
        low, high, pixels = extremes
        quant = op.output.quant
        span = (max(quant.low, bounds[0]), min(quant.high, bounds[1]))
        zero_point = round(quant.zero_point)
        if not assigner.shares_zero(op.output):
            zero_point = choosing.quantisation(*span)[1]
        # A depthwise layer takes a channel's scale back in its batch norm, at no cost; in any
        # other it changes how far the weights of one output differ.
        balance = FREE_BALANCE if _depthwise_only(op.output, assigner) else BALANCE
        scales = channel_scales(low, high, span, zero_point, pixels, balance=balance)
        scales = np.maximum(scales, assigner.least[op.output])
        if not agreement.keeps_factors(op.fn, zero_point, float(scales.max())):
            continue
        op.output.quant = Quant(float(scales.max()), zero_point)
        op.output.scales = scales
        _hand_on(op.output, assigner)


def _channels_kept(op: KpuConv) -> bool:
    """Whether a layer that passes codes on has output channel i made of input channel i."""
    w = op.weights
    if op.depthwise:
        return True
    return bool(w.shape[0] == w.shape[1] and np.count_nonzero(w) == w.shape[0]
                and np.array_equal(w.sum((2, 3)), np.eye(len(w))))  # fmt: skip


def _only_layers_read(tensor: Tensor, assigner: Assigner) -> bool:
    """Whether every reader folds scales into weights, or hands the codes on to such readers."""
    writer = assigner.producers[tensor]
    if len(writer.outputs) > 1 or tensor in assigner.graph.outputs:
        return False
    readers = assigner.consumers.get(tensor, [])
    return bool(readers) and all(_takes_scales(op, assigner) for op in readers)


def _takes_scales(op: Op, assigner: Assigner) -> bool:
    if isinstance(op, KpuConcat):
        return assigner.tells_apart(op)
    if not isinstance(op, KpuConv) or (op.identity and not _channels_kept(op)):
        return False
    # Moved into a map of one scale, values would be rounded twice, to steps that are almost the
    # same: an error of one sign.
    return not (op.identity or _moves(op)) or _only_layers_read(op.output, assigner)


def _moves(op: KpuConv) -> bool:
    """Whether every channel that a layer puts out is one that it reads."""
    w = op.weights
    ones = not op.depthwise and np.count_nonzero(w) == len(w) == np.count_nonzero(w == 1)
    return bool(ones and w.any((1, 2, 3)).all() and not op.bias.any() and not op.fn)


def _depthwise_only(tensor: Tensor, assigner: Assigner) -> bool:
    """Whether only depthwise layers read the codes of ``tensor``, copies included."""
    for op in assigner.consumers.get(tensor, []):
        if not isinstance(op, KpuConv):
            return False
        if op.identity:
            if not _depthwise_only(op.output, assigner):
                return False
        elif not op.depthwise:
            return False
    return True


def _hand_on(tensor: Tensor, assigner: Assigner) -> None:
    """Give the scales of a map to the copies made of it."""
    for op in assigner.consumers.get(tensor, []):
        if isinstance(op, KpuConv) and op.identity:
            op.output.quant, op.output.scales = tensor.quant, tensor.scales
            _hand_on(op.output, assigner)


def _extremes(
    op: KpuConv, ranges: Ranges
) -> tuple[NDArray[np.float32], NDArray[np.float32], int] | None:
    """Measured minimum and maximum of each output channel, and on how many pixels."""
    assert ranges.calibration is not None
    source, pre = op.output.source, None if op.pre is None else op.pre.tensor.source
    channels = op.output.shape[1]
    first = op.computes.first if op.computes else 0
    for index, fn in ((source, ()), (pre, op.fn)):
        stats = ranges.calibration.tensors.get(index) if index is not None else None
        if stats is None or len(stats.channel_low) < first + channels:
            continue
        part = slice(first, first + channels)
        low, high = (_through(fn, v[part]) for v in (stats.channel_low, stats.channel_high))
        return low, high, _pixels(stats, ranges)
    return None


def _through(fn: functions.Fn, values: NDArray[Any]) -> NDArray[np.float32]:
    return functions.evaluate(fn, values.astype(np.float32))


def _pixels(stats: TensorStats, ranges: Ranges) -> int:
    assert ranges.calibration is not None
    return telling_pixels(stats.pixel_count, ranges.calibration.samples)
