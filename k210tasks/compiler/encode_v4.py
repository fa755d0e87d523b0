"""A placed device graph as a kmodel of version 4 (reference, section 3)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from k210tasks.compiler import ops
from k210tasks.compiler.encoding import byte_table, registers, require, rows
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.ops import Activated
from k210tasks.compiler.passes.place import Memory, kpu_rows, nbytes
from k210tasks.compiler.problems import PassBroke
from k210tasks.kmodel import v4
from k210tasks.kmodel import v4_ops as nodes
from k210tasks.kmodel.codec import (
    CONST,
    FLOAT32,
    KPU,
    MAIN,
    NO_RANGE,
    UINT8,
    MemoryRange,
    Pad,
    QuantParam,
    Range,
    Scalar,
    Shape,
)
from k210tasks.kpu.layout import ROW_BYTES

FLT_MAX = NO_RANGE.high
BODY_ALIGN = 8  # bytes of the file
_BINARY = {name: op for op, name in enumerate(("add", "sub", "mul", "div", "min", "max"))}
_UNARY = {
    name: op
    for op, name in enumerate(
        ("abs", "ceil", "cos", "exp", "floor", "log", "neg", "rsqrt", "sin", "square")
    )
}
_REDUCE: dict[ops.Reduction, int] = {"mean": 0, "min": 1, "max": 2, "sum": 3}
_INIT: dict[ops.Reduction, float] = {"mean": 0.0, "sum": 0.0, "max": -FLT_MAX, "min": FLT_MAX}


def shape4(shape: tuple[int, ...], fill: int = 1) -> Shape:
    """A shape of rank up to 4 with leading ``fill``."""
    return Shape(*((fill,) * (4 - len(shape)) + tuple(shape)))


class _Encoder:
    def __init__(self, memory: Memory):
        self.memory = memory
        self.constants = bytearray()

    def mem(self, tensor: Tensor) -> MemoryRange:
        """Where a tensor is; constants are stored when first asked for."""
        if tensor.value is not None:
            return self.constant(np.ascontiguousarray(tensor.value, "<f4").tobytes(), FLOAT32)
        if tensor.place == "kpu":
            size = kpu_rows(tensor) * ROW_BYTES
            return MemoryRange(KPU, UINT8, self.memory.rows[tensor] * ROW_BYTES, size)
        kind = UINT8 if tensor.dtype == "uint8" else FLOAT32
        return MemoryRange(MAIN, kind, self.memory.bytes[tensor], nbytes(tensor))

    def constant(self, data: bytes, datatype: int) -> MemoryRange:
        """Bytes stored in the file."""
        start = len(self.constants)
        self.constants += data
        return MemoryRange(CONST, datatype, start, len(data))

    def _io(self, op: Op) -> dict[str, Any]:
        return {"input": self.mem(op.input), "out": self.mem(op.output)}

    def kpu_conv(self, op: ops.KpuConv) -> nodes.Node:
        numbers = op.chosen
        main = self.mem(op.outputs[1]) if len(op.outputs) > 1 else nodes.NO_MEMORY
        regs = registers(op, self.memory)
        if len(op.outputs) > 1:
            regs = replace(regs, send_data_out=1)
        return nodes.KpuConv2d(
            main_output=main,
            registers=regs,
            bn=numbers.bn,
            activation=numbers.activation,
            weights=numbers.codes,
        )

    def upload(self, op: ops.Upload) -> nodes.Node:
        return nodes.KpuUpload(**self._io(op), shape=shape4(op.input.shape))

    def quantize(self, op: ops.Quantize) -> nodes.Node:
        return nodes.Quantize(**self._io(op), quant=_quant(op.output))

    def dequantize(self, op: ops.Dequantize) -> nodes.Node:
        return nodes.Dequantize(**self._io(op), quant=_quant(op.input))

    def requantize(self, op: ops.Requantize) -> nodes.Node:
        table = self.constant(byte_table(op).tobytes(), UINT8)
        return nodes.TableLookup1d(**self._io(op), table=table)

    def binary(self, op: ops.Binary) -> nodes.Node:
        a, b = op.inputs
        return nodes.Binary(
            a=self.mem(a),
            b=self.mem(b),
            out=self.mem(op.output),
            op=_BINARY[op.how],
            shape_a=shape4(a.shape),
            shape_b=shape4(b.shape),
            shape_out=shape4(op.output.shape),
            act=_act(op),
        )

    def unary(self, op: ops.Unary) -> nodes.Node:
        return nodes.Unary(**self._io(op), op=_UNARY[op.how])

    def conv(self, op: ops.Conv) -> nodes.Node:
        w = op.weights
        return nodes.Conv2d(
            **self._io(op),
            shape=shape4(op.input.shape),
            groups=op.groups,
            out_channels=w.shape[0],
            pad_h=Pad(op.pads[0], op.pads[1]),
            pad_w=Pad(op.pads[2], op.pads[3]),
            filter_h=w.shape[2],
            filter_w=w.shape[3],
            stride_h=op.stride[0],
            stride_w=op.stride[1],
            dilation_h=op.dilation[0],
            dilation_w=op.dilation[1],
            act=_act(op),
            weights=w.astype("<f4"),
            bias=op.bias.astype("<f4"),
        )

    def deconv(self, op: ops.Deconv) -> nodes.Node:
        require(op, fn=())
        if op.bias.any():
            raise PassBroke("encode", repr(op), "the device's layer forgets the bias")
        w = op.weights
        return nodes.Conv2dTranspose(
            **self._io(op),
            shape=shape4(op.input.shape),
            shape_out=shape4(op.output.shape),
            groups=1,
            pad_h=Pad(op.pads[0], op.pads[1]),
            pad_w=Pad(op.pads[2], op.pads[3]),
            filter_h=w.shape[2],
            filter_w=w.shape[3],
            stride_h=op.stride[0],
            stride_w=op.stride[1],
            dilation_h=1,
            dilation_w=1,
            weights=w.astype("<f4"),
            bias=op.bias.astype("<f4"),
        )

    def dense(self, op: ops.Dense) -> nodes.Node:
        weights = op.weights
        if len(op.input.shape) != 2:
            raise PassBroke("encode", repr(op), "a product is of matrices")
        matrix = Tensor("weights", weights.T.shape, value=weights.T)
        return nodes.Matmul(
            a=self.mem(op.input),
            b=self.mem(matrix),
            out=self.mem(op.output),
            a_rows=op.input.shape[0],
            a_cols=weights.shape[1],
            b_cols=weights.shape[0],
            act=_act(op),
            bias=op.bias.astype("<f4"),
        )

    def pool(self, op: ops.Pool) -> nodes.Node:
        return nodes.ReduceWindow2d(
            **self._io(op),
            op=_REDUCE[op.how],
            shape=shape4(op.input.shape),
            pad_h=Pad(op.pads[0], op.pads[1]),
            pad_w=Pad(op.pads[2], op.pads[3]),
            filter_h=op.kernel[0],
            filter_w=op.kernel[1],
            stride_h=op.stride[0],
            stride_w=op.stride[1],
            dilation_h=1,
            dilation_w=1,
            init=_INIT[op.how],
            act=_act(op),
        )

    def reduce(self, op: ops.Reduce) -> nodes.Node:
        return nodes.Reduce(
            **self._io(op),
            op=_REDUCE[op.how],
            shape=shape4(op.input.shape),
            shape_reduced=shape4(op.output.shape),
            init=_INIT[op.how],
        )

    def softmax(self, op: ops.Softmax) -> nodes.Node:
        outer, inner = rows(op)
        return nodes.Softmax(**self._io(op), inner=inner, outer=outer, beta=op.beta)

    def pad(self, op: ops.Pad) -> nodes.Node:
        pads = [Pad(0, 0)] * (4 - len(op.input.shape)) + [Pad(*p) for p in op.pads]
        if op.input.quant is not None and op.input.dtype == "uint8":
            require(op, value=0.0)
            code = round(op.input.quant.zero_point)
            fill = Scalar(UINT8, bytes([min(max(code, 0), 255), 0, 0, 0]))
        else:
            fill = Scalar(FLOAT32, struct.pack("<f", op.value))
        return nodes.PadNode(
            **self._io(op),
            shape=shape4(op.input.shape),
            pad_n=pads[0],
            pad_c=pads[1],
            pad_h=pads[2],
            pad_w=pads[3],
            value=fill,
        )

    def concat(self, op: ops.Concat) -> nodes.Node:
        axis, out = op.axis, op.output
        item = 1 if out.dtype == "uint8" else 4
        return nodes.Concat(
            out=self.mem(out),
            inner=item * int(np.prod(out.shape[axis + 1 :], dtype=np.int64)),
            outer=int(np.prod(out.shape[:axis], dtype=np.int64)),
            n=len(op.inputs),
            inputs=[self.mem(t) for t in op.inputs],
            dims=[t.shape[axis] for t in op.inputs],
        )

    def transpose(self, op: ops.Transpose) -> nodes.Node:
        perm = op.perm
        lead = 4 - len(perm)
        full = Shape(*(*range(lead), *(p + lead for p in perm)))
        return nodes.Transpose(**self._io(op), shape=shape4(op.input.shape), perm=full)

    def slice(self, op: ops.Slice) -> nodes.Node:
        begin, strides = op.begin, op.strides
        spans = zip(begin, strides, op.output.shape, strict=True)
        ends = tuple(b + (n - 1) * s + 1 for b, s, n in spans)
        return nodes.StridedSlice(
            **self._io(op),
            shape=shape4(op.input.shape),
            begin=shape4(begin, 0),
            end=shape4(ends),
            strides=shape4(strides),
        )

    def resize(self, op: ops.Resize) -> nodes.Node:
        require(op, half_pixel=False)
        if op.mode == "nearest":
            require(op, align_corners=False)
        _, _, h, w = op.output.shape
        return nodes.ResizeImage(
            **self._io(op),
            shape=shape4(op.input.shape),
            out_h=h,
            out_w=w,
            mode=1 if op.mode == "nearest" else 0,
            align_corners=int(op.align_corners),
        )


def _quant(tensor: Tensor) -> QuantParam:
    assert tensor.quant is not None
    return QuantParam(round(tensor.quant.zero_point), 1 / tensor.quant.scale)


def _act(op: Activated) -> Range:
    fn = op.fn
    if not fn:
        return NO_RANGE
    if len(fn) != 1 or fn[0][0] != "clamp":
        raise PassBroke("encode", repr(op), f"{fn} is no clamp")
    ((_, low, high),) = fn
    return Range(max(low, -FLT_MAX), min(high, FLT_MAX))


#: kind of op -> its node; None: it takes none
NODES: dict[type[Op], Callable[..., nodes.Node] | None] = {
    ops.KpuConv: _Encoder.kpu_conv,
    ops.KpuConcat: None,
    ops.KpuPart: None,
    ops.Reshape: None,
    ops.Upload: _Encoder.upload,
    ops.Quantize: _Encoder.quantize,
    ops.Dequantize: _Encoder.dequantize,
    ops.Requantize: _Encoder.requantize,
    ops.Binary: _Encoder.binary,
    ops.Unary: _Encoder.unary,
    ops.Conv: _Encoder.conv,
    ops.Deconv: _Encoder.deconv,
    ops.Dense: _Encoder.dense,
    ops.Pool: _Encoder.pool,
    ops.Reduce: _Encoder.reduce,
    ops.Softmax: _Encoder.softmax,
    ops.Pad: _Encoder.pad,
    ops.Concat: _Encoder.concat,
    ops.Transpose: _Encoder.transpose,
    ops.Slice: _Encoder.slice,
    ops.Resize: _Encoder.resize,
}


def encode(graph: Graph, memory: Memory) -> tuple[v4.KmodelV4, list[Op]]:
    """The model and, for every node of it, the op it came from."""
    encoder = _Encoder(memory)
    made: list[nodes.Node] = []
    written: list[Op] = []
    for op in graph.ops:
        encode_op = NODES[type(op)]
        if encode_op is not None:
            made.append(encode_op(encoder, op))
            written.append(op)
    # Where nodes start at 4 mod 8, runtimes that read KPU registers word by word trap.
    constants = bytes(encoder.constants) + bytes(-len(encoder.constants) % BODY_ALIGN)
    model = v4.KmodelV4(
        nodes=made,
        inputs=[encoder.mem(graph.input)],
        input_shapes=[shape4(graph.input.shape)],
        outputs=[encoder.mem(t) for t in graph.outputs],
        constants=constants,
        main_mem=memory.main_bytes,
    )
    return model, written
