"""The quantised and the data-moving nodes of kmodel version 4 (docs, section 3.4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import v4_ops as n
from k210tasks.kmodel.codec import UINT8, MemoryRange
from k210tasks.kpu.layout import map_rows, write_map
from k210tasks.simulator.arrays import clamp, convolve, nearest, round_away, shift_half_up
from k210tasks.simulator.float_sums import fused_multiply_add, multiply_add, to_codes
from k210tasks.simulator.memory import Site, elements, shaped
from k210tasks.simulator.step import Step, kpu_conv, writes
from k210tasks.simulator.v4_float import FLOAT, GROUP_WORK, broadcast, conv_groups, enum_of, window

BYTE = "u1"
#: From this many elements on a table of all 65536 operand pairs pays.
PAIR_TABLE_ELEMENTS = 16384


def itemtype(site: Site, field: str, memory: MemoryRange) -> str:
    """The numpy type of a range's declared datatype."""
    if memory.datatype not in (0, 1):
        raise site.fail(f"{field}.datatype", f"{memory.datatype}; 0 float32 and 1 uint8 exist")
    return BYTE if memory.datatype == UINT8 else FLOAT


def shift_of(site: Site, node: Any, field: str) -> int:
    """A rounding shift, checked."""
    shift = int(getattr(node, field))
    site.require(0 <= shift <= 62, field, f"{shift}; 0..62 are possible")
    return shift


def requantised(acc: NDArray[np.int64], mul: int, shift: int, offset: int) -> NDArray[np.uint8]:
    """Accumulators as output codes: multiplied, shifted half up, clamped."""
    return clamp(shift_half_up(acc * mul, shift) + offset)


def int32(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cut to 32 bits, as C's cast does."""
    return values.astype(np.int32).astype(np.int64)


def dequantize(site: Site, node: n.Dequantize) -> Step:
    x = site.range("input", node.input, BYTE)
    out = site.output("out", node.out, FLOAT)
    site.require(x.size == out.size, "out.size", f"{4 * out.size} bytes for {x.size} codes")
    site.spend(0, x.size)
    with np.errstate(all="ignore"):
        step = np.float32(1) / np.float32(node.quant.scale)
        if site.runtime.fused:
            low = np.float32(-node.quant.zero_point) * step
            table = fused_multiply_add(np.arange(256, dtype=np.float32), step, low)
        else:
            codes = np.arange(256, dtype=np.int64) - node.quant.zero_point
            table = codes.astype(np.float32) * step
    return writes(out, lambda: np.copyto(out, table[x]))


def quantize(site: Site, node: n.Quantize) -> Step:
    x = site.range("input", node.input, FLOAT)
    out = site.output("out", node.out, BYTE)
    site.require(x.size == out.size, "out.size", f"{out.size} bytes for {x.size} values")
    site.spend(0, 2 * x.size)
    scale, zero = np.float32(node.quant.scale), np.float32(node.quant.zero_point)
    runtime, affine = site.runtime, multiply_add(site.runtime)

    def rounding(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Half to even in pairs of values, half away from zero the odd last one."""
        rounded = np.rint(values)
        if len(values) % 2:
            rounded[-1:] = round_away(values[-1:])
        return rounded

    how = rounding if runtime.half_even_quantize else round_away
    return writes(out, lambda: np.copyto(out, to_codes(affine(x, scale, zero), runtime, how)))


def quantized_binary(site: Site, node: n.QuantizedBinary) -> Step:
    op = enum_of(site, n.BinaryOp, node.op, "op")
    x = shaped(site, "shape_a", site.range("a", node.a, BYTE), node.shape_a)
    y = shaped(site, "shape_b", site.range("b", node.b, BYTE), node.shape_b)
    out = shaped(site, "shape_out", site.output("out", node.out, BYTE), node.shape_out)
    broadcast(site, node)
    shifts = [shift_of(site, node, f"{name}_shift") for name in ("a", "b", "out")]
    site.spend(0, 4 * out.size)
    codes = np.arange(256, dtype=np.int64)
    a_part = int32(shift_half_up((codes + node.a_offset) * node.a_mul, shifts[0]))
    b_part = int32(shift_half_up((codes + node.b_offset) * node.b_mul, shifts[1]))

    def combine(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.uint8]:
        if op is n.BinaryOp.ADD:
            v = a + b
        elif op is n.BinaryOp.SUB:
            v = a - b
        elif op is n.BinaryOp.MUL:
            v = a * b
        elif op is n.BinaryOp.DIV:  # truncating, rounded by half the divisor; never by 0
            divisor = np.where(b == 0, 1, b)
            half = np.sign(b) * (np.abs(b) // 2)
            v = a + half
            v = np.where(b == 0, 0, np.sign(v) * np.sign(divisor) * (np.abs(v) // np.abs(divisor)))
        else:
            v = np.minimum(a, b) if op is n.BinaryOp.MIN else np.maximum(a, b)
        return clamp(int32(shift_half_up(v * node.out_mul, shifts[2])) + node.out_offset)

    if out.size < PAIR_TABLE_ELEMENTS:
        return writes(out, lambda: np.copyto(out, combine(a_part[x], b_part[y])))
    table = combine(a_part[:, None], b_part[None, :]).reshape(-1)

    def run() -> None:
        pairs = x.astype(np.uint16) << np.uint16(8)
        out[:] = table[pairs | y]

    return writes(out, run)


def quantized_conv2d(site: Site, node: n.QuantizedConv2d) -> Step:
    groups, oc = conv_groups(site, node.groups, node.out_channels, node.shape.c)
    x = shaped(site, "shape", site.range("input", node.input, BYTE), node.shape)
    h, w = window(site, node, node.shape.h, node.shape.w, node.shape.n * oc)
    site.spend(4 * node.weights.size * node.shape.n * h.out * w.out)
    site.spend(h.filter * w.filter * node.shape.n * groups * GROUP_WORK)
    out = shaped(
        site, "output", site.output("out", node.out, BYTE), (node.shape.n, oc, h.out, w.out)
    )
    shift = shift_of(site, node, "out_shift")
    weights = node.weights.astype(np.float64) + node.filter_offset
    bias = node.bias.astype(np.int64)[:, None, None]

    def run() -> None:
        acc = convolve(x.astype(np.float64) + node.in_offset, weights, groups, h, w)
        total = acc.astype(np.int64) + bias
        out[:] = requantised(total, node.out_mul, shift, node.out_offset)

    return writes(out, run)


def quantized_matmul(site: Site, node: n.QuantizedMatmul) -> Step:
    sizes = (node.a_rows, node.a_cols, node.b_cols)
    x = shaped(site, "a_rows, a_cols", site.range("a", node.a, BYTE), sizes[:2])
    y = shaped(site, "a_cols, b_cols", site.range("b", node.b, BYTE), sizes[1:])
    out = shaped(
        site, "a_rows, b_cols", site.output("out", node.out, BYTE), (node.a_rows, node.b_cols)
    )
    site.spend(2 * int(np.prod(sizes, dtype=object)), out.size)
    shift = shift_of(site, node, "out_shift")

    def run() -> None:
        acc = (x.astype(np.float64) + node.a_offset) @ (y.astype(np.float64) + node.b_offset)
        total = acc.astype(np.int64) + node.bias
        out[:] = requantised(total, node.out_mul, shift, node.out_offset)

    return writes(out, run)


def table_lookup1d(site: Site, node: n.TableLookup1d) -> Step:
    x = site.range("input", node.input, BYTE)
    table = site.range("table", node.table, BYTE)
    out = site.output("out", node.out, BYTE)
    site.require(table.size == 256, "table.size", f"{table.size} bytes; 256 are needed")
    site.require(x.size == out.size, "out.size", f"{out.size} bytes from {x.size}")
    site.spend(0, x.size)
    return writes(out, lambda: np.copyto(out, table[x]))


def concat(site: Site, node: n.Concat) -> Step:
    """``outer`` times: inner*dims[k] bytes of every input in turn."""
    out = site.output("out", node.out, BYTE)
    rows = elements(site, "outer", (node.outer,))
    parts, width = [], 0
    for i, (memory, dim) in enumerate(zip(node.inputs, node.dims, strict=True)):
        site.require(dim >= 0, f"dims[{i}]", f"{dim}; must not be negative")
        piece = node.inner * dim
        view = site.range(f"inputs[{i}]", memory, BYTE)
        site.require(
            view.size >= rows * piece,
            f"inputs[{i}].size",
            f"{view.size} bytes; {rows} times {piece} are needed",
        )
        parts.append((width, piece, view[: rows * piece].reshape(rows, piece)))
        width += piece
    site.require(
        out.size >= rows * width,
        "out.size",
        f"{out.size} bytes; {rows} times {width} are needed",
    )
    site.spend(0, out.size // 4 + len(parts))
    table = out[: rows * width].reshape(rows, width)

    def run() -> None:
        for start, piece, view in parts:
            table[:, start : start + piece] = view

    dtype = BYTE if node.out.datatype == UINT8 or out.size % 4 else FLOAT
    return writes(out.view(dtype), run)


def pad(site: Site, node: n.PadNode) -> Step:
    dtype = itemtype(site, "input", node.input)
    x = shaped(site, "shape", site.range("input", node.input, dtype), node.shape)
    pads = (node.pad_n, node.pad_c, node.pad_h, node.pad_w)
    shape = tuple(size + p.before + p.after for size, p in zip(node.shape, pads, strict=True))
    out = shaped(site, "pads", site.output("out", node.out, dtype), shape)
    value = np.frombuffer(node.value.payload, dtype)[0]
    source, target = [], []
    for size, total, p in zip(node.shape, shape, pads, strict=True):
        first, last = max(0, p.before), min(total, p.before + size)
        target.append(slice(first, max(first, last)))
        source.append(slice(first - p.before, max(first, last) - p.before))
    site.spend(0, out.size + x.size)

    def run() -> None:
        inside = x[tuple(source)].copy()
        out.fill(value)
        out[tuple(target)] = inside

    return writes(out, run)


def transpose(site: Site, node: n.Transpose) -> Step:
    dtype = itemtype(site, "input", node.input)
    x = shaped(site, "shape", site.range("input", node.input, dtype), node.shape)
    site.require(
        sorted(node.perm) == [0, 1, 2, 3], "perm", f"{tuple(node.perm)} is no order of 0..3"
    )
    shape = tuple(node.shape[axis] for axis in node.perm)
    out = shaped(site, "output", site.output("out", node.out, dtype), shape)
    turned = x.transpose(node.perm)
    site.spend(0, 8 * x.size)  # the caches do not help
    return writes(out, lambda: np.copyto(out, turned))


def strided_slice(site: Site, node: n.StridedSlice) -> Step:
    dtype = itemtype(site, "input", node.input)
    x = shaped(site, "shape", site.range("input", node.input, dtype), node.shape)
    slices = []
    for i, (size, begin, end, stride) in enumerate(
        zip(node.shape, node.begin, node.end, node.strides, strict=True)
    ):
        site.require(stride > 0, f"strides[{i}]", f"{stride}; must be positive")
        site.require(0 <= begin < end <= size, f"begin[{i}], end[{i}]", f"{begin}, {end} of {size}")
        slices.append(slice(begin, end, stride))
    picked = x[tuple(slices)]
    out = shaped(site, "output", site.output("out", node.out, dtype), picked.shape)
    site.spend(0, out.size)
    return writes(out, lambda: np.copyto(out, picked))


def memory_copy(site: Site, node: n.MemoryCopy) -> Step:
    """Whole floats only: up to three last bytes stay behind."""
    x = site.range("input", node.input, BYTE)
    out = site.output("out", node.out, BYTE)
    count = x.size // 4 * 4
    site.require(out.size >= count, "out.size", f"{out.size} bytes; {count} are copied")
    site.spend(0, count // 4)
    dtype = BYTE if node.out.datatype == UINT8 or out.size % 4 else FLOAT
    return writes(out.view(dtype), lambda: np.copyto(out[:count], x[:count]))


def resize_image(site: Site, node: n.ResizeImage) -> Step:
    mode = enum_of(site, n.ResizeMode, node.mode, "mode")
    dtype = itemtype(site, "input", node.input)
    x = shaped(site, "shape", site.range("input", node.input, dtype), node.shape)
    batch, channels, height, width = node.shape
    out = shaped(
        site,
        "out_h, out_w",
        site.output("out", node.out, dtype),
        (batch, channels, node.out_h, node.out_w),
    )
    site.spend(0, 6 * out.size)
    if mode is n.ResizeMode.NEAREST:
        rows, columns = nearest(node.out_h, height)[:, None], nearest(node.out_w, width)
        return writes(out, lambda: np.copyto(out, x[:, :, rows, columns]))

    def grid(out_size: int, in_size: int) -> tuple[Any, Any, Any]:
        scale = np.float32(in_size) / np.float32(out_size)
        if node.align_corners and out_size > 1:
            scale = np.float32(in_size - 1) / np.float32(out_size - 1)
        position = np.arange(out_size, dtype=np.float32) * scale
        low = np.minimum(np.floor(position).astype(np.int64), in_size - 1)
        return low, np.minimum(low + 1, in_size - 1), position - low.astype(np.float32)

    y0, y1, dy = grid(node.out_h, height)
    x0, x1, dx = grid(node.out_w, width)
    y0, y1, dy = y0[:, None], y1[:, None], dy[:, None]
    one, affine = np.float32(1), multiply_add(site.runtime)

    def bilinear() -> None:
        image = x.astype(np.float32)
        # Compilers fuse the first product into the sum with the second, then the others.
        total = image[:, :, y1, x0] * (dy * (one - dx))
        total = affine(image[:, :, y0, x0], (one - dy) * (one - dx), total)
        total = affine(image[:, :, y0, x1], (one - dy) * dx, total)
        total = affine(image[:, :, y1, x1], dy * dx, total)
        if dtype == BYTE:
            total = np.clip(np.nan_to_num(total), 0, 255)
        out[:] = total.astype(dtype)

    return writes(out, bilinear)


def kpu_upload(site: Site, node: n.KpuUpload) -> Step:
    x = shaped(site, "shape", site.range("input", node.input, BYTE), node.shape)
    batch, channels, height, width = node.shape
    site.require(node.out.memory_type == 2, "out.memory_type", "an upload goes to KPU RAM (2)")
    row, rows = site.row("out.start", node.out.start), map_rows(channels, height, width)
    site.rows("out", row, rows * batch)
    site.spend(0, x.size)

    def run() -> None:
        for i in range(batch):
            write_map(site.memory.kpu, row + i * rows, x[i])

    return Step(run, x.copy)


def kpu_conv2d(site: Site, node: n.KpuConv2d) -> Step:
    main_output = None
    if node.main_output.size:
        main_output = site.output("main_output", node.main_output, BYTE)
    return kpu_conv(
        site,
        node.registers,
        node.weights,
        node.bn,
        node.activation,
        batches=node.batches,
        main_output=main_output,
    )
