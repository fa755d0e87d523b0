"""Writes small TFLite files for tests, through the schema's own Start/Add/End functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

_TYPES = {
    np.dtype("float32"): tflite.TensorType.FLOAT32,
    np.dtype("float16"): tflite.TensorType.FLOAT16,
    np.dtype("int8"): tflite.TensorType.INT8,
    np.dtype("int16"): tflite.TensorType.INT16,
    np.dtype("uint8"): tflite.TensorType.UINT8,
    np.dtype("int32"): tflite.TensorType.INT32,
    np.dtype("int64"): tflite.TensorType.INT64,
}
_PADDING = {"SAME": 0, "VALID": 1}
_FUSED = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "TANH": 4}


class Net:
    """A model under construction; methods add an op and return the index of its output.

    Shapes are TFLite's (N, H, W, C). ``rng`` makes weights of a size that keeps values near 1.
    """

    def __init__(self, shape: Sequence[int], *, seed: int = 0, dtype: str = "float32"):
        self.rng = np.random.default_rng(seed)
        self.tensors: list[dict[str, Any]] = []
        self.ops: list[tuple[str, list[int], list[int], str | None, dict[str, Any], int]] = []
        self.input = self.tensor(shape, "input", dtype=dtype)
        self.inputs = [self.input]
        self.outputs: list[int] = []
        self.custom: dict[str, str] = {}

    # -- tensors

    def tensor(
        self, shape: Sequence[int], name: str | None = None, *, value: np.ndarray | None = None,
        dtype: str = "float32", scale: Any = None, zero_point: Any = None, axis: int = 0,
        signature: Sequence[int] | None = None, sparse: bool = False,
    ) -> int:  # fmt: skip
        kind = value.dtype if value is not None else np.dtype(dtype)
        self.tensors.append(
            {
                "shape": [int(n) for n in shape], "value": value, "dtype": np.dtype(kind),
                "name": name or f"t{len(self.tensors)}", "scale": scale, "zero_point": zero_point,
                "axis": axis, "signature": signature, "sparse": sparse,
            }
        )  # fmt: skip
        return len(self.tensors) - 1

    def const(self, value: Any, dtype: str | None = None, **more: Any) -> int:
        array = np.asarray(value, dtype)
        return self.tensor(array.shape, value=array, **more)

    def shape(self, index: int) -> list[int]:
        return self.tensors[index]["shape"]

    def op(
        self, name: str, inputs: Sequence[int], shape: Sequence[int], options: str | None = None,
        *, version: int = 1, **fields: Any,
    ) -> int:  # fmt: skip
        """Any op with one output; ``fields`` are the schema's names of its options."""
        out = self.tensor(shape)
        self.ops.append((name, list(inputs), [out], options, fields, version))
        return out

    # -- layers

    def conv(
        self, x: int, channels: int, kernel: tuple[int, int] = (3, 3), *, stride: Any = (1, 1),
        padding: str = "SAME", act: str = "NONE", dilation: tuple[int, int] = (1, 1),
        bias: bool = True, gain: float = 1.0,
    ) -> int:  # fmt: skip
        _, h, w, c = self.shape(x)
        std = gain / np.sqrt(kernel[0] * kernel[1] * c)
        weights = self.rng.normal(0, std, (channels, *kernel, c)).astype(np.float32)
        b = self.rng.normal(0, 0.2, channels).astype(np.float32) * bias
        size = self._size((h, w), kernel, stride, padding, dilation)
        return self.op(
            "CONV_2D", [x, self.const(weights), self.const(b)], (1, *size, channels),
            "Conv2DOptions", Padding=_PADDING[padding], StrideH=stride[0], StrideW=stride[1],
            DilationHFactor=dilation[0], DilationWFactor=dilation[1],
            FusedActivationFunction=_FUSED[act],
        )  # fmt: skip

    def depthwise(
        self, x: int, kernel: tuple[int, int] = (3, 3), *, multiplier: int = 1,
        stride: Any = (1, 1), padding: str = "SAME", act: str = "NONE",
        dilation: tuple[int, int] = (1, 1),
    ) -> int:  # fmt: skip
        _, h, w, c = self.shape(x)
        std = 1 / np.sqrt(kernel[0] * kernel[1])
        weights = self.rng.normal(0, std, (1, *kernel, c * multiplier)).astype(np.float32)
        b = self.rng.normal(0, 0.2, c * multiplier).astype(np.float32)
        size = self._size((h, w), kernel, stride, padding, dilation)
        return self.op(
            "DEPTHWISE_CONV_2D", [x, self.const(weights), self.const(b)],
            (1, *size, c * multiplier), "DepthwiseConv2DOptions", Padding=_PADDING[padding],
            StrideH=stride[0], StrideW=stride[1], DepthMultiplier=multiplier,
            DilationHFactor=dilation[0], DilationWFactor=dilation[1],
            FusedActivationFunction=_FUSED[act],
        )  # fmt: skip

    def dense(self, x: int, units: int, *, act: str = "NONE", bias: bool = True) -> int:
        n = int(np.prod(self.shape(x)))
        weights = self.rng.normal(0, 1 / np.sqrt(n), (units, n)).astype(np.float32)
        inputs = [x, self.const(weights)]
        if bias:
            inputs.append(self.const(self.rng.normal(0, 0.2, units).astype(np.float32)))
        return self.op(
            "FULLY_CONNECTED", inputs, (1, units), "FullyConnectedOptions",
            FusedActivationFunction=_FUSED[act],
        )  # fmt: skip

    def pool(
        self, x: int, kind: str, kernel: tuple[int, int], *, stride: Any = None,
        padding: str = "VALID", act: str = "NONE",
    ) -> int:  # fmt: skip
        _, h, w, c = self.shape(x)
        stride = stride or kernel
        size = self._size((h, w), kernel, stride, padding, (1, 1))
        return self.op(
            f"{kind}_POOL_2D", [x], (1, *size, c), "Pool2DOptions", Padding=_PADDING[padding],
            StrideH=stride[0], StrideW=stride[1], FilterHeight=kernel[0], FilterWidth=kernel[1],
            FusedActivationFunction=_FUSED[act],
        )  # fmt: skip

    def pad(self, x: int, pads: Sequence[tuple[int, int]], value: float | None = None) -> int:
        shape = [n + a + b for n, (a, b) in zip(self.shape(x), pads, strict=True)]
        given = [x, self.const(np.array(pads, np.int32))]
        if value is None:
            return self.op("PAD", given, shape, "PadOptions")
        return self.op("PADV2", [*given, self.const(np.float32(value))], shape, "PadV2Options")

    def unary(self, name: str, x: int, options: str | None = None, **fields: Any) -> int:
        return self.op(name, [x], self.shape(x), options, **fields)

    def binary(self, name: str, a: int, b: int, act: str = "NONE") -> int:
        shape = np.broadcast_shapes(tuple(self.shape(a)), tuple(self.shape(b)))
        table = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions",
                 "DIV": "DivOptions"}.get(name)  # fmt: skip
        fields = {"FusedActivationFunction": _FUSED[act]} if table else {}
        return self.op(name, [a, b], shape, table, **fields)

    def concat(self, parts: Sequence[int], axis: int) -> int:
        shape = list(self.shape(parts[0]))
        shape[axis] = sum(self.shape(p)[axis] for p in parts)
        return self.op("CONCATENATION", parts, shape, "ConcatenationOptions", Axis=axis)

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        new = self.const(np.array(shape, np.int32))
        return self.op("RESHAPE", [x, new], shape, "ReshapeOptions")

    def transpose(self, x: int, perm: Sequence[int]) -> int:
        shape = [self.shape(x)[p] for p in perm]
        return self.op("TRANSPOSE", [x, self.const(np.array(perm, np.int32))], shape)

    def reduce(self, name: str, x: int, axes: Sequence[int], keep: bool) -> int:
        given = self.shape(x)
        shape = [1 if i in axes else n for i, n in enumerate(given) if keep or i not in axes]
        const = self.const(np.array(axes, np.int32))
        return self.op(name, [x, const], shape, "ReducerOptions", KeepDims=keep)

    def softmax(self, x: int, beta: float = 1.0) -> int:
        return self.op("SOFTMAX", [x], self.shape(x), "SoftmaxOptions", Beta=beta)

    def resize(self, x: int, size: tuple[int, int], kind: str = "NEAREST_NEIGHBOR",
               align: bool = False, half: bool = False) -> int:  # fmt: skip
        _, _, _, c = self.shape(x)
        table = {"NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
                 "BILINEAR": "ResizeBilinearOptions"}[kind]  # fmt: skip
        return self.op(
            f"RESIZE_{kind}", [x, self.const(np.array(size, np.int32))], (1, *size, c), table,
            AlignCorners=align, HalfPixelCenters=half,
        )  # fmt: skip

    def transpose_conv(self, x: int, channels: int, kernel: tuple[int, int], stride: Any,
                       padding: str = "SAME", bias: bool = True) -> int:  # fmt: skip
        _, h, w, c = self.shape(x)
        spare = [max(0, k - s) for k, s in zip(kernel, stride, strict=True)]
        grow = [0, 0] if padding == "SAME" else spare
        shape = (1, h * stride[0] + grow[0], w * stride[1] + grow[1], channels)
        weights = self.rng.normal(0, 1 / np.sqrt(c), (channels, *kernel, c)).astype(np.float32)
        inputs = [self.const(np.array(shape, np.int32)), self.const(weights), x]
        if bias:
            inputs.append(self.const(self.rng.normal(0, 0.2, channels).astype(np.float32)))
        return self.op(
            "TRANSPOSE_CONV", inputs, shape, "TransposeConvOptions", Padding=_PADDING[padding],
            StrideH=stride[0], StrideW=stride[1], version=3 if bias else 1,
        )  # fmt: skip

    def strided_slice(self, x: int, begin: Sequence[int], end: Sequence[int],
                      strides: Sequence[int]) -> int:  # fmt: skip
        spans = zip(begin, end, strides, strict=True)
        shape = [len(range(b, e, s)) for b, e, s in spans]
        consts = [self.const(np.array(v, np.int32)) for v in (begin, end, strides)]
        return self.op("STRIDED_SLICE", [x, *consts], shape, "StridedSliceOptions",
                       BeginMask=0, EndMask=0)  # fmt: skip

    @staticmethod
    def _size(size: Sequence[int], kernel: Any, stride: Any, padding: str, dilation: Any) -> Any:
        if padding == "SAME":
            return tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
        spans = zip(size, kernel, stride, dilation, strict=True)
        return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in spans)

    # -- the file

    def build(self, *outputs: int) -> bytes:
        """The file; without ``outputs`` the last op's output is the model's."""
        self.outputs = list(outputs) or [self.ops[-1][2][0]]
        b = flatbuffers.Builder(1024)
        data: list[np.ndarray | None] = [None]
        tensors = []
        for t in self.tensors:
            buffer = 0
            if t["value"] is not None:
                data.append(t["value"])
                buffer = len(data) - 1
            tensors.append(self._tensor(b, t, buffer))
        names = sorted({(op[0], op[5]) for op in self.ops})
        codes = [self._code(b, *code) for code in names]
        ops = [self._op(b, op, names.index((op[0], op[5]))) for op in self.ops]
        graph = self._table(
            b, "SubGraph", Tensors=_vector(b, tensors),
            Inputs=b.CreateNumpyVector(np.array(self.inputs, np.int32)),
            Outputs=b.CreateNumpyVector(np.array(self.outputs, np.int32)),
            Operators=_vector(b, ops),
        )  # fmt: skip
        buffers = [self._buffer(b, d) for d in data]
        model = self._table(
            b, "Model", Version=3, OperatorCodes=_vector(b, codes), Subgraphs=_vector(b, [graph]),
            Buffers=_vector(b, buffers),
        )  # fmt: skip
        b.Finish(model, file_identifier=b"TFL3")
        return bytes(b.Output())

    @staticmethod
    def _table(b: Any, table: str, **fields: Any) -> int:
        _call(table, "Start")(b)
        for name, value in fields.items():
            _call(table, f"Add{name}")(b, value)
        return _call(table, "End")(b)

    def _tensor(self, b: Any, t: dict[str, Any], buffer: int) -> int:
        fields = {
            "Shape": b.CreateNumpyVector(np.array(t["shape"], np.int32)),
            "Name": b.CreateString(t["name"]),
        }
        if t["signature"] is not None:
            fields["ShapeSignature"] = b.CreateNumpyVector(np.array(t["signature"], np.int32))
        if t["scale"] is not None:
            scale = np.atleast_1d(np.asarray(t["scale"], np.float32))
            zero = np.broadcast_to(np.atleast_1d(np.asarray(t["zero_point"] or 0, np.int64)),
                                   scale.shape)  # fmt: skip
            fields["Quantization"] = self._table(
                b, "QuantizationParameters", Scale=b.CreateNumpyVector(scale),
                ZeroPoint=b.CreateNumpyVector(np.ascontiguousarray(zero)),
                QuantizedDimension=t["axis"],
            )  # fmt: skip
        if t["sparse"]:
            fields["Sparsity"] = self._table(b, "SparsityParameters")
        return self._table(b, "Tensor", Type=_TYPES[t["dtype"]], Buffer=buffer, **fields)

    def _code(self, b: Any, name: str, version: int) -> int:
        if name.startswith("custom:"):
            custom = b.CreateString(name.removeprefix("custom:"))
            code = tflite.BuiltinOperator.CUSTOM
            return self._table(
                b, "OperatorCode", CustomCode=custom, BuiltinCode=code, DeprecatedBuiltinCode=code,
                Version=version,
            )  # fmt: skip
        code = getattr(tflite.BuiltinOperator, name)
        return self._table(
            b, "OperatorCode", BuiltinCode=code, DeprecatedBuiltinCode=min(code, 127),
            Version=version,
        )  # fmt: skip

    def _op(self, b: Any, op: tuple[Any, ...], code: int) -> int:
        _, inputs, outputs, table, fields, _ = op
        more = {}
        if table is not None:
            more["BuiltinOptions"] = self._table(b, table, **fields)
            more["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, table)
        return self._table(
            b, "Operator", OpcodeIndex=code,
            Inputs=b.CreateNumpyVector(np.array(inputs, np.int32)),
            Outputs=b.CreateNumpyVector(np.array(outputs, np.int32)), **more,
        )  # fmt: skip

    def _buffer(self, b: Any, value: np.ndarray | None) -> int:
        if value is None:
            return self._table(b, "Buffer")
        raw = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        b.StartVector(1, len(raw), 16)
        b.head -= len(raw)
        b.Bytes[b.head : b.head + len(raw)] = raw.tobytes()
        return self._table(b, "Buffer", Data=b.EndVector())


def _call(table: str, what: str) -> Callable[..., Any]:
    return getattr(tflite, f"{table}{what}")


def _vector(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()
