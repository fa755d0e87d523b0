"""Numbers of the KPU layers: weights as codes, batch norm, activation table, offsets.

Layers are done in order, each on what the layers before it really put out, so that the
rounding of a layer can make up for theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics import layer as solving
from k210tasks.compiler.numerics import tables, weights
from k210tasks.compiler.numerics.fixed import batch_norm
from k210tasks.compiler.passes.ranges import FINEST_STEP, Assigner, Ranges
from k210tasks.kpu.tables import Activation, BatchNorm

if TYPE_CHECKING:
    from k210tasks.compiler.passes.optimise import Optimiser


MIDDLE = 127.5  # of all codes


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A KPU layer as the registers and blobs hold it (reference, sections 1.6 to 1.9)."""

    codes: NDArray[np.integer]  # shape of the weights, uint8 or uint16
    arg_x: int
    arg_w: int
    arg_add: int
    pad_value: int
    bn: BatchNorm
    activation: Activation


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
    parts = op.inputs if op is not None and op.kind == "kpu_concat" else [tensor]
    scale, zero = [], []
    for part in parts:
        assert part.quant is not None
        scale.append(part.scales)
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

    op: Op
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    zero: int
    middles: NDArray[np.float64]

    @property
    def out(self) -> Quant:
        assert self.op.output.quant is not None
        return self.op.output.quant


def prepare(op: Op, producers: dict[Tensor, Op]) -> Layer:
    """The float layer on its input's codes."""
    w = op.attrs["weights"].astype(np.float64)
    codes = input_codes(op.input, producers)
    depthwise = op.attrs["depthwise"]
    shape = (-1, 1, 1, 1) if depthwise else (1, -1, 1, 1)
    w = w * codes.scale.reshape(shape)
    bias = op.attrs["bias"].astype(np.float64)
    zero = round(float(codes.zero_point[0])) if codes.uniform else 0
    shift = codes.zero_point - zero
    if shift.any():
        total = w.sum((2, 3))
        bias = bias - (total[:, 0] * shift if depthwise else total @ shift)
    taps = w.shape[2] * w.shape[3]
    middles = np.repeat(MIDDLE - codes.zero_point, taps)
    return Layer(
        op, w.reshape(len(w), -1), bias, zero, middles.reshape(-1, taps) if depthwise else middles
    )


def finish(
    layer: Layer,
    rounded: weights.QuantisedWeights,
    bias: NDArray[np.float64],
    pre_range: tuple[float, float] | None,
) -> Numbers:
    """Batch norm, activation table and offsets for rounded weights; ``bias`` in reals."""
    op, out = layer.op, layer.out
    w = op.attrs["weights"]
    codes = rounded.codes.reshape(w.shape)
    spread = np.abs(rounded.codes.astype(np.float64) - rounded.zero_point).sum(1) * 255
    table, bn = _stages(op, out, rounded.scale, bias, spread, pre_range)
    taps = w.shape[2] * w.shape[3]
    return Numbers(
        codes,
        arg_x=-rounded.zero_point,
        arg_w=-layer.zero,
        arg_add=taps * rounded.zero_point * layer.zero,
        pad_value=pad_code(op, layer),
        bn=bn,
        activation=Activation.of(table.start, table.mul, table.shift, table.bias),
    )


def _stages(
    op: Op,
    out: Quant,
    scale: NDArray[np.float64],
    bias: NDArray[np.float64],
    spread: NDArray[np.float64],
    pre_range: tuple[float, float] | None,
) -> tuple[tables.ActivationTable, BatchNorm]:
    fn = functions.simplify(op.attrs["fn"])
    zero = round(out.zero_point)
    steps = op.output.scales
    what = ", ".join(op.origin)
    clamp = functions.clamp_of(fn)
    if clamp is not None or (len(fn) == 1 and fn[0][0] == "leaky" and 0 < fn[0][1] <= 1):
        curved = clamp is None
        limit = tables.CURVE_FRACTION if curved else 12
        made = batch_norm(
            scale / steps, bias / steps, acc_limit=spread, max_fraction=limit, what=what
        )
        if clamp is None:
            table = tables.leaky(made.fraction, zero, float(fn[0][1]))
        else:
            low, high = (_code(out, v) for v in clamp)
            table = tables.linear(made.fraction, zero, low, high)
    else:
        low_real, high_real = pre_range or _bounds(scale, bias, spread)
        low_real, high_real = min(low_real, 0.0), max(high_real, 0.0)
        bounds = fn[0][1:] if fn[0][0] == "clamp" else (-math.inf, math.inf)
        low_real, high_real = (min(max(end, bounds[0]), bounds[1]) for end in (low_real, high_real))
        reach = float((scale * spread + np.abs(bias)).max())
        unit = max((high_real - low_real) / 255, reach * FINEST_STEP, 1e-9)
        made = batch_norm(
            scale / unit,
            bias / unit,
            acc_limit=spread,
            max_fraction=tables.CURVE_FRACTION,
            what=what,
        )
        step = unit * 2.0**-made.fraction

        def curve(v: NDArray[np.float64]) -> NDArray[np.float64]:
            y = functions.evaluate(fn, v * step)
            return np.nan_to_num(y / out.scale + zero, nan=0.0, posinf=1e9, neginf=-1e9)

        fitted = tables.fit(
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


def identity(op: Op) -> weights.QuantisedWeights:
    """Weights of a layer that passes codes on: one where the kernel is one, nothing else."""
    w = op.attrs["weights"]
    codes = w.reshape(len(w), -1).astype(np.uint8)
    return weights.QuantisedWeights(codes, 0, op.output.scales)


def quantise(
    graph: Graph,
    ranges: Ranges,
    contract: Quant | None,
    *,
    bits: int = 8,
    effort: str = "normal",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> None:
    """Give every code tensor its scale and every KPU layer its ``numbers``.

    ``contract`` is what the codes of the input mean, None to use its measured range.
    Without calibration data weights go to their nearest codes.
    """
    from k210tasks.compiler.passes import kpu_binary, optimise, steps

    assigner = Assigner(graph, ranges, contract)
    assigner.assign()
    steps.assign_steps(graph, assigner, ranges)
    kpu_binary.whole_weights(graph)
    calibration = ranges.calibration
    optimiser = None
    if calibration is not None:
        optimiser = optimise.Optimiser(graph, calibration, optimise.EFFORTS[effort])
    with optimise.one_thread():
        for number, op in enumerate(graph.ops):
            if op.kind == "kpu_conv":
                layer = prepare(op, assigner.producers)
                op.attrs["numbers"] = _numbers(layer, optimiser, ranges, bits)
            if optimiser is not None:
                optimiser.advance(op)
            progress(number + 1, len(graph.ops), "quantising")


def _numbers(layer: Layer, optimiser: Optimiser | None, ranges: Ranges, bits: int) -> Numbers:
    op = layer.op
    if op.attrs["identity"]:
        return finish(layer, identity(op), np.zeros_like(layer.bias), None)
    if optimiser is not None:
        rounded, bias = optimiser.choose(op, layer, bits)
    else:
        inputs = solving.Inputs.unmeasured(layer.middles)
        rounded, bias = solving.round_layer(layer.weights, inputs, bits=bits), layer.bias
    return finish(layer, rounded, bias, ranges.before(op))


def pad_code(op: Op, layer: Layer) -> int:
    """The code the KPU puts around the map."""
    return min(max(int(op.attrs.get("pad_code", layer.zero)), 0), 255)
