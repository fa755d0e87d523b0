"""What every layer reads and writes, as its body declares it (docs, sections 2.2 and 3.4).

The buffers of a file are nothing but these: neither format lists them. What a runtime touches
beyond them belongs to another layer or to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from k210tasks.kmodel import v3_layers as v3
from k210tasks.kmodel import v4_ops as v4
from k210tasks.kmodel.codec import KPU, MAIN, MemoryRange


class Span(NamedTuple):
    """Bytes of constants or main memory, or maps in KPU RAM.

    ``start`` and ``size`` are bytes; in KPU RAM ``start`` is a row and ``shape`` the N, C, H, W
    of the maps there, of which the first ``pixels`` rows and columns are meant (None: all).
    """

    memory: int  # CONST, MAIN or KPU
    start: int
    size: int = 0
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    pixels: int | None = None


class Accesses(NamedTuple):
    reads: tuple[Span, ...]
    writes: tuple[Span, ...]


def _main(start: int, size: int) -> Span:
    return Span(MAIN, start, size)


def _vector(read: int, wrote: int, field: str = "count") -> Callable[[Any], Accesses]:
    """A layer of as many elements as ``field`` says, of so many bytes each."""

    def of(b: Any) -> Accesses:
        count = getattr(b, field)
        return Accesses((_main(b.in_mem, read * count),), (_main(b.out_mem, wrote * count),))

    return of


def _sum(item: int) -> Callable[[Any], Accesses]:
    def of(b: Any) -> Accesses:
        size = item * b.count
        return Accesses(
            (_main(b.a_mem, size), _main(b.b_mem, size)),
            (_main(b.out_mem, size),),
        )

    return of


def _shapes(item: int) -> Callable[[Any], Accesses]:
    """A pool or resize."""

    def of(b: Any) -> Accesses:
        if isinstance(b, v3.Pool2d):
            out = math.prod(b.out_shape)
        else:
            out = b.in_shape.channels * b.out_h * b.out_w
        return Accesses(
            (_main(b.in_mem, item * math.prod(b.in_shape)),), (_main(b.out_mem, item * out),)
        )

    return of


def _concat(b: v3.Concat) -> Accesses:
    return Accesses(
        tuple(_main(*part) for part in b.inputs),
        (_main(b.out_mem, sum(part.size for part in b.inputs)),),
    )


def _convolution(b: v3.K210Conv | v4.KpuConv2d) -> Accesses:
    r, batches = b.registers, max(1, getattr(b, "batches", 1))
    source = Span(KPU, r.image_src_addr, shape=(batches, *r.in_shape))
    writes = [Span(KPU, r.image_dst_addr, shape=(batches, *r.out_shape))]
    if isinstance(b, v4.KpuConv2d):
        if b.main_output.size:
            writes.append(_range(b.main_output))
    elif b.to_main:
        writes.append(_main(b.out_mem, math.prod(r.out_shape)))
    return Accesses((source,), tuple(writes))


def _range(memory: MemoryRange) -> Span:
    return Span(memory.memory_type, memory.start, memory.size)


V3: dict[type[v3.Body], Callable[[Any], Accesses]] = {
    v3.Add: _sum(4),
    v3.QuantizedAdd: _sum(1),
    v3.GlobalAveragePool: lambda b: Accesses(
        (_main(b.in_mem, 4 * b.kernel_size * b.channels),), (_main(b.out_mem, 4 * b.channels),)
    ),
    v3.MaxPool2d: _shapes(4),
    v3.QuantizedMaxPool2d: _shapes(1),
    v3.AveragePool2d: _shapes(4),
    v3.Quantize: _vector(4, 1),
    v3.Dequantize: _vector(1, 4),
    v3.Requantize: _vector(1, 1),
    v3.L2Normalization: _vector(4, 4, "channels"),
    v3.Softmax: _vector(4, 4, "channels"),
    v3.Logistic: _vector(4, 4, "channels"),
    v3.Concat: _concat,
    v3.QuantizedConcat: _concat,
    v3.FullyConnected: lambda b: Accesses(
        (_main(b.in_mem, 4 * b.in_ch),), (_main(b.out_mem, 4 * b.out_ch),)
    ),
    v3.TensorflowFlatten: lambda b: Accesses(
        (_main(b.in_mem, 4 * math.prod(b.shape)),), (_main(b.out_mem, 4 * math.prod(b.shape)),)
    ),
    v3.ResizeNearestNeighbor: _shapes(4),
    v3.QuantizedResizeNearestNeighbor: _shapes(1),
    v3.ChannelwiseDequantize: lambda b: Accesses(
        (_main(b.in_mem, b.channels * b.channel_size),),
        (_main(b.out_mem, 4 * b.channels * b.channel_size),),
    ),
    v3.K210Conv: _convolution,
    v3.K210AddPadding: lambda b: Accesses(
        (_main(b.in_mem, b.channels),),
        (Span(KPU, b.out_kpu, shape=(1, b.channels, 4, 4), pixels=1),),
    ),
    v3.K210RemovePadding: lambda b: Accesses(
        (_main(b.in_mem, max(16 * b.channels - 15, 0)),), (_main(b.out_mem, b.channels),)
    ),
    v3.K210Upload: lambda b: Accesses(
        (_main(b.in_mem, b.width * b.height * b.channels),),
        (Span(KPU, b.out_kpu, shape=(1, b.channels, b.height, b.width)),),
    ),
}

#: The fields of kmodel 4's nodes that say what they read.
_READ_FIELDS = ("input", "a", "b", "table")


def accesses(body: Any) -> Accesses:
    """What a layer of either format reads and writes."""
    if isinstance(body, v3.Body):
        return V3[type(body)](body)
    if isinstance(body, v4.KpuConv2d):
        return _convolution(body)
    named = [getattr(body, name) for name in _READ_FIELDS if hasattr(body, name)]
    reads = tuple(_range(memory) for memory in [*named, *getattr(body, "inputs", ())])
    if isinstance(body, v4.KpuUpload):
        n, c, h, w = body.shape
        return Accesses(reads, (Span(KPU, body.out.start // 64, shape=(n, c, h, w)),))
    return Accesses(reads, (_range(body.out),))


def outputs(model: Any) -> tuple[Span, ...]:
    """The model's outputs in main memory."""
    if model.version == 4:
        return tuple(_range(memory) for memory in model.outputs)
    return tuple(_main(o.address, o.size) for o in model.outputs)
