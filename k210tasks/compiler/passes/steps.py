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
from k210tasks.compiler.numerics import ranges as choosing
from k210tasks.compiler.numerics.calibration import TensorStats
from k210tasks.compiler.numerics.steps import (
    BALANCE,
    FREE_BALANCE,
    channel_steps,
    telling_pixels,
)
from k210tasks.compiler.passes.ranges import Assigner, Ranges


def assign_steps(graph: Graph, assigner: Assigner, ranges: Ranges) -> None:
    """Set ``steps`` of every map that can have them and was measured."""
    calibration = ranges.calibration
    if calibration is None:
        return
    for op in graph.ops:
        if op.kind != "kpu_conv" or op.attrs["identity"] or op.output.quant is None:
            continue
        bounds = agreement.homogeneous(op.attrs["fn"])
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
        steps = channel_steps(low, high, span, zero_point, pixels, balance=balance)
        if not agreement.keeps_factors(op.attrs["fn"], zero_point, float(steps.max())):
            continue
        op.output.quant = Quant(float(steps.max()), zero_point)
        op.output.steps = steps
        _hand_on(op.output, assigner)


def _channels_kept(op: Op) -> bool:
    """Whether a layer that passes codes on has output channel i made of input channel i."""
    w = op.attrs["weights"]
    if op.attrs["depthwise"]:
        return True
    return bool(w.shape[0] == w.shape[1] and np.count_nonzero(w) == w.shape[0]
                and np.array_equal(w.sum((2, 3)), np.eye(len(w))))  # fmt: skip


def _only_layers_read(tensor: Tensor, assigner: Assigner) -> bool:
    """Whether every reader folds scales into weights, or hands the codes on to such readers."""
    writer = assigner.producers[tensor]
    if len(writer.outputs) > 1 or tensor in assigner.graph.outputs:
        return False
    readers = assigner.consumers.get(tensor, [])
    for op in readers:
        if op.kind == "kpu_concat":
            if not assigner.tells_apart(op):
                return False
        elif op.kind != "kpu_conv" or not (
            not op.attrs["identity"]
            or (_channels_kept(op) and _only_layers_read(op.output, assigner))
        ):
            return False
    return bool(readers)


def _depthwise_only(tensor: Tensor, assigner: Assigner) -> bool:
    """Whether only depthwise layers read the codes of ``tensor``, copies included."""
    for op in assigner.consumers.get(tensor, []):
        if op.kind != "kpu_conv":
            return False
        if op.attrs["identity"]:
            if not _depthwise_only(op.output, assigner):
                return False
        elif not op.attrs["depthwise"]:
            return False
    return True


def _hand_on(tensor: Tensor, assigner: Assigner) -> None:
    """Give the steps and the scale of a map to the copies made of it."""
    for op in assigner.consumers.get(tensor, []):
        if op.kind == "kpu_conv" and op.attrs["identity"]:
            op.output.quant, op.output.steps = tensor.quant, tensor.steps
            _hand_on(op.output, assigner)


def _extremes(
    op: Op, ranges: Ranges
) -> tuple[NDArray[np.float32], NDArray[np.float32], int] | None:
    """Measured minimum and maximum of each output channel, and on how many pixels."""
    assert ranges.calibration is not None
    source, pre = op.output.source, op.attrs.get("pre")
    channels = op.output.shape[1]
    first = op.attrs["computes"][5] if op.attrs.get("computes") else 0
    for index, fn in ((source, ()), (pre, op.attrs["fn"])):
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
