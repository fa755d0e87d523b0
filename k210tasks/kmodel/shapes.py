"""The shapes of layers, as far as a file's contents tell them.

A v3 file holds none for most CPU layers; there the shape of whatever was last written to the
same address with the same element count is taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from k210tasks.kmodel import v3_layers as v3
from k210tasks.kmodel import v4_ops as v4
from k210tasks.kmodel.codec import KPU, MAIN

Dims = tuple[int, ...]  # batch first, N, C, H, W; or N, count where no more is known


class Flow(NamedTuple):
    """What goes into a layer and comes out; ``reads`` and ``writes`` are main memory bytes."""

    input: Dims | None
    output: Dims | None
    reads: int | None = None
    writes: int | None = None


def volume(dims: Dims) -> int:
    """Elements of a tensor."""
    total = 1
    for n in dims:
        total *= n
    return total


def window_out(size: int, before: int, after: int, taps: int, stride: int, dilation: int) -> int:
    """Output size of a sliding window; ``stride`` must not be 0."""
    return (size + before + after - ((taps - 1) * dilation + 1)) // stride + 1


def text(dims: Dims | None) -> str:
    """As listings print it: ``1x3x240x320``."""
    return "?" if dims is None else "x".join(map(str, dims))


def _vector(name: str) -> Callable[[Any], Flow]:
    """A layer of as many elements as the field ``name`` says."""

    def flow(b: Any) -> Flow:
        dims = (1, getattr(b, name))
        return Flow(dims, dims, b.in_mem, b.out_mem)

    return flow


def _sum(b: Any) -> Flow:
    return Flow((1, b.count), (1, b.count), b.a_mem, b.out_mem)


def _pool3(b: Any) -> Flow:
    return Flow((1, *reversed(b.in_shape)), (1, *reversed(b.out_shape)), b.in_mem, b.out_mem)


def _resize3(b: Any) -> Flow:
    channels = b.in_shape.channels
    return Flow((1, *reversed(b.in_shape)), (1, channels, b.out_h, b.out_w), b.in_mem, b.out_mem)


def _concat3(b: Any) -> Flow:
    total = sum(size for _, size in b.inputs)
    item = 1 if isinstance(b, v3.QuantizedConcat) else 4
    first = (1, b.inputs[0].size // item) if b.inputs else None
    return Flow(first, (1, total // item), None, b.out_mem)


def _conv3(b: Any) -> Flow:
    r = b.registers
    return Flow((1, *r.in_shape), (1, *r.out_shape), None, b.out_mem if b.to_main else None)


def _flatten3(b: Any) -> Flow:
    dims = (1, *reversed(b.shape))
    return Flow(dims, (1, volume(dims)), b.in_mem, b.out_mem)


_V3: dict[type[v3.Body], Callable[[Any], Flow]] = {
    v3.Add: _sum,
    v3.QuantizedAdd: _sum,
    v3.GlobalAveragePool: lambda b: Flow(
        (1, b.channels, b.kernel_size), (1, b.channels), b.in_mem, b.out_mem
    ),
    v3.MaxPool2d: _pool3,
    v3.QuantizedMaxPool2d: _pool3,
    v3.AveragePool2d: _pool3,
    v3.Quantize: _vector("count"),
    v3.Dequantize: _vector("count"),
    v3.Requantize: _vector("count"),
    v3.L2Normalization: _vector("channels"),
    v3.Softmax: _vector("channels"),
    v3.Concat: _concat3,
    v3.QuantizedConcat: _concat3,
    v3.FullyConnected: lambda b: Flow((1, b.in_ch), (1, b.out_ch), b.in_mem, b.out_mem),
    v3.TensorflowFlatten: _flatten3,
    v3.ResizeNearestNeighbor: _resize3,
    v3.QuantizedResizeNearestNeighbor: _resize3,
    v3.ChannelwiseDequantize: lambda b: Flow(
        (1, b.channels, b.channel_size), (1, b.channels, b.channel_size), b.in_mem, b.out_mem
    ),
    v3.Logistic: _vector("channels"),
    v3.K210Conv: _conv3,
    v3.K210AddPadding: lambda b: Flow((1, b.channels), (1, b.channels, 4, 4), b.in_mem),
    v3.K210RemovePadding: lambda b: Flow(
        (1, b.channels, 4, 4), (1, b.channels), b.in_mem, b.out_mem
    ),
    v3.K210Upload: lambda b: Flow(
        (1, b.channels, b.height, b.width), (1, b.channels, b.height, b.width), b.in_mem
    ),
}


def _elements(memory: Any) -> Dims:
    return (1, memory.size // memory.itemsize)


def _same(b: Any) -> Flow:
    return Flow(_elements(b.input), _elements(b.out))


def _windows(b: Any) -> tuple[int, int]:
    def along(axis: str, size: int) -> int:
        steps = (getattr(b, f"{what}_{axis}") for what in ("filter", "stride", "dilation"))
        return window_out(size, *getattr(b, f"pad_{axis}"), *steps)

    return along("h", _height(b)), along("w", _width(b))


def _nhwc(b: Any) -> bool:
    return bool(0x1001 <= b.OPCODE <= 0x1005)


def _height(b: Any) -> int:
    return int(b.shape[1] if _nhwc(b) else b.shape.h)


def _width(b: Any) -> int:
    return int(b.shape[2] if _nhwc(b) else b.shape.w)


def _window4(b: Any) -> Flow:
    h, w = _windows(b)
    if _nhwc(b):
        return Flow(b.shape, (b.shape[0], h, w, getattr(b, "out_channels", b.shape[3])))
    return Flow(b.shape, (b.shape.n, getattr(b, "out_channels", b.shape.c), h, w))


def _matmul4(b: Any) -> Flow:
    return Flow((b.a_rows, b.a_cols), (b.a_rows, b.b_cols))


def _pad4(b: Any) -> Flow:
    pads = (b.pad_n, b.pad_c, b.pad_h, b.pad_w)
    return Flow(b.shape, tuple(n + p.before + p.after for n, p in zip(b.shape, pads, strict=True)))


def _transpose4(b: Any) -> Flow:
    if any(not 0 <= axis < 4 for axis in b.perm):
        return Flow(b.shape, None)
    return Flow(b.shape, tuple(b.shape[axis] for axis in b.perm))


def _slice4(b: Any) -> Flow:
    sizes = zip(b.begin, b.end, b.strides, strict=True)
    return Flow(b.shape, tuple(-((begin - end) // stride) for begin, end, stride in sizes))


def _conv4(b: Any) -> Flow:
    r = b.registers
    return Flow((b.batches, *r.in_shape), (b.batches, *r.out_shape))


_V4: dict[type[v4.Node], Callable[[Any], Flow]] = {
    v4.Binary: lambda b: Flow(b.shape_a, b.shape_out),
    v4.Concat: lambda b: Flow(_elements(b.inputs[0]) if b.inputs else None, _elements(b.out)),
    v4.Conv2d: _window4,
    v4.Dequantize: _same,
    v4.Matmul: _matmul4,
    v4.PadNode: _pad4,
    v4.Quantize: _same,
    v4.Reduce: lambda b: Flow(b.shape, b.shape_reduced),
    v4.ReduceWindow2d: _window4,
    v4.MemoryCopy: _same,
    v4.ResizeImage: lambda b: Flow(b.shape, (b.shape.n, b.shape.c, b.out_h, b.out_w)),
    v4.Softmax: lambda b: Flow((b.outer, b.inner), (b.outer, b.inner)),
    v4.Transpose: _transpose4,
    v4.StridedSlice: _slice4,
    v4.Unary: _same,
    v4.QuantizedConv2d: _window4,
    v4.QuantizedMatmul: _matmul4,
    v4.QuantizedBinary: lambda b: Flow(b.shape_a, b.shape_out),
    v4.TableLookup1d: _same,
    v4.Conv2dTranspose: lambda b: Flow(b.shape, b.shape_out),
    v4.NnilUnary: _same,
    v4.CpuConv2d: _window4,
    v4.CpuDepthwiseConv2d: _window4,
    v4.CpuReduceWindow2d: _window4,
    v4.CpuQuantizedConv2d: _window4,
    v4.CpuQuantizedDepthwiseConv2d: _window4,
    v4.KpuUpload: lambda b: Flow(b.shape, b.shape),
    v4.KpuConv2d: _conv4,
}


def _main_address(memory: Any) -> int | None:
    return memory.start if memory.memory_type == MAIN and memory.size else None


def own_flow(body: v3.Body | v4.Node) -> Flow:
    """What a layer alone tells of its shapes and of the main memory it reads and writes."""
    try:
        if isinstance(body, v3.Body):
            return _V3[type(body)](body)
        flow = _V4[type(body)](body)
    except ZeroDivisionError:  # a damaged file's stride
        flow = Flow(None, None)
    source = getattr(body, "input", getattr(body, "a", None))
    target = getattr(body, "out", getattr(body, "main_output", None))
    return flow._replace(
        reads=None if source is None else _main_address(source),
        writes=None if target is None or target.memory_type == KPU else _main_address(target),
    )


class Tracker:
    """Carries shapes from layer to layer through main memory."""

    def __init__(self) -> None:
        self._at: dict[int, Dims] = {}

    def flow(self, body: v3.Body | v4.Node) -> Flow:
        """The flow of the next layer, bare element counts replaced by known shapes."""
        flow = own_flow(body)
        given, made = flow.input, flow.output
        known = self._at.get(flow.reads) if flow.reads is not None else None
        if known and given and len(given) < 4 and volume(known) == volume(given):
            if made == given:
                made = known
            given = known
        if flow.writes is not None and made is not None:
            self._at[flow.writes] = made
        return flow._replace(input=given, output=made)

    def shape_at(self, address: int, count: int) -> Dims | None:
        """The shape last written to ``address``, if it has ``count`` elements."""
        known = self._at.get(address)
        return known if known is not None and volume(known) == count else None
