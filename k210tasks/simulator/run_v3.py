"""The layers of kmodel version 3, prepared for running (docs, section 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import v3_layers as b
from k210tasks.kmodel.quirks import loses_last_byte, misplaces_upload, requantized
from k210tasks.kpu.layout import ROW_BYTES, layout, map_rows, write_map
from k210tasks.simulator.arrays import (
    clamp,
    nearest,
    round_away,
    shift_half_away,
)
from k210tasks.simulator.float_sums import (
    CHAIN_WORK,
    dot,
    from_float64,
    multiply_add,
    sum_last,
    to_codes,
)
from k210tasks.simulator.memory import Site, elements
from k210tasks.simulator.step import Step, kpu_conv, writes
from k210tasks.simulator.v3_pools import pool

#: The smallest normal float32; the v3 softmax starts its maximum there, not at -inf.
FLT_MIN = np.float32(1.1754943508222875e-38)
FLOAT = "<f4"


def _floats(site: Site, field: str, start: int, count: int) -> NDArray[np.float32]:
    return site.main(field, start, 4 * count, FLOAT)


def _add(site: Site, body: b.Add) -> Step:
    x = _floats(site, "a_mem", body.a_mem, body.count)
    y = _floats(site, "b_mem", body.b_mem, body.count)
    out = _floats(site, "out_mem", body.out_mem, body.count)
    site.spend(0, body.count)
    return writes(out, lambda: np.copyto(out, x + y))


def _quantized_add(site: Site, body: b.QuantizedAdd) -> Step:
    count = -(-body.count // 8) * 8  # the device works in words of eight
    x = site.main("a_mem", body.a_mem, count)
    y = site.main("b_mem", body.b_mem, count)
    out = site.main("out_mem", body.out_mem, count)
    for name in ("a_shift", "b_shift", "out_shift"):
        shift = getattr(body, name)
        site.require(0 <= shift <= 62, name, f"{shift}; 0..62 are possible")
    site.spend(0, 4 * count)
    codes = np.arange(256, dtype=np.int64)
    a_part = (codes + body.a_offset) * body.a_mul
    b_part = (codes + body.b_offset) * body.b_mul
    late = 0
    if body.a_shift == body.b_shift:
        late = body.a_shift
    else:
        a_part, b_part = a_part >> body.a_shift, b_part >> body.b_shift

    def run() -> None:
        total = ((a_part[x] + b_part[y]) >> late) * body.out_mul
        if site.runtime.truncates_add:
            total >>= body.out_shift
        else:
            total = shift_half_away(total, body.out_shift)
        out[:] = clamp(total + body.out_offset)

    return writes(out[: body.count], run)


def _global_average(site: Site, body: b.GlobalAveragePool) -> Step:
    count = elements(site, "channels, kernel_size", (body.channels, body.kernel_size))
    x = _floats(site, "in_mem", body.in_mem, count).reshape(body.channels, body.kernel_size)
    out = _floats(site, "out_mem", body.out_mem, body.channels)
    site.spend(0, count)
    if site.runtime.ordered:
        number = np.float32(body.kernel_size)
        return writes(out, lambda: np.copyto(out, sum_last(x) / number))
    return writes(out, lambda: np.copyto(out, x.mean(1)))


def _quantize(site: Site, body: b.Quantize) -> Step:
    x = _floats(site, "in_mem", body.in_mem, body.count)
    out = site.main("out_mem", body.out_mem, body.count)
    site.spend(0, 2 * body.count)
    with np.errstate(all="ignore"):
        inverse = np.float32(1) / np.float32(body.scale)
    bias, runtime = np.float32(body.bias), site.runtime
    rounding = np.trunc if runtime.truncates_quantize else round_away
    return writes(out, lambda: np.copyto(out, to_codes((x - bias) * inverse, runtime, rounding)))


def _dequantize(site: Site, body: b.Dequantize) -> Step:
    x = site.main("in_mem", body.in_mem, body.count)
    out = _floats(site, "out_mem", body.out_mem, body.count)
    site.spend(0, body.count)
    with np.errstate(all="ignore"):
        codes = np.arange(256, dtype=np.float32)
        table = multiply_add(site.runtime)(codes, np.float32(body.scale), np.float32(body.bias))
    return writes(out, lambda: np.copyto(out, table[x]))


def _requantize(site: Site, body: b.Requantize) -> Step:
    x = site.main("in_mem", body.in_mem, body.count)
    out = site.main("out_mem", body.out_mem, body.count)
    site.spend(0, body.count)
    done = requantized(site.runtime, body.count)
    return writes(out, lambda: np.copyto(out[:done], body.table[x[:done]]))


def _l2(site: Site, body: b.L2Normalization) -> Step:
    x = _floats(site, "in_mem", body.in_mem, body.channels)
    out = _floats(site, "out_mem", body.out_mem, body.channels)
    site.spend(body.channels * CHAIN_WORK, body.channels)
    runtime, least = site.runtime, np.float32(1e-10)

    def run() -> None:
        out[:] = x / np.sqrt(np.maximum(np.sum(x * x), least))

    def ordered() -> None:
        squares = dot(runtime, x[None], x)[0]
        out[:] = x * (np.float32(1) / np.sqrt(np.maximum(squares, least)))

    return writes(out, ordered if runtime.ordered else run)


def _softmax(site: Site, body: b.Softmax) -> Step:
    x = _floats(site, "in_mem", body.in_mem, body.channels)
    out = _floats(site, "out_mem", body.out_mem, body.channels)
    site.spend(0, 2 * body.channels)

    def run() -> None:
        e = np.exp(x - x.max(initial=FLT_MIN))
        out[:] = e / e.sum()

    def ordered() -> None:
        e = from_float64(np.exp, x - x.max(initial=FLT_MIN))
        out[:] = e / sum_last(e)

    return writes(out, ordered if site.runtime.ordered else run)


def _concat(site: Site, body: b.Concat) -> Step:
    pieces = [site.main(f"inputs[{i}]", start, size) for i, (start, size) in enumerate(body.inputs)]
    total = sum(len(p) for p in pieces)
    out = site.main("out_mem", body.out_mem, total)
    site.spend(0, total)

    def run() -> None:
        position = 0
        for piece in pieces:
            out[position : position + len(piece)] = piece.copy()
            position += len(piece)

    dtype = "u1" if isinstance(body, b.QuantizedConcat) or total % 4 else FLOAT
    return writes(out.view(dtype), run)


def _fully_connected(site: Site, body: b.FullyConnected) -> Step:
    x = _floats(site, "in_mem", body.in_mem, body.in_ch)
    out = _floats(site, "out_mem", body.out_mem, body.out_ch)
    site.require(body.act <= 2, "act", f"{body.act}; 0 linear, 1 relu, 2 relu6")
    runtime = site.runtime
    site.spend(body.in_ch * body.out_ch * (CHAIN_WORK if runtime.ordered else 1), body.out_ch)
    weights = np.ascontiguousarray(body.weights)

    def run() -> None:
        if runtime.ordered:
            y = dot(runtime, weights, x, runtime.pairs_dense) + body.bias
        else:
            y = weights @ x + body.bias
        if body.act and runtime.applies_act:
            y = np.clip(y, 0, 6 if body.act == 2 else None)
        out[:] = y

    return writes(out, run)


def _flatten(site: Site, body: b.TensorflowFlatten) -> Step:
    width, height, channels = body.shape
    count = elements(site, "shape", (channels, height, width))
    x = _floats(site, "in_mem", body.in_mem, count).reshape(channels, height, width)
    out = _floats(site, "out_mem", body.out_mem, count)
    site.spend(0, count)
    return writes(out, lambda: np.copyto(out, x.transpose(1, 2, 0).reshape(-1)))


def _resize(site: Site, body: b.ResizeNearestNeighbor) -> Step:
    width, height, channels = body.in_shape
    dtype = "u1" if isinstance(body, b.QuantizedResizeNearestNeighbor) else FLOAT
    item = np.dtype(dtype).itemsize
    count = elements(site, "in_shape", (channels, height, width))
    out_count = elements(site, "out_w, out_h", (channels, body.out_h, body.out_w))
    x = site.main("in_mem", body.in_mem, count * item, dtype).reshape(channels, height, width)
    out = site.main("out_mem", body.out_mem, out_count * item, dtype)
    out = out.reshape(channels, body.out_h, body.out_w)
    site.spend(0, out_count)
    rows, columns = nearest(body.out_h, height)[:, None], nearest(body.out_w, width)
    return writes(out, lambda: np.copyto(out, x[:, rows, columns]))


def _channelwise_dequantize(site: Site, body: b.ChannelwiseDequantize) -> Step:
    shape = (body.channels, body.channel_size)
    count = elements(site, "channels, channel_size", shape)
    x = site.main("in_mem", body.in_mem, count).reshape(shape)
    out = _floats(site, "out_mem", body.out_mem, count).reshape(shape)
    site.spend(0, count)
    scale, bias = body.params[:, :1], body.params[:, 1:]
    affine = multiply_add(site.runtime)
    return writes(out, lambda: np.copyto(out, affine(x.astype(np.float32), scale, bias)))


def _logistic(site: Site, body: b.Logistic) -> Step:
    x = _floats(site, "in_mem", body.in_mem, body.channels)
    out = _floats(site, "out_mem", body.out_mem, body.channels)
    site.spend(0, body.channels)
    if site.runtime.ordered:
        return writes(out, lambda: np.copyto(out, 1 / (1 + from_float64(np.exp, -x))))
    return writes(out, lambda: np.copyto(out, 1 / (1 + np.exp(-x))))


def _conv(site: Site, body: b.K210Conv) -> Step:
    main_output = None
    if body.to_main:
        size = int(np.prod(body.registers.out_shape))
        main_output = site.main("out_mem", body.out_mem, size)
    return kpu_conv(
        site,
        body.registers,
        body.weights,
        body.bn,
        body.activation,
        main_output=main_output,
        lost=int(loses_last_byte(site.runtime, body)),
    )


def _add_padding(site: Site, body: b.K210AddPadding) -> Step:
    """Each byte becomes pixel (0, 0) of a 4x4 map; the other pixels stay stale."""
    site.require(body.channels > 0, "channels", "0; must be positive")
    x = site.main("in_mem", body.in_mem, body.channels)
    rows = map_rows(body.channels, 4, 4)
    site.rows("out_kpu", body.out_kpu, rows)
    site.spend(0, body.channels)
    channel = np.arange(body.channels)
    place = body.out_kpu * 64 + channel // 4 * 256 + channel % 4 * 16
    ram = site.memory.kpu

    def run() -> None:
        ram[place] = x

    return Step(run, lambda: ram[place])


def _remove_padding(site: Site, body: b.K210RemovePadding) -> Step:
    site.require(body.channels > 0, "channels", "0; must be positive")
    x = site.main("in_mem", body.in_mem, 16 * (body.channels - 1) + 1)[::16]
    out = site.main("out_mem", body.out_mem, body.channels)
    site.spend(0, body.channels)
    return writes(out, lambda: np.copyto(out, x.copy()))


def _upload(site: Site, body: b.K210Upload) -> Step:
    shape = (body.channels, body.height, body.width)
    count = elements(site, "width, height, channels", shape)
    x = site.main("in_mem", body.in_mem, count).reshape(shape)
    site.rows("out_kpu", body.out_kpu, map_rows(*shape))
    site.spend(0, count)
    store = uploader(site, body.out_kpu, shape, body.in_mem)
    return Step(lambda: store(x), x.copy)


def uploader(
    site: Site, row: int, shape: tuple[int, int, int], start: int = 0, *, dma: bool = False
) -> Callable[[NDArray[np.uint8]], None]:
    """What stores a map at ``row`` of KPU RAM as the runtime does it, from byte ``start``.

    ``dma``: a straight copy, which none gets wrong.
    """
    ram, runtime = site.memory.kpu, site.runtime
    _, height, width = shape
    if dma or not misplaces_upload(runtime, start, height, width):
        return lambda x: write_map(ram, row, x.reshape(shape))
    group, lines, pitch = layout(width)

    def store(x: NDArray[np.uint8]) -> None:
        for channel, plane in enumerate(x.reshape(shape)):
            at = row + channel // group * lines * height
            for y, line in enumerate(plane):
                begin = (at + y * lines * runtime.upload_stride) * ROW_BYTES
                begin += channel % group * pitch
                ram[begin : begin + width] = line

    return store


#: How each body is prepared.
PREPARE: dict[type[b.Body], Callable[[Site, Any], Step]] = {
    b.Add: _add,
    b.QuantizedAdd: _quantized_add,
    b.GlobalAveragePool: _global_average,
    b.MaxPool2d: pool,
    b.QuantizedMaxPool2d: pool,
    b.AveragePool2d: pool,
    b.Quantize: _quantize,
    b.Dequantize: _dequantize,
    b.Requantize: _requantize,
    b.L2Normalization: _l2,
    b.Softmax: _softmax,
    b.Concat: _concat,
    b.QuantizedConcat: _concat,
    b.FullyConnected: _fully_connected,
    b.TensorflowFlatten: _flatten,
    b.ResizeNearestNeighbor: _resize,
    b.QuantizedResizeNearestNeighbor: _resize,
    b.ChannelwiseDequantize: _channelwise_dequantize,
    b.Logistic: _logistic,
    b.K210Conv: _conv,
    b.K210AddPadding: _add_padding,
    b.K210RemovePadding: _remove_padding,
    b.K210Upload: _upload,
}
