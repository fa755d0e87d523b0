"""Codes and scales that the file states: QuantizeLinear, DequantizeLinear and QLinear ops.

The graph is in reals. What a file has in codes keeps the range that its scale and zero point say,
so that such a model needs no samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.onnx.windowed import convolved


def _number(r: Building, node: Node, i: int, what: str) -> float:
    value = r.floats(node, i, what)
    if value.size != 1:
        raise node.unsupported(
            f"{what} has {value.size} values", "quantise activations with one scale a tensor"
        )
    return float(value.ravel()[0])


def range_of(r: Building, node: Node, scale: int, zero: int) -> tuple[float, float]:
    """The reals that codes reach, of inputs that hold scale and zero point."""
    step = _number(r, node, scale, "the scale")
    point = _number(r, node, zero, "the zero point") if node.input(zero) else 0.0
    code = r.const(node, zero)
    dtype = np.dtype(np.uint8) if code is None else code.dtype
    if dtype not in (np.dtype(np.int8), np.dtype(np.uint8)) or not step > 0:
        raise node.unsupported(
            f"codes of {dtype.name} with a scale of {step:g}", "quantise to 8 bits"
        )
    ends = np.iinfo(dtype)
    return (ends.min - point) * step, (ends.max - point) * step


def with_range(x: Tensor, ends: tuple[float, float]) -> None:
    if x.range is None:
        x.range = ends


def requantized(r: Building, node: Node) -> None:
    """QuantizeLinear and DequantizeLinear of computed values: reals stay as they are."""
    name = node.inputs[0]
    x = r.rows.get(name) or r.tensor(name)
    with_range(x, range_of(r, node, 1, 2))
    if node.op == "QuantizeLinear":
        note_codes(r, node, 1, 2)
    r.let(node, x, row=name in r.rows)


def note_codes(r: Building, node: Node, scale: int, zero: int) -> None:
    """Note what the codes of the output stand for."""
    point = _number(r, node, zero, "the zero point") if node.input(zero) else 0.0
    r.codes[node.outputs[0]] = (_number(r, node, scale, "the scale"), point)


def _weights(r: Building, node: Node, i: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Weights in reals and a scale for each output channel, of inputs i, i + 1 and i + 2."""
    codes, scale = r.floats(node, i, "the kernel"), r.floats(node, i + 1, "its scale")
    zero = r.floats(node, i + 2, "its zero point") if node.input(i + 2) else np.zeros(1, np.float32)
    if {scale.size, zero.size} - {1, len(codes)}:
        raise node.unsupported(f"the kernel has {scale.size} scales for {len(codes)} channels")
    around = (-1,) + (1,) * (codes.ndim - 1)
    scales = np.broadcast_to(scale.ravel().astype(np.float64), (len(codes),))
    real = (codes - zero.reshape(around)) * scale.reshape(around)
    return real.astype(np.float32), scales


def qlinear_conv(r: Building, node: Node) -> None:
    x = r.map(node)
    step = _number(r, node, 1, "the input's scale")
    with_range(x, range_of(r, node, 1, 2))
    weights, scales = _weights(r, node, 3)
    bias = np.zeros(len(weights), np.float32)
    if node.input(8):
        bias = (r.floats(node, 8, "the bias").ravel() * step * scales).astype(np.float32)
    if weights.ndim == 3:
        weights = weights[:, :, None]
    with_range(convolved(r, node, x, weights, bias), range_of(r, node, 6, 7))
    note_codes(r, node, 6, 7)


HANDLERS = {
    "QuantizeLinear": requantized,
    "DequantizeLinear": requantized,
    "QLinearConv": qlinear_conv,
}
