"""The node bodies of kmodel version 4 as a table (docs/kpu-and-kmodel.md, sections 3.3 to 3.5).

A body class *is* its format: its annotated fields in order. Shapes are N, C, H, W unless a
class says otherwise; memory ranges are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.codec import (
    F32,
    I32,
    NO_RANGE,
    U32,
    Array,
    Items,
    Mem,
    MemoryRange,
    Packed,
    PadField,
    QuantField,
    RangeField,
    Record,
    Rest,
    Scalar,
    ScalarField,
    ShapeField,
)
from k210tasks.kpu.registers import LayerRegisters
from k210tasks.kpu.tables import Activation, BatchNorm

NO_MEMORY = MemoryRange(0, 0, 0, 0)
MAX_INPUTS = 64


class ReduceOp(IntEnum):
    MEAN = 0
    MIN = 1
    MAX = 2
    SUM = 3


class BinaryOp(IntEnum):
    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MIN = 4
    MAX = 5


class UnaryOp(IntEnum):
    ABS = 0
    CEIL = 1
    COS = 2
    EXP = 3
    FLOOR = 4
    LOG = 5
    NEG = 6
    RSQRT = 7
    SIN = 8
    SQUARE = 9


class ResizeMode(IntEnum):
    BILINEAR = 0
    NEAREST = 1


@dataclass(kw_only=True, eq=False, repr=False)
class Node(Record):
    """What every node has."""

    OPCODE: ClassVar[int]
    NAME: ClassVar[str]
    offset: int | None = field(default=None, repr=False)  # of the body in the file it came from


NODES: dict[int, type[Node]] = {}


def _node(opcode: int, name: str) -> Any:
    def register(cls: type[Node]) -> type[Node]:
        cls.OPCODE, cls.NAME = opcode, name
        NODES[opcode] = cls
        return cls

    return register


@_node(0x00, "binary")
@dataclass(kw_only=True, eq=False, repr=False)
class Binary(Node):
    a: Mem
    b: Mem
    out: Mem
    op: I32
    shape_a: ShapeField
    shape_b: ShapeField
    shape_out: ShapeField
    act: RangeField = NO_RANGE


@_node(0x01, "concat")
@dataclass(kw_only=True, eq=False, repr=False)
class Concat(Node):
    out: Mem
    inner: U32  # bytes of one step along the concatenated axis
    outer: U32  # how often the inputs alternate
    n: U32
    inputs: Annotated[
        list[MemoryRange], Items(Packed("4I", MemoryRange), lambda b: b.n, MAX_INPUTS)
    ]
    dims: Annotated[list[int], Items(Packed("i"), lambda b: b.n, MAX_INPUTS)]


@dataclass(kw_only=True, eq=False, repr=False)
class Conv2dBase(Node):
    """The fields float and quantised convolution share."""

    input: Mem
    out: Mem
    shape: ShapeField
    groups: I32
    out_channels: I32
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32


def _conv_shape(b: Any) -> tuple[int, ...]:
    return b.out_channels, b.shape.c // max(b.groups, 1), b.filter_h, b.filter_w


@_node(0x02, "conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class Conv2d(Conv2dBase):
    act: RangeField = NO_RANGE
    weights: Annotated[NDArray[np.float32], Array("<f4", _conv_shape)]  # OC, IC/g, fh, fw
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.out_channels,))]


@_node(0x03, "dequantize")
@dataclass(kw_only=True, eq=False, repr=False)
class Dequantize(Node):
    input: Mem
    out: Mem
    quant: QuantField


@_node(0x04, "matmul")
@dataclass(kw_only=True, eq=False, repr=False)
class Matmul(Node):
    a: Mem
    b: Mem
    out: Mem
    a_rows: I32
    a_cols: I32
    b_cols: I32
    act: RangeField = NO_RANGE
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.b_cols,))]


@_node(0x05, "pad")
@dataclass(kw_only=True, eq=False, repr=False)
class PadNode(Node):
    input: Mem
    out: Mem
    shape: ShapeField
    pad_n: PadField
    pad_c: PadField
    pad_h: PadField
    pad_w: PadField
    value: ScalarField = Scalar(0, bytes(4))  # nncase never writes it: always 0


@_node(0x06, "quantize")
@dataclass(kw_only=True, eq=False, repr=False)
class Quantize(Node):
    input: Mem
    out: Mem
    quant: QuantField


@_node(0x07, "reduce")
@dataclass(kw_only=True, eq=False, repr=False)
class Reduce(Node):
    input: Mem
    out: Mem
    op: I32
    shape: ShapeField
    shape_reduced: ShapeField  # kept dimensions of 1 where reduced
    init: F32


@_node(0x08, "reduce_window2d")
@dataclass(kw_only=True, eq=False, repr=False)
class ReduceWindow2d(Node):
    input: Mem
    out: Mem
    op: I32
    shape: ShapeField
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    init: F32
    act: RangeField = NO_RANGE


@_node(0x09, "memory_copy")
@dataclass(kw_only=True, eq=False, repr=False)
class MemoryCopy(Node):
    input: Mem
    out: Mem


@_node(0x0A, "resize_image")
@dataclass(kw_only=True, eq=False, repr=False)
class ResizeImage(Node):
    input: Mem
    out: Mem
    shape: ShapeField
    out_h: I32
    out_w: I32
    mode: I32
    align_corners: Annotated[int, Packed("B3x")] = 0


@_node(0x0B, "softmax")
@dataclass(kw_only=True, eq=False, repr=False)
class Softmax(Node):
    input: Mem
    out: Mem
    inner: I32
    outer: I32
    beta: F32


@_node(0x0C, "transpose")
@dataclass(kw_only=True, eq=False, repr=False)
class Transpose(Node):
    input: Mem
    out: Mem
    shape: ShapeField
    perm: ShapeField


@_node(0x0D, "strided_slice")
@dataclass(kw_only=True, eq=False, repr=False)
class StridedSlice(Node):
    input: Mem
    out: Mem
    shape: ShapeField
    begin: ShapeField
    end: ShapeField
    strides: ShapeField
    begin_mask: I32 = 0
    end_mask: I32 = 0
    ellipsis_mask: I32 = 0
    new_axis_mask: I32 = 0
    shrink_axis_mask: I32 = 0


@_node(0x0E, "unary")
@dataclass(kw_only=True, eq=False, repr=False)
class Unary(Node):
    input: Mem
    out: Mem
    op: I32


@_node(0x0F, "quantized_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedConv2d(Conv2dBase):
    in_offset: I32
    filter_offset: I32
    out_mul: I32
    out_shift: I32
    out_offset: I32
    bias: Annotated[NDArray[np.int32], Array("<i4", lambda b: (b.out_channels,))]
    weights: Annotated[NDArray[np.uint8], Array("u1", _conv_shape)]  # OC, IC/g, fh, fw


@_node(0x10, "quantized_matmul")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedMatmul(Node):
    a: Mem
    b: Mem
    out: Mem
    a_rows: I32
    a_cols: I32
    b_cols: I32
    a_offset: I32
    b_offset: I32
    out_mul: I32
    out_shift: I32
    out_offset: I32
    bias: Annotated[NDArray[np.int32], Array("<i4", lambda b: (b.b_cols,))]


@_node(0x11, "quantized_binary")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedBinary(Node):
    a: Mem
    b: Mem
    out: Mem
    op: I32
    shape_a: ShapeField
    shape_b: ShapeField
    shape_out: ShapeField
    a_offset: I32
    a_mul: I32
    a_shift: I32
    b_offset: I32
    b_mul: I32
    b_shift: I32
    out_offset: I32
    out_mul: I32
    out_shift: I32


@_node(0x12, "table_lookup1d")
@dataclass(kw_only=True, eq=False, repr=False)
class TableLookup1d(Node):
    input: Mem
    table: Mem
    out: Mem


@_node(0x13, "conv2d_transpose")
@dataclass(kw_only=True, eq=False, repr=False)
class Conv2dTranspose(Node):
    input: Mem
    out: Mem
    shape: ShapeField
    shape_out: ShapeField
    groups: I32
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    act: RangeField = NO_RANGE
    weights: Annotated[
        NDArray[np.float32],
        Array(
            "<f4",
            lambda b: (b.shape_out.c, b.shape.c // max(b.groups, 1), b.filter_h, b.filter_w),
        ),
    ]
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.shape_out.c,))]  # never added


@_node(0x14, "nnil_unary_method")
@dataclass(kw_only=True, eq=False, repr=False)
class NnilUnary(Node):
    input: Mem
    out: Mem
    code: Annotated[bytes, Rest()]


@dataclass(kw_only=True, eq=False, repr=False)
class CpuWindow(Node):
    """The geometry every NHWC operation has; ``shape`` is N, H, W, C."""

    input: Mem
    out: Mem
    shape: ShapeField


def _nhwc_conv(b: Any) -> tuple[int, ...]:
    return b.out_channels, b.filter_h, b.filter_w, b.shape.w


def _nhwc_depthwise(b: Any) -> tuple[int, ...]:
    return b.filter_h, b.filter_w, b.shape.w


@_node(0x1001, "cpu_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class CpuConv2d(CpuWindow):
    out_channels: I32
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    act: RangeField = NO_RANGE
    weights: Annotated[NDArray[np.float32], Array("<f4", _nhwc_conv)]  # OC, fh, fw, IC
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.out_channels,))]


@_node(0x1002, "cpu_depthwise_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class CpuDepthwiseConv2d(CpuWindow):
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    act: RangeField = NO_RANGE
    weights: Annotated[NDArray[np.float32], Array("<f4", _nhwc_depthwise)]  # fh, fw, C
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.shape.w,))]


@_node(0x1003, "cpu_reduce_window2d")
@dataclass(kw_only=True, eq=False, repr=False)
class CpuReduceWindow2d(Node):
    input: Mem
    out: Mem
    op: I32
    shape: ShapeField  # N, H, W, C
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    init: F32
    act: RangeField = NO_RANGE


@_node(0x1004, "cpu_quantized_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class CpuQuantizedConv2d(CpuWindow):
    out_channels: I32
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    in_offset: I32
    filter_offset: I32
    out_mul: I32
    out_shift: I32
    out_offset: I32
    weights: Annotated[NDArray[np.uint8], Array("u1", _nhwc_conv)]
    bias: Annotated[NDArray[np.int32], Array("<i4", lambda b: (b.out_channels,))]


@_node(0x1005, "cpu_quantized_depthwise_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class CpuQuantizedDepthwiseConv2d(CpuWindow):
    pad_h: PadField
    pad_w: PadField
    filter_h: I32
    filter_w: I32
    stride_h: I32
    stride_w: I32
    dilation_h: I32
    dilation_w: I32
    in_offset: I32
    filter_offset: I32
    out_mul: I32
    out_shift: I32
    out_offset: I32
    weights: Annotated[NDArray[np.uint8], Array("u1", _nhwc_depthwise)]
    bias: Annotated[NDArray[np.int32], Array("<i4", lambda b: (b.shape.w,))]


@_node(0x2001, "kpu_upload")
@dataclass(kw_only=True, eq=False, repr=False)
class KpuUpload(Node):
    input: Mem
    out: Mem
    shape: ShapeField


@_node(0x2002, "kpu_conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class KpuConv2d(Node):
    """A KPU layer. ``weights`` is uint8 (OC, IC, k, k), depthwise (C, 1, k, k).

    ``main_output`` receives the dense bytes too, where its size is not 0.
    """

    main_output: Mem = NO_MEMORY
    batches: I32 = 1
    reserved: I32 = 0  # not initialised by nncase
    registers: LayerRegisters
    bn: BatchNorm
    activation: Activation
    weights: NDArray[Any]
    #: Padding in front of batch norm, activation, weights, where a file pads oddly; None: to 256.
    skips: tuple[int, int, int] | None = field(default=None, repr=False)
