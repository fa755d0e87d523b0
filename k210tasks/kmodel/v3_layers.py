"""The layer bodies of kmodel version 3 as a table (docs/kpu-and-kmodel.md, sections 2.2, 2.3).

A body class *is* its format: its annotated fields in order. Addresses named ``*_mem`` are
bytes of main memory, ``*_kpu`` rows of KPU RAM; ``in_shape`` and ``out_shape`` are (width,
height, channels). ``flags`` bit 0 says that the result goes to main memory; runtimes look
at it in convolutions only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.codec import F32, I32, U32, Array, Items, Packed, Record
from k210tasks.kpu.registers import LayerRegisters
from k210tasks.kpu.tables import Activation, BatchNorm

MAX_INPUTS = 64
TO_MAIN = 1  # flags bit 0: the result goes to main memory


class WHC(NamedTuple):
    """A shape as v3 files order it."""

    width: int
    height: int
    channels: int


class ByteRange(NamedTuple):
    start: int
    size: int  # bytes


class Output(NamedTuple):
    """An output of the model in main memory: float32 values."""

    address: int
    size: int  # bytes


Shape3 = Annotated[WHC, Packed("3I", WHC)]


@dataclass(kw_only=True, eq=False, repr=False)
class Body(Record):
    """What every layer body starts with."""

    TYPE: ClassVar[int]
    NAME: ClassVar[str]  # as ncc 0.1's log prints it
    flags: U32 = 0
    offset: int | None = field(default=None, repr=False)  # of the body in the file it came from


BODIES: dict[int, type[Body]] = {}


def _layer(type_id: int, name: str) -> Any:
    def register(cls: type[Body]) -> type[Body]:
        cls.TYPE, cls.NAME = type_id, name
        BODIES[type_id] = cls
        return cls

    return register


@_layer(1, "Add")
@dataclass(kw_only=True, eq=False, repr=False)
class Add(Body):
    a_mem: U32
    b_mem: U32
    out_mem: U32
    count: U32


@_layer(2, "QuantizedAdd")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedAdd(Body):
    a_mem: U32
    b_mem: U32
    out_mem: U32
    count: U32
    a_offset: I32
    a_mul: I32
    a_shift: I32
    b_offset: I32
    b_mul: I32
    b_shift: I32
    out_offset: I32
    out_mul: I32
    out_shift: I32


@_layer(5, "GlobalAveragePool")
@dataclass(kw_only=True, eq=False, repr=False)
class GlobalAveragePool(Body):
    in_mem: U32
    out_mem: U32
    kernel_size: U32  # W * H
    channels: U32


@dataclass(kw_only=True, eq=False, repr=False)
class Pool2d(Body):
    in_mem: U32
    out_mem: U32
    in_shape: Shape3
    out_shape: Shape3
    kernel_w: U32
    kernel_h: U32
    stride_w: U32
    stride_h: U32
    pad_w: U32
    pad_h: U32


@_layer(7, "MaxPool2d")
@dataclass(kw_only=True, eq=False, repr=False)
class MaxPool2d(Pool2d):
    """Float maximum; no device runtime has a handler for it."""


@_layer(8, "QuantizedMaxPool2d")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedMaxPool2d(Pool2d):
    pass


@_layer(9, "AveragePool2d")
@dataclass(kw_only=True, eq=False, repr=False)
class AveragePool2d(Pool2d):
    act: U32 = 0  # 0 linear, 1 relu, 2 relu6; runtimes ignore it


@_layer(11, "Quantize")
@dataclass(kw_only=True, eq=False, repr=False)
class Quantize(Body):
    in_mem: U32
    out_mem: U32
    count: U32
    scale: F32  # real step of one code
    bias: F32  # real value of code 0


@_layer(12, "Dequantize")
@dataclass(kw_only=True, eq=False, repr=False)
class Dequantize(Body):
    in_mem: U32
    out_mem: U32
    count: U32
    scale: F32
    bias: F32


@_layer(13, "Requantize")
@dataclass(kw_only=True, eq=False, repr=False)
class Requantize(Body):
    in_mem: U32
    out_mem: U32
    count: U32
    table: Annotated[NDArray[np.uint8], Array("u1", lambda b: (256,))]


@_layer(14, "L2Normalization")
@dataclass(kw_only=True, eq=False, repr=False)
class L2Normalization(Body):
    in_mem: U32
    out_mem: U32
    channels: U32


@_layer(15, "Softmax")
@dataclass(kw_only=True, eq=False, repr=False)
class Softmax(Body):
    in_mem: U32
    out_mem: U32
    channels: U32


@_layer(16, "Concat")
@dataclass(kw_only=True, eq=False, repr=False)
class Concat(Body):
    out_mem: U32
    n: U32
    inputs: Annotated[list[ByteRange], Items(Packed("2I", ByteRange), lambda b: b.n, MAX_INPUTS)]

    @classmethod
    def of(cls, out_mem: int, inputs: Iterable[tuple[int, int]], flags: int = 0) -> Concat:
        """From (start, bytes) pairs."""
        ranges = [ByteRange(*i) for i in inputs]
        return cls(flags=flags, out_mem=out_mem, n=len(ranges), inputs=ranges)


@_layer(17, "QuantizedConcat")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedConcat(Concat):
    pass


@_layer(18, "FullyConnected")
@dataclass(kw_only=True, eq=False, repr=False)
class FullyConnected(Body):
    in_mem: U32
    out_mem: U32
    in_ch: U32
    out_ch: U32
    act: U32  # 0 linear, 1 relu, 2 relu6
    weights: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.out_ch, b.in_ch))]
    bias: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.out_ch,))]


@_layer(20, "TensorflowFlatten")
@dataclass(kw_only=True, eq=False, repr=False)
class TensorflowFlatten(Body):
    """CHW to HWC, so that dense weights of TensorFlow apply unchanged."""

    in_mem: U32
    out_mem: U32
    shape: Shape3


@_layer(22, "ResizeNearestNeighbor")
@dataclass(kw_only=True, eq=False, repr=False)
class ResizeNearestNeighbor(Body):
    in_mem: U32
    out_mem: U32
    in_shape: Shape3
    out_w: U32
    out_h: U32
    align_corners: U32 = 0  # runtimes ignore it


@_layer(23, "QuantizedResizeNearestNeighbor")
@dataclass(kw_only=True, eq=False, repr=False)
class QuantizedResizeNearestNeighbor(ResizeNearestNeighbor):
    pass


@_layer(24, "ChannelwiseDequantize")
@dataclass(kw_only=True, eq=False, repr=False)
class ChannelwiseDequantize(Body):
    in_mem: U32
    out_mem: U32
    channels: U32
    channel_size: U32
    params: Annotated[NDArray[np.float32], Array("<f4", lambda b: (b.channels, 2))]  # scale, bias


@_layer(25, "Logistic")
@dataclass(kw_only=True, eq=False, repr=False)
class Logistic(Body):
    in_mem: U32
    out_mem: U32
    channels: U32  # the element count


@_layer(10240, "K210Conv2d")
@dataclass(kw_only=True, eq=False, repr=False)
class K210Conv(Body):
    """A KPU layer. ``weights`` is (OC, IC, k, k), depthwise (C, 1, k, k), uint8 or uint16."""

    out_mem: U32 = 0
    registers: LayerRegisters
    weights: NDArray[Any]
    bn: BatchNorm
    activation: Activation
    #: Layer, weights, batch norm, activation, where a file places them oddly; None: as aligned.
    blob_offsets: tuple[int, int, int, int] | None = field(default=None, repr=False)

    @property
    def to_main(self) -> bool:
        return bool(self.flags & TO_MAIN)


@_layer(10241, "K210AddPadding")
@dataclass(kw_only=True, eq=False, repr=False)
class K210AddPadding(Body):
    in_mem: U32
    out_kpu: U32
    channels: U32


@_layer(10242, "K210RemovePadding")
@dataclass(kw_only=True, eq=False, repr=False)
class K210RemovePadding(Body):
    in_mem: U32
    out_mem: U32
    channels: U32


@_layer(10243, "K210Upload")
@dataclass(kw_only=True, eq=False, repr=False)
class K210Upload(Body):
    in_mem: U32
    out_kpu: U32
    width: U32
    height: U32
    channels: U32


#: Ids the format reserves and no writer emits.
RESERVED = {
    3: "GlobalMaxPool",
    4: "QuantizedGlobalMaxPool",
    6: "QuantizedGlobalAveragePool",
    10: "QuantizedAveragePool2d",
    19: "QuantizedFullyConnected",
    21: "QuantizedTensorflowFlatten",
}
