"""A placed device graph as a kmodel of version 3 (reference, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from k210tasks.compiler import ops
from k210tasks.compiler.encoding import blobs, byte_table, registers, require, vector
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.ops import Pair
from k210tasks.compiler.passes.place import Memory, nbytes
from k210tasks.compiler.problems import PassBroke
from k210tasks.kmodel import v3
from k210tasks.kmodel import v3_layers as layers
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime
from k210tasks.kmodel.v3_layers import WHC

TO_MAIN = 1


class _Encoder:
    def __init__(self, memory: Memory, bits: int, runtime: Runtime):
        self.at = memory.bytes
        self.memory = memory
        self.bits = bits
        self.runtime = runtime

    def conv(self, op: ops.KpuConv) -> layers.Body:
        main = op.outputs[1] if len(op.outputs) > 1 else None
        codes, bn = blobs(op)
        return layers.K210Conv(
            flags=TO_MAIN if main is not None else 0,
            out_mem=self.at[main] if main is not None else 0,
            registers=registers(op, self.memory, self.bits // 8),
            weights=codes.astype("<u2" if self.bits == 16 else "u1"),
            bn=bn,
            activation=op.chosen.activation,
        )

    def _io(self, op: Op) -> dict[str, Any]:
        return {"in_mem": self.at[op.input], "out_mem": self.at[op.output]}

    def upload(self, op: ops.Upload) -> layers.Body:
        _, c, h, w = op.input.shape
        return layers.K210Upload(
            in_mem=self.at[op.input],
            out_kpu=self.memory.rows[op.output],
            width=w,
            height=h,
            channels=c,
        )

    def add_padding(self, op: ops.AddPadding) -> layers.Body:
        row = self.memory.rows[op.output]
        return layers.K210AddPadding(
            in_mem=self.at[op.input], out_kpu=row, channels=op.input.shape[1]
        )

    def remove_padding(self, op: ops.RemovePadding) -> layers.Body:
        y, x = op.pixel
        return layers.K210RemovePadding(
            flags=TO_MAIN,
            in_mem=self.at[op.input] + 4 * y + x,
            out_mem=self.at[op.output],
            channels=op.output.shape[1],
        )

    def quantize(self, op: ops.Quantize) -> layers.Body:
        quant = _quant(op.output)
        # What cuts off rounds when it is given half a step more.
        low = quant.low - quant.scale / 2 * self.runtime.truncates_quantize
        return layers.Quantize(**self._io(op), count=op.output.size, scale=quant.scale, bias=low)

    def dequantize(self, op: ops.Dequantize) -> layers.Body:
        quant = _quant(op.input)
        sign = -1 if op.negated else 1
        bias = 0.0 if op.from_zero else sign * quant.low
        if op.constant is not None:
            quant, bias = Quant(0.0, 0), op.constant
        return layers.Dequantize(
            flags=TO_MAIN, **self._io(op), count=op.input.size, scale=sign * quant.scale, bias=bias
        )

    def requantize(self, op: ops.Requantize) -> layers.Body:
        return layers.Requantize(**self._io(op), count=op.input.size, table=byte_table(op))

    def turn(self, op: ops.Turn) -> layers.Body:
        """Codes turned round so that zero becomes code 0, or back."""
        zero = round(_quant(op.input).zero_point)
        codes = np.arange(256) + (zero if op.back else -zero)
        table = (codes % 256).astype(np.uint8)
        return layers.Requantize(**self._io(op), count=op.input.size, table=table)

    def window(self, op: ops.Pool | ops.Pad | ops.Slice) -> layers.Body:
        """Pools, and pads and strided slices as max pools of one pixel: pixels outside
        give code 0."""
        kernel: Pair = (1, 1)
        stride: Pair = (1, 1)
        pads: Pair = (0, 0)
        if isinstance(op, ops.Pool):
            require(op, fn=())
            kernel, stride, pads = op.kernel, op.stride, (op.pads[0], op.pads[2])
            if op.how == "mean":
                return layers.AveragePool2d(**self._io(op), **_window(op, kernel, stride, pads))
        elif isinstance(op, ops.Pad):
            require(op, value=0.0, pads=((0, 0), (0, 0), *op.pads[2:]))
            pads = (op.pads[2][0], op.pads[3][0])
        elif op.begin[2:] != (0, 0) or op.input.shape[:2] != op.output.shape[:2]:
            return self.part(op)
        else:
            require(op, begin=(0, 0, 0, 0), strides=(1, 1, *op.strides[2:]))
            stride = (op.strides[2], op.strides[3])
        return layers.QuantizedMaxPool2d(**self._io(op), **_window(op, kernel, stride, pads))

    def part(self, op: ops.Slice) -> layers.Body:
        """A slice that is one run of bytes."""
        rank = len(op.output.shape)
        axis = next(i for i, n in enumerate(op.output.shape) if n != op.input.shape[i])
        begin = tuple(op.begin[i] if i == axis else 0 for i in range(rank))
        require(op, begin=begin, strides=(1,) * rank)
        step = nbytes(op.output) // op.output.shape[axis]
        start = self.at[op.input] + op.begin[axis] * step
        quantized = op.output.dtype == "uint8"
        kind = layers.QuantizedConcat if quantized else layers.Concat
        return kind.of(self.at[op.output], [(start, nbytes(op.output))])

    def dense(self, op: ops.Dense) -> layers.Body:
        require(op, fn=())
        if op.input.shape[0] != 1:
            raise PassBroke("encode", repr(op), "the layer takes one row")
        weights = op.weights
        return layers.FullyConnected(
            **self._io(op),
            in_ch=weights.shape[1],
            out_ch=weights.shape[0],
            act=0,
            weights=weights.astype("<f4"),
            bias=op.bias.astype("<f4"),
        )

    def binary(self, op: ops.Binary) -> layers.Body:
        require(op, how="add", fn=())
        a, b = op.inputs
        return layers.Add(
            a_mem=self.at[a], b_mem=self.at[b], out_mem=self.at[op.output], count=op.output.size
        )

    def reduce(self, op: ops.Reduce) -> layers.Body:
        require(op, how="mean", axes=(2, 3))
        _, c, h, w = op.input.shape
        return layers.GlobalAveragePool(**self._io(op), kernel_size=h * w, channels=c)

    def softmax(self, op: ops.Softmax) -> layers.Body:
        require(op, beta=1.0)
        return layers.Softmax(flags=TO_MAIN, **self._io(op), channels=vector(op))

    def l2norm(self, op: ops.L2Norm) -> layers.Body:
        return layers.L2Normalization(**self._io(op), channels=vector(op))

    def logistic(self, op: ops.Map) -> layers.Body:
        require(op, fn=(("logistic",),))
        return layers.Logistic(**self._io(op), channels=op.input.size)

    def transpose(self, op: ops.Transpose) -> layers.Body:
        require(op, perm=(0, 2, 3, 1))
        return layers.TensorflowFlatten(flags=TO_MAIN, **self._io(op), shape=_whc(op.input))

    def concat(self, op: ops.Concat) -> layers.Body:
        if any(n != 1 for n in op.output.shape[: op.axis]):
            raise PassBroke("encode", repr(op), "the parts do not lie behind each other")
        kind = layers.QuantizedConcat if op.output.dtype == "uint8" else layers.Concat
        return kind.of(self.at[op.output], [(self.at[t], nbytes(t)) for t in op.inputs])

    def resize(self, op: ops.Resize) -> layers.Body:
        require(op, mode="nearest", align_corners=False, half_pixel=False)
        quantized = op.output.dtype == "uint8"
        kind = layers.QuantizedResizeNearestNeighbor if quantized else layers.ResizeNearestNeighbor
        _, _, h, w = op.output.shape
        return kind(**self._io(op), in_shape=_whc(op.input), out_w=w, out_h=h)


def _quant(tensor: Tensor) -> Quant:
    assert tensor.quant is not None
    return tensor.quant


def _whc(tensor: Tensor) -> WHC:
    _, c, h, w = tensor.shape
    return WHC(w, h, c)


def _window(op: Op, kernel: Pair, stride: Pair, pads: Pair) -> dict[str, Any]:
    return {
        "in_shape": _whc(op.input),
        "out_shape": _whc(op.output),
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": stride[0],
        "stride_w": stride[1],
        "pad_h": pads[0],
        "pad_w": pads[1],
    }


#: kind of op -> its layer; None: it takes no layer
LAYERS: dict[type[Op], Callable[..., layers.Body] | None] = {
    ops.KpuConv: _Encoder.conv,
    ops.KpuConcat: None,
    ops.KpuPart: None,
    ops.Reshape: None,
    ops.Upload: _Encoder.upload,
    ops.AddPadding: _Encoder.add_padding,
    ops.RemovePadding: _Encoder.remove_padding,
    ops.Quantize: _Encoder.quantize,
    ops.Dequantize: _Encoder.dequantize,
    ops.Requantize: _Encoder.requantize,
    ops.Turn: _Encoder.turn,
    ops.Pool: _Encoder.window,
    ops.Pad: _Encoder.window,
    ops.Slice: _Encoder.window,
    ops.Dense: _Encoder.dense,
    ops.Binary: _Encoder.binary,
    ops.Reduce: _Encoder.reduce,
    ops.Softmax: _Encoder.softmax,
    ops.L2Norm: _Encoder.l2norm,
    ops.Map: _Encoder.logistic,
    ops.Transpose: _Encoder.transpose,
    ops.Concat: _Encoder.concat,
    ops.Resize: _Encoder.resize,
}


def encode(
    graph: Graph, memory: Memory, *, bits: int = 8, runtime: Runtime = RUNTIMES["host"]
) -> tuple[v3.KmodelV3, list[Op]]:
    """The model and, for every layer of it, the op it came from."""
    encoder = _Encoder(memory, bits, runtime)
    bodies: list[layers.Body] = []
    written: list[Op] = []
    for op in graph.ops:
        encode_op = LAYERS[type(op)]
        if encode_op is not None:
            bodies.append(encode_op(encoder, op))
            written.append(op)
    outputs = [layers_output(memory, t) for t in graph.outputs]
    model = v3.KmodelV3(
        layers=bodies, outputs=outputs, main_mem=memory.main_bytes, flags=1 if bits == 8 else 0
    )
    return model, written


def layers_output(memory: Memory, tensor: Tensor) -> v3.Output:
    """An output of the file: floats in main memory."""
    return v3.Output(memory.bytes[tensor], nbytes(tensor))
