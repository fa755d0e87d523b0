"""Reading a ``.tflite`` file into :class:`SourceOp` records, without interpreting them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks import tflite_schema
from k210tasks.compiler.operands import OPERANDS, misfit
from k210tasks.compiler.problems import BadModel
from k210tasks.compiler.reading.tflite.dilated import fold_dilated
from k210tasks.compiler.reading.tflite.integers import known
from k210tasks.compiler.reading.tflite.open_shapes import close
from k210tasks.compiler.source_ops import Attributes, SourceOp, SourceTensor
from k210tasks.tflite_verifier import DamagedTflite, verify

_DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}


_names = tflite_schema.members

#: ops that run other subgraphs of the file
CONTROL = frozenset({"WHILE", "IF", "CALL_ONCE"})


_Getter = Callable[[Any], Attributes]


def _named(enumeration: str, value: int) -> str:
    return _names(enumeration).get(value, f"unknown: {value}")


def _listed(vector: Any) -> Any:
    """A vector of the file; the schema's classes give 0 for one that is left out."""
    return () if isinstance(vector, int) else vector


def _window(o: Any) -> Attributes:
    return {"padding": _named("Padding", o.Padding()), "stride": (o.StrideH(), o.StrideW())}


def _fused(o: Any) -> Attributes:
    return {"activation": _named("ActivationFunctionType", o.FusedActivationFunction())}


def _dilation(o: Any) -> Attributes:
    return {"dilation": (o.DilationHFactor(), o.DilationWFactor())}


def _pool(o: Any) -> Attributes:
    return {**_window(o), **_fused(o), "filter": (o.FilterHeight(), o.FilterWidth())}


def _masks(o: Any) -> Attributes:
    return {
        "begin_mask": o.BeginMask(),
        "end_mask": o.EndMask(),
        "ellipsis_mask": o.EllipsisMask(),
        "new_axis_mask": o.NewAxisMask(),
        "shrink_axis_mask": o.ShrinkAxisMask(),
        "offset": o.Offset(),
    }


def _transpose_conv(o: Any) -> Attributes:
    fused = _fused(o) if hasattr(o, "FusedActivationFunction") else {}
    return {**_window(o), **fused}


#: builtin op -> its options table in the schema and how to read it
_OPTIONS: dict[str, tuple[str, _Getter]] = {
    "CONV_2D": ("Conv2DOptions", lambda o: {**_window(o), **_fused(o), **_dilation(o)}),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        lambda o: {**_window(o), **_fused(o), **_dilation(o)},
    ),
    "TRANSPOSE_CONV": ("TransposeConvOptions", _transpose_conv),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        lambda o: {
            **_fused(o),
            "keep_num_dims": o.KeepNumDims(),
            "format": _named("FullyConnectedOptionsWeightsFormat", o.WeightsFormat()),
        },
    ),
    "BATCH_MATMUL": ("BatchMatMulOptions", lambda o: {"adj_x": o.AdjX(), "adj_y": o.AdjY()}),
    "AVERAGE_POOL_2D": ("Pool2DOptions", _pool),
    "MAX_POOL_2D": ("Pool2DOptions", _pool),
    "ADD": ("AddOptions", _fused),
    "SUB": ("SubOptions", _fused),
    "MUL": ("MulOptions", _fused),
    "DIV": ("DivOptions", _fused),
    "CONCATENATION": ("ConcatenationOptions", lambda o: {**_fused(o), "axis": o.Axis()}),
    "L2_NORMALIZATION": ("L2NormOptions", _fused),
    "STRIDED_SLICE": ("StridedSliceOptions", _masks),
    "SOFTMAX": ("SoftmaxOptions", lambda o: {"beta": o.Beta()}),
    "RESIZE_NEAREST_NEIGHBOR": (
        "ResizeNearestNeighborOptions",
        lambda o: {
            "align_corners": o.AlignCorners(),
            "half_pixel_centers": o.HalfPixelCenters(),
        },
    ),
    "RESIZE_BILINEAR": (
        "ResizeBilinearOptions",
        lambda o: {
            "align_corners": o.AlignCorners(),
            "half_pixel_centers": o.HalfPixelCenters(),
        },
    ),
    "LEAKY_RELU": ("LeakyReluOptions", lambda o: {"alpha": o.Alpha()}),
    "GELU": ("GeluOptions", lambda o: {"approximate": o.Approximate()}),
    "PACK": ("PackOptions", lambda o: {"axis": o.Axis(), "count": o.ValuesCount()}),
    "UNPACK": ("UnpackOptions", lambda o: {"axis": o.Axis(), "count": o.Num()}),
    "SPLIT": ("SplitOptions", lambda o: {"count": o.NumSplits()}),
    "SPLIT_V": ("SplitVOptions", lambda o: {"count": o.NumSplits()}),
    "GATHER": ("GatherOptions", lambda o: {"axis": o.Axis(), "batch_dims": o.BatchDims()}),
    "MIRROR_PAD": ("MirrorPadOptions", lambda o: {"mode": _named("MirrorPadMode", o.Mode())}),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", lambda o: {"block": o.BlockSize()}),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", lambda o: {"block": o.BlockSize()}),
}


def _unpacked(op: SourceOp) -> bool:
    """Whether ``op`` only unpacks a constant (float16 or int8 weights), or packs one, as networks
    trained for quantisation do with theirs; done here if so."""
    if op.name not in ("DEQUANTIZE", "QUANTIZE") or len(op.inputs) != 1 or len(op.outputs) != 1:
        return False
    given, out = op.inputs[0], op.outputs[0]
    if given is None or given.value is None or given.shape != out.shape:
        return False
    if op.name == "DEQUANTIZE":
        out.value, out.type = real(given).astype(np.float32), "FLOAT32"
        return True
    if out.scale is None or out.zero_point is None or out.type not in ("INT8", "UINT8"):
        return False
    scale, zero = _by_axis(out)
    steps = real(given).astype(np.float64) / scale
    codes = np.trunc(steps + np.copysign(0.5, steps)) + zero  # half away from zero, as TFLite
    ends = np.iinfo(_DTYPES[out.type])
    out.value = np.clip(codes, ends.min, ends.max).astype(_DTYPES[out.type])
    return True


def _settled(op: SourceOp) -> bool:
    """Whether nothing is left to compute of ``op``; shapes left open are closed on the way."""
    if op.name in OPERANDS and misfit(op) and not _whole(op):
        return False  # refused as what it is
    close(op)
    return _unpacked(op) or known(op)


def _whole(op: SourceOp) -> bool:
    """Whether ``op`` makes whole numbers, the arithmetic on shapes."""
    return all(t.type in ("INT32", "INT64") for t in op.outputs)


class Source:
    """A TFLite file taken apart: ``ops`` in execution order, ``inputs`` and ``outputs``.

    Raises :class:`BadModel` for bytes that are no model; whether the ops can be compiled
    is decided elsewhere.
    """

    def __init__(self, data: bytes):
        try:
            verify(data)
        except DamagedTflite as error:
            raise BadModel(error.what) from error
        self.data = data
        model = tflite_schema.Model.GetRootAsModel(data, 0)
        self._model, self._graph = model, model.Subgraphs(0)
        self._tensors: dict[int, SourceTensor] = {}
        self.inputs = [self.tensor(int(i)) for i in _listed(self._graph.InputsAsNumpy())]
        self.outputs = [self.tensor(int(i)) for i in _listed(self._graph.OutputsAsNumpy())]
        #: outputs of any size for whoever reads them, whatever shape follows here
        self.unfixed = [t.name for t in self.outputs if t.dynamic]
        ops = [self._op(i) for i in range(self._graph.OperatorsLength())]
        # The others are bodies of loops and branches, which are refused as what they are.
        if model.SubgraphsLength() != 1 and not any(op.name in CONTROL for op in ops):
            raise BadModel(f"it has {model.SubgraphsLength()} subgraphs, one is expected")
        left = [op for op in ops if not _settled(op)]
        self.ops = fold_dilated(left, self.outputs)
        #: whether an interpreter would run other ops than ``ops``, constants apart
        self.rewritten = [id(op) for op in left] != [id(op) for op in self.ops]

    def tensor(self, index: int) -> SourceTensor:
        """The tensor of that index, read once."""
        if index not in self._tensors:
            self._tensors[index] = self._read(index)
        return self._tensors[index]

    def _read(self, index: int) -> SourceTensor:
        t = self._graph.Tensors(index)
        shape = tuple(int(n) for n in t.ShapeAsNumpy()) if t.ShapeLength() else ()
        signature = t.ShapeSignatureAsNumpy() if t.ShapeSignatureLength() else shape
        type_ = _names("TensorType").get(t.Type(), str(t.Type()))
        dynamic = any(int(n) < 0 for i, n in enumerate(signature) if i or int(n) >= 0)
        out = SourceTensor(index, (t.Name() or b"").decode("utf-8", "replace"), shape, type_)
        out.dynamic = dynamic or any(n < 0 for n in shape)
        out.open = any(int(n) < 0 for n in signature)
        out.sparse = t.Sparsity() is not None
        quant = t.Quantization()
        if quant is not None and quant.ScaleLength() and quant.ScaleAsNumpy().min() > 0:
            out.scale = quant.ScaleAsNumpy().astype(np.float64)
            zero = quant.ZeroPointAsNumpy() if quant.ZeroPointLength() else [0] * len(out.scale)
            out.zero_point = np.asarray(zero, np.float64)
            out.axis = quant.QuantizedDimension()
        out.value = None if out.sparse or out.dynamic else self._constant(t, shape, type_)
        return out

    def _constant(self, t: Any, shape: tuple[int, ...], type_: str) -> NDArray[Any] | None:
        buffer = self._model.Buffers(t.Buffer()) if t.Buffer() else None
        if buffer is None or type_ not in _DTYPES:
            return None
        dtype = np.dtype(_DTYPES[type_])
        if buffer.DataLength():
            raw = buffer.DataAsNumpy().tobytes()
        elif buffer.Size() > 1:  # constants beyond 2 GB formats: stored after the flatbuffer
            raw = self.data[buffer.Offset() : buffer.Offset() + buffer.Size()]
        else:
            return None
        return np.frombuffer(raw, dtype).reshape(shape)

    def _op(self, index: int) -> SourceOp:
        op = self._graph.Operators(index)
        code = self._model.OperatorCodes(op.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _names("BuiltinOperator").get(number, f"operator {number}")
        if name == "CUSTOM":
            name = f"custom op {(code.CustomCode() or b'?').decode('utf-8', 'replace')}"
        inputs = [None if i < 0 else self.tensor(int(i)) for i in _listed(op.InputsAsNumpy())]
        outputs = [self.tensor(int(i)) for i in _listed(op.OutputsAsNumpy())]
        record = SourceOp(name, index, code.Version(), inputs, outputs)
        raw = op.BuiltinOptions()
        table, read = _OPTIONS.get(name, ("", None))
        if (
            read
            and raw is not None
            and _names("BuiltinOptions").get(op.BuiltinOptionsType()) == table
        ):
            options = getattr(tflite_schema, table)()
            options.Init(raw.Bytes, raw.Pos)
            record.options = read(options)
        return record


@lru_cache(maxsize=1)
def source_of(data: bytes) -> Source:
    """The file taken apart, once for the steps of one model, which look at it in turn; who asks
    for it changes nothing in it. Raises :class:`BadModel`."""
    return Source(data)


def real(t: SourceTensor) -> NDArray[Any]:
    """A constant as float32 (or its integers), dequantised where it carries a scale."""
    value = t.value
    assert value is not None
    if t.scale is not None and t.zero_point is not None and value.dtype.kind in "iu":
        scale, zero = _by_axis(t)
        return np.asarray((value.astype(np.float64) - zero) * scale, np.float32)
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _by_axis(t: SourceTensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and zero point of a quantised tensor, shaped to be broadcast over it."""
    assert t.scale is not None
    assert t.zero_point is not None
    axis = [1] * len(t.shape)
    if t.scale.size > 1:
        axis[t.axis] = t.scale.size
    return t.scale.reshape(axis), t.zero_point.reshape(axis)
