"""ReLU and its like on floats in main memory, in layers that every runtime of kmodel 3 has.

The format has a field for it in its dense layer, which most runtimes ignore. What every
runtime clamps is ``Quantize``: codes end at 0 and 255. Readers of codes take one whose range
ends where the function does; readers of floats take two, one for what the other's rounding
left, which is as exact as 16 bits are:

    coarse = Quantize(x)               in steps of s, of which 256.5 span the range
    fine   = Quantize(x - coarse)      -s/2 .. s
    y      = coarse + fine

Below the range coarse and fine are both at their lowest, half a step above the range's lower
end and half a step below zero: y is that end. Above it, in the same way, the upper end. A
runtime that cuts off where others round leaves more to the fine part, which has room for it.
"""

from __future__ import annotations

import math

from k210tasks.compiler.functions import Primitive
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.ops import Binary, Dequantize, Quantize
from k210tasks.compiler.passes.device import Device

MARGIN = 4.0  # an open end of the range, as a factor of what was measured: 16 bits can spare two
STEPS = 256.5  # of the coarse code in the whole range
FINE = Quant(1.5 / 255, 85)  # codes of what the coarse code leaves, in its steps: -0.5 .. 1.0


def on_codes(clamp: Primitive) -> bool:
    """Whether one code can do it: codes always include zero."""
    return bool(clamp[1] <= 0 <= clamp[2])


def codes(dev: Device, like: Tensor, x: Tensor, clamp: Primitive) -> Tensor:
    """``clamp`` of the floats ``x``, which ``like`` says of the source, as codes."""
    return dev.emit(Quantize([x], clamp=(clamp[1], clamp[2])), like.shape, like)


def floats(dev: Device, like: Tensor, x: Tensor, clamp: Primitive) -> Tensor:
    """``clamp`` of the floats ``x`` as floats."""

    def layer(op: Op, like: Tensor) -> Tensor:
        return dev.emit(op, like.shape, like, dtype="float32")

    def named(what: str) -> Tensor:
        return Tensor(f"{like.name}/{what}", like.shape)

    first = Quantize([x], clamp=(clamp[1], clamp[2]), part="coarse")
    coarse = dev.emit(first, like.shape, like)
    less = layer(Dequantize([coarse], negated=True), named("less"))
    rest = layer(Binary([x, less], how="add"), named("rest"))
    fine = dev.emit(Quantize([rest], part="fine", of=coarse), like.shape, named("fine"))
    parts = [layer(Dequantize([code]), named("part")) for code in (coarse, fine)]
    return layer(Binary(parts, how="add"), like)


def coarse_quant(clamp: tuple[float, float], measured: tuple[float, float]) -> Quant:
    """Codes of the coarse part: the middles of the steps."""
    low, high = clamp
    if math.isinf(low):
        anchor = high if math.isfinite(high) else 0.0
        low = anchor - MARGIN * max(anchor - measured[0], 1e-6)
    if math.isinf(high):
        high = low + MARGIN * max(measured[1] - low, 1e-6)
    step = (high - low) / STEPS
    return Quant(step, -low / step - 0.5)


def fine_quant(coarse: Quant) -> Quant:
    """Codes of the fine part."""
    return Quant(FINE.scale * coarse.scale, FINE.zero_point)


def within(clamp: tuple[float, float], measured: tuple[float, float]) -> tuple[float, float]:
    """The range of one code that clamps: what was measured, nowhere wider than the clamp."""
    return max(clamp[0], min(measured[0], 0.0)), min(clamp[1], max(measured[1], 0.0))


def holds(op: Op) -> bool:
    """Whether the range of an op that has to clamp ends where the clamp does, to half a step."""
    quant = op.output.quant
    if not isinstance(op, Quantize) or op.clamp is None or op.part is not None or quant is None:
        return True
    low, high = op.clamp
    half = quant.scale * 0.500001
    return quant.low >= low - half and quant.high <= high + half


def hold_clamps(graph: Graph, ranges: object = None) -> None:
    """Clamp by a code of its own first, where another layer's needs have widened the range of
    one that had to clamp. Edits ``graph``."""
    for op in [op for op in graph.ops if isinstance(op, Quantize) and not holds(op)]:
        wide = op.output.quant
        assert op.clamp is not None
        assert wide is not None
        low, high = op.clamp
        op.clamp = None
        # The zero point is a whole code in both, so zero stays zero.
        low, high = max(low, wide.low), min(high, wide.high)
        step = max((high - low) / 255, 1e-30)
        own = Quant(step, -low / step)
        code = Tensor(f"{op.output.name}/clamped", op.output.shape, "uint8", quant=own)
        real = Tensor(f"{op.output.name}/real", op.output.shape)
        at = graph.ops.index(op)
        graph.ops[at:at] = [
            Quantize([op.input], [code], op.origin, clamp=(low, high)),
            Dequantize([code], [real], op.origin),
        ]
        op.inputs = [real]
