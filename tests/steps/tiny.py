"""TFLite files of a few hundred bytes, written with the schema's own builder."""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
import tflite as t


class Tiny:
    """Collects tensors and ops of one graph; ``bytes()`` is the file."""

    def __init__(self) -> None:
        self._b = flatbuffers.Builder(1024)
        self._buffers = [self._buffer(b"")]
        self._tensors: list[int] = []
        self._codes: list[int] = []
        self._ops: list[int] = []

    def _buffer(self, data: bytes) -> int:
        vector = self._b.CreateByteVector(data) if data else None
        t.BufferStart(self._b)
        if vector is not None:
            t.BufferAddData(self._b, vector)
        return t.BufferEnd(self._b)

    def _ints(self, values: Sequence[int]) -> int:
        return self._b.CreateNumpyVector(np.array(values, np.int32))

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        value: np.ndarray | None = None,
        dtype: int = t.TensorType.FLOAT32,
        signature: Sequence[int] | None = None,
        quantised: tuple[float, int] | None = None,
    ) -> int:
        where = 0
        if value is not None:
            self._buffers.append(self._buffer(value.tobytes()))
            where = len(self._buffers) - 1
        scales = None
        if quantised is not None:
            scale = self._b.CreateNumpyVector(np.array([quantised[0]], np.float32))
            zero = self._b.CreateNumpyVector(np.array([quantised[1]], np.int64))
            t.QuantizationParametersStart(self._b)
            t.QuantizationParametersAddScale(self._b, scale)
            t.QuantizationParametersAddZeroPoint(self._b, zero)
            scales = t.QuantizationParametersEnd(self._b)
        words, sizes = self._b.CreateString(name), self._ints(shape)
        open_sizes = None if signature is None else self._ints(signature)
        t.TensorStart(self._b)
        t.TensorAddShape(self._b, sizes)
        t.TensorAddType(self._b, dtype)
        t.TensorAddBuffer(self._b, where)
        t.TensorAddName(self._b, words)
        if open_sizes is not None:
            t.TensorAddShapeSignature(self._b, open_sizes)
        if scales is not None:
            t.TensorAddQuantization(self._b, scales)
        self._tensors.append(t.TensorEnd(self._b))
        return len(self._tensors) - 1

    def op(self, code: int, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        kind, options = 0, None
        if code == t.BuiltinOperator.FULLY_CONNECTED:
            kind = t.BuiltinOptions.FullyConnectedOptions
            t.FullyConnectedOptionsStart(self._b)
            options = t.FullyConnectedOptionsEnd(self._b)
        elif code == t.BuiltinOperator.CONV_2D:
            kind = t.BuiltinOptions.Conv2DOptions
            t.Conv2DOptionsStart(self._b)
            t.Conv2DOptionsAddStrideH(self._b, 1)
            t.Conv2DOptionsAddStrideW(self._b, 1)
            options = t.Conv2DOptionsEnd(self._b)
        taken, given = self._ints(inputs), self._ints(outputs)
        t.OperatorStart(self._b)
        t.OperatorAddOpcodeIndex(self._b, len(self._codes))
        t.OperatorAddInputs(self._b, taken)
        t.OperatorAddOutputs(self._b, given)
        if options is not None:
            t.OperatorAddBuiltinOptionsType(self._b, kind)
            t.OperatorAddBuiltinOptions(self._b, options)
        self._ops.append(t.OperatorEnd(self._b))
        t.OperatorCodeStart(self._b)
        t.OperatorCodeAddDeprecatedBuiltinCode(self._b, code)
        t.OperatorCodeAddBuiltinCode(self._b, code)
        t.OperatorCodeAddVersion(self._b, 1)
        self._codes.append(t.OperatorCodeEnd(self._b))

    def bytes(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        b = self._b

        def offsets(items: list[int]) -> int:
            b.StartVector(4, len(items), 4)
            for item in reversed(items):
                b.PrependUOffsetTRelative(item)
            return b.EndVector()

        tensors, ops = offsets(self._tensors), offsets(self._ops)
        taken, given = self._ints(inputs), self._ints(outputs)
        t.SubGraphStart(b)
        t.SubGraphAddTensors(b, tensors)
        t.SubGraphAddInputs(b, taken)
        t.SubGraphAddOutputs(b, given)
        t.SubGraphAddOperators(b, ops)
        graph = t.SubGraphEnd(b)
        graphs, codes, buffers = offsets([graph]), offsets(self._codes), offsets(self._buffers)
        t.ModelStart(b)
        t.ModelAddVersion(b, 3)
        t.ModelAddOperatorCodes(b, codes)
        t.ModelAddSubgraphs(b, graphs)
        t.ModelAddBuffers(b, buffers)
        b.Finish(t.ModelEnd(b), b"TFL3")
        return bytes(b.Output())


def dense(weights: np.ndarray, shape: Sequence[int], bias: np.ndarray | None = None) -> bytes:
    """``shape`` flattened, times ``weights`` (outputs, inputs), plus bias: one row of scores."""
    outputs = len(weights)
    bias = np.zeros(outputs) if bias is None else bias
    tiny = Tiny()
    x = tiny.tensor("input", shape)
    w = tiny.tensor("weights", weights.shape, weights.astype(np.float32))
    b = tiny.tensor("bias", [outputs], bias.astype(np.float32))
    y = tiny.tensor("scores", [1, outputs])
    tiny.op(t.BuiltinOperator.FULLY_CONNECTED, [x, w, b], [y])
    return tiny.bytes([x], [y])


def relu(shape: Sequence[int]) -> bytes:
    """``max(x, 0)``, element by element: the output has the input's shape."""
    tiny = Tiny()
    x, y = tiny.tensor("input", shape), tiny.tensor("map", shape)
    tiny.op(t.BuiltinOperator.RELU, [x], [y])
    return tiny.bytes([x], [y])


def ports(**inputs: Sequence[int]) -> bytes:
    """A graph without ops, of the named inputs, which are its outputs too."""
    tiny = Tiny()
    made = [tiny.tensor(name, shape) for name, shape in inputs.items()]
    return tiny.bytes(made, made)
