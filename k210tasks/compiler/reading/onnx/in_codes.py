"""Ops on codes, as onnxruntime's quantised models have them: each is an op on reals between the
scales that stand among its inputs (onnxruntime, docs/ContribOperators.md; ONNX's QLinearMatMul).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.reading.onnx import pointwise, reducing, shaping, windowed
from k210tasks.compiler.reading.onnx.building import Building
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.onnx.scaled import note_codes, range_of, with_range

MICROSOFT = "com.microsoft"
_HANDLERS = {**pointwise.HANDLERS, **reducing.HANDLERS, **shaping.HANDLERS, **windowed.HANDLERS}


@dataclass(frozen=True, slots=True)
class InCodes:
    """``real``: the op on reals. ``operands``: of each the number of the input that holds its
    codes, behind which scale and zero point stand; None: all from the third input on.
    ``output``: the input that holds the output's scale. ``attributes``: what the op on reals has,
    too; ``zero``: attributes that must be 0."""

    real: str
    operands: tuple[int, ...] | None
    output: int
    attributes: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()


_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

OPS: dict[str, InCodes] = {
    "QLinearAdd": InCodes("Add", (0, 3), 6),
    "QLinearMul": InCodes("Mul", (0, 3), 6),
    "QLinearSigmoid": InCodes("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": InCodes("LeakyRelu", (0,), 3, ("alpha",)),
    "QLinearConcat": InCodes("Concat", None, 0, ("axis",)),
    "QLinearAveragePool": InCodes("AveragePool", (0,), 3, _WINDOW, ("channels_last",)),
    "QLinearGlobalAveragePool": InCodes("GlobalAveragePool", (0,), 3, (), ("channels_last",)),
    "QLinearSoftmax": InCodes("Softmax", (0,), 3, ("axis",)),
    "QGemm": InCodes("Gemm", (0, 3), 7, ("alpha", "transA", "transB")),
    "QLinearMatMul": InCodes("MatMul", (0, 3), 6),
}
#: The one whose meaning is that of an opset, which it names.
_OF_OPSET = "opset"


def attributes_of(op: str) -> set[str]:
    """Those that an op of onnxruntime may have."""
    row = OPS[op]
    return {*row.attributes, *row.zero, *({_OF_OPSET} if row.real == "Softmax" else ())}


def on_codes(r: Building, node: Node) -> None:
    """The op on reals, whose output has the range of its codes."""
    row = OPS[node.op]
    for name in row.zero:
        if node.whole(name, 0):
            raise node.unsupported(f"{name} is {node.attributes[name]}", "0 is possible")
    starts = range(2, len(node.inputs), 3) if row.operands is None else row.operands
    given = [_real(r, node, i) for i in starts]
    if row.real == "Gemm" and node.input(6):
        given.append(_bias(r, node))
    attributes = {k: node.attributes[k] for k in row.attributes if k in node.attributes}
    opset = node.whole(_OF_OPSET, 13) if row.real == "Softmax" else max(node.opset, 13)
    real = replace(node, op=row.real, inputs=tuple(given), attributes=attributes, opset=opset)
    _HANDLERS[row.real](r, real)
    if node.input(row.output):
        name = node.outputs[0]
        y = r.rows.get(name) or r.tensor(name)
        with_range(y, range_of(r, node, row.output, row.output + 1))
        note_codes(r, node, row.output, row.output + 1)


def _real(r: Building, node: Node, i: int) -> str:
    """The name of an operand in reals: its own where it is computed, a new constant's otherwise."""
    name = node.input(i)
    if not name:
        raise node.unsupported(f"input {i + 1} is left out")
    if r.const(node, i) is None:
        with_range(r.rows.get(name) or r.tensor(name), range_of(r, node, i + 1, i + 2))
        return name
    codes = r.floats(node, i, f"input {name!r}")
    scale, zero = _scales(r, node, i + 1)
    if {scale.size, zero.size} - {1}:  # one a column of what a MatMul multiplies with
        axis = 0 if node.op == "QGemm" and node.whole("transB", 0) else codes.ndim - 1
        if codes.ndim != 2 or {scale.size, zero.size} - {1, codes.shape[axis]}:
            raise node.unsupported(f"{scale.size} scales for {name!r} of {list(codes.shape)}")
        shape = (-1, 1) if axis == 0 else (1, -1)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return _constant(r, node, i, (codes - zero) * scale)


def _scales(r: Building, node: Node, i: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = r.floats(node, i, "the scale").ravel()
    zero = np.zeros(1, np.float32)
    return scale, r.floats(node, i + 1, "the zero point").ravel() if node.input(i + 1) else zero


def _bias(r: Building, node: Node) -> str:
    """Codes of 32 bits, whose scale is the product of the operands'."""
    codes = r.floats(node, 6, "the bias").astype(np.float64)
    scale = _scales(r, node, 1)[0].astype(np.float64) * _scales(r, node, 4)[0]
    return _constant(r, node, 6, codes * scale)


def _constant(r: Building, node: Node, i: int, values: NDArray[np.floating]) -> str:
    """A name that no file has, for the reals of an input."""
    name = f"{node.outputs[0]}\n{i}"
    r.constants[name] = values.astype(np.float32)
    return name


HANDLERS = dict.fromkeys(OPS, on_codes)
