"""A KPU layer before its weights are rounded, and its numbers once they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.ir import Op, Quant, Tensor
from k210tasks.compiler.numerics import segments, weights
from k210tasks.compiler.numerics.fixed import batch_norm, finest_step
from k210tasks.compiler.ops import KpuConcat, KpuConv, Numbers
from k210tasks.compiler.passes.bounds import Range
from k210tasks.kpu.tables import Activation, BatchNorm

MIDDLE = 127.5  # of all codes


@dataclass(frozen=True, slots=True, eq=False)
class InputCodes:
    """Per input channel, real = (code - zero_point) * scale; ``uniform`` where one whole zero
    point serves all."""

    scale: NDArray[np.float64]
    zero_point: NDArray[np.float64]

    @property
    def uniform(self) -> bool:
        return len(set(np.rint(self.zero_point).tolist())) == 1


def input_codes(tensor: Tensor, producers: dict[Tensor, Op]) -> InputCodes:
    """The codes of a KPU tensor, part by part where it is joined from parts."""
    op = producers.get(tensor)
    parts = op.inputs if isinstance(op, KpuConcat) else [tensor]
    scale, zero = [], []
    for part in parts:
        assert part.quant is not None
        scale.append(part.channel_scales)
        zero.append(np.full(part.shape[1], float(part.quant.zero_point)))
    return InputCodes(np.concatenate(scale), np.concatenate(zero))


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A KPU layer before its weights are rounded, in units of input codes.

    ``weights`` float64 [OC, K], K over input channels and taps (depthwise: over taps);
    ``bias`` float64 [OC] in reals, with what a zero point that is no whole code adds;
    ``zero`` is the whole input zero point the accumulator subtracts, ``middles`` [K] (depthwise:
    [OC, K]) the middle of all codes less the zero point of each input.
    """

    op: KpuConv
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    zero: int
    middles: NDArray[np.float64]

    @property
    def around(self) -> int:
        """What lies around the map, as a code that may be none."""
        return self.zero if self.op.pad_code is None else self.op.pad_code

    @property
    def out(self) -> Quant:
        assert self.op.output.quant is not None
        return self.op.output.quant


def prepare(op: KpuConv, producers: dict[Tensor, Op]) -> Layer:
    """The float layer on its input's codes."""
    w = op.weights.astype(np.float64)
    codes = input_codes(op.input, producers)
    shape = (-1, 1, 1, 1) if op.depthwise else (1, -1, 1, 1)
    w = w * codes.scale.reshape(shape)
    bias = op.bias.astype(np.float64)
    zero = round(float(codes.zero_point[0])) if codes.uniform else 0
    shift = codes.zero_point - zero
    if shift.any():
        total = w.sum((2, 3))
        bias = bias - (total[:, 0] * shift if op.depthwise else total @ shift)
    taps = w.shape[2] * w.shape[3]
    middles = np.repeat(MIDDLE - codes.zero_point, taps)
    around = middles.reshape(-1, taps) if op.depthwise else middles
    return Layer(op, w.reshape(len(w), -1), bias, zero, around)


def finish(
    layer: Layer,
    rounded: weights.QuantisedWeights,
    bias: NDArray[np.float64],
    pre_range: Range | None,
) -> Numbers:
    """Batch norm, activation table and offsets for rounded weights; ``bias`` in reals."""
    op, out = layer.op, layer.out
    w = op.weights
    codes = rounded.codes.reshape(w.shape)
    spread = np.abs(rounded.codes.astype(np.float64) - rounded.zero_point).sum(1) * 255
    table, bn = _stages(op, out, rounded.scale, bias, spread, pre_range)
    taps = w.shape[2] * w.shape[3]
    return Numbers(
        codes,
        arg_x=-rounded.zero_point,
        arg_w=-layer.zero,
        arg_add=taps * rounded.zero_point * layer.zero,
        pad_value=min(max(layer.around, 0), 255),
        bn=bn,
        activation=Activation.of(table.start, table.mul, table.shift, table.bias),
    )


def _stages(
    op: KpuConv,
    out: Quant,
    scale: NDArray[np.float64],
    bias: NDArray[np.float64],
    spread: NDArray[np.float64],
    pre_range: Range | None,
) -> tuple[segments.ActivationTable, BatchNorm]:
    fn = functions.simplify(op.fn)
    zero = round(out.zero_point)
    scales = op.output.channel_scales
    what = ", ".join(op.origin)
    clamp = functions.clamp_of(fn)
    if clamp is not None or (len(fn) == 1 and fn[0][0] == "leaky" and 0 < fn[0][1] <= 1):
        curved = clamp is None
        limit = segments.CURVE_FRACTION if curved else 12
        made = batch_norm(
            scale / scales, bias / scales, acc_limit=spread, max_fraction=limit, what=what
        )
        if clamp is None:
            table = segments.leaky(made.fraction, zero, float(fn[0][1]))
        else:
            low, high = (_code(out, v) for v in clamp)
            table = segments.linear(made.fraction, zero, low, high)
    else:
        low_real, high_real = pre_range or _bounds(scale, bias, spread)
        low_real, high_real = min(low_real, 0.0), max(high_real, 0.0)
        bounds = fn[0][1:] if fn[0][0] == "clamp" else (-math.inf, math.inf)
        low_real, high_real = (min(max(end, bounds[0]), bounds[1]) for end in (low_real, high_real))
        most = float(np.abs(bias).max())
        least = finest_step(float((scale * spread).max()) + most, most)
        unit = max((high_real - low_real) / 255, least, 1e-9)
        made = batch_norm(
            scale / unit,
            bias / unit,
            acc_limit=spread,
            max_fraction=segments.CURVE_FRACTION,
            what=what,
        )
        step = unit * 2.0**-made.fraction

        def curve(v: NDArray[np.float64]) -> NDArray[np.float64]:
            y = functions.evaluate(fn, v * step)
            return np.nan_to_num(y / out.scale + zero, nan=0.0, posinf=1e9, neginf=-1e9)

        fitted = segments.fit(
            curve,
            round(low_real / step),
            round(high_real / step),
            constant_above=high_real == bounds[1],
        )
        table = fitted.table
    return table, BatchNorm.of(made.mul, made.shift, made.add)


def _code(quant: Quant, real: float) -> int:
    if not np.isfinite(real):
        return 0 if real < 0 else 255
    return int(np.clip(round(real / quant.scale) + quant.zero_point, 0, 255))


def _bounds(
    scale: NDArray[np.float64], bias: NDArray[np.float64], spread: NDArray[np.float64]
) -> tuple[float, float]:
    reach = scale * spread
    return float((bias - reach).min()), float((bias + reach).max())


def identity(op: KpuConv) -> weights.QuantisedWeights:
    """Weights of a layer that passes codes on: one where the kernel is one, nothing else."""
    codes = op.weights.reshape(len(op.weights), -1).astype(np.uint8)
    return weights.QuantisedWeights(codes, 0, op.output.channel_scales)
