"""The twelve 64-bit layer registers as a table of bit fields (docs, section 1.2)."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from k210tasks.kpu.errors import FieldOutOfRange, IllegalLayer
from k210tasks.kpu.layout import KPU_RAM_ROWS, layout, map_rows
from k210tasks.kpu.pools import Pool, pooled

REGISTER_BYTES = 96
#: Weights of one load: bytes with 8-bit weights; twice as many with 16-bit ones.
LOAD_BYTES = 30 * 1024
MAX_CHANNELS = 1024
MAX_LOADS = 64


class BitField(NamedTuple):
    name: str
    register: int
    lsb: int
    width: int
    signed: bool

    @property
    def low(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.width - self.signed)) - 1


def _bits(register: int, lsb: int, width: int, default: int = 0, signed: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"bits": (register, lsb, width, signed)})


@dataclass(frozen=True)
class LayerRegisters:
    """One convolution layer as the hardware is told of it: raw field values.

    Counts are stored less one; the properties give them plain. Use :func:`conv_registers`
    to build a layer from its geometry.
    """

    # 0: interrupt enable
    int_en: int = _bits(0, 0, 1)
    ram_flag: int = _bits(0, 1, 1)
    full_add: int = _bits(0, 2, 1)
    depth_wise_layer: int = _bits(0, 3, 1)
    # 1: image addresses, in rows of KPU RAM
    image_src_addr: int = _bits(1, 0, 15)
    image_dst_addr: int = _bits(1, 32, 15)
    # 2: channel numbers
    i_ch_num: int = _bits(2, 0, 10)
    o_ch_num: int = _bits(2, 32, 10)
    o_ch_num_coef: int = _bits(2, 48, 10)
    # 3: image size; o_* after the pool
    i_row_wid: int = _bits(3, 0, 10)
    i_col_high: int = _bits(3, 10, 9)
    o_row_wid: int = _bits(3, 32, 10)
    o_col_high: int = _bits(3, 42, 9)
    # 4: kernel and pool
    kernel_type: int = _bits(4, 0, 3)
    pad_type: int = _bits(4, 3, 1)
    pool_type: int = _bits(4, 4, 4)
    first_stride: int = _bits(4, 8, 1)
    bypass_conv: int = _bits(4, 9, 1)
    load_para: int = _bits(4, 10, 1, default=1)
    dma_burst_size: int = _bits(4, 16, 8, default=15)
    pad_value: int = _bits(4, 24, 8)
    bwsx_base_addr: int = _bits(4, 32, 32)
    # 5: kernel load
    load_coor: int = _bits(5, 0, 1, default=1)
    load_time: int = _bits(5, 1, 6)
    para_size: int = _bits(5, 15, 17)
    para_start_addr: int = _bits(5, 32, 32)
    # 6: kernel offset
    coef_column_offset: int = _bits(6, 0, 4)
    coef_row_offset: int = _bits(6, 4, 12)
    # 7: kernel calculation
    channel_switch_addr: int = _bits(7, 0, 15)
    row_switch_addr: int = _bits(7, 16, 4)
    coef_size: int = _bits(7, 20, 8)
    coef_group: int = _bits(7, 28, 3)
    load_act: int = _bits(7, 31, 1, default=1)
    active_addr: int = _bits(7, 32, 32)
    # 8: write back
    wb_channel_switch_addr: int = _bits(8, 0, 15)
    wb_row_switch_addr: int = _bits(8, 16, 4)
    wb_group: int = _bits(8, 20, 3)
    # 9, 10: the terms of the accumulator. arg_x is the weight offset, arg_w the input's
    shr_w: int = _bits(9, 0, 4)
    shr_x: int = _bits(9, 4, 4)
    arg_w: int = _bits(9, 8, 24, signed=True)
    arg_x: int = _bits(9, 32, 24, signed=True)
    arg_add: int = _bits(10, 0, 40, signed=True)
    # 11: DMA
    send_data_out: int = _bits(11, 0, 1)
    channel_byte_num: int = _bits(11, 16, 16)
    dma_total_byte: int = _bits(11, 32, 32)

    @property
    def in_channels(self) -> int:
        return self.i_ch_num + 1

    @property
    def out_channels(self) -> int:
        return self.o_ch_num + 1

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.i_ch_num + 1, self.i_col_high + 1, self.i_row_wid + 1

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """C, H, W after the pool."""
        return self.o_ch_num + 1, self.o_col_high + 1, self.o_row_wid + 1

    @property
    def depthwise(self) -> bool:
        return bool(self.depth_wise_layer)

    @property
    def kernel(self) -> int:
        """1 or 3; raises :class:`IllegalLayer` for kernel types the KPU does not have."""
        if self.kernel_type not in (0, 1):
            raise IllegalLayer("kernel_type", self.kernel_type, "0 (1x1) or 1 (3x3)")
        return 3 if self.kernel_type else 1

    @property
    def pool(self) -> Pool:
        """The pool type; raises :class:`IllegalLayer` for values above 9."""
        if self.pool_type > max(Pool):
            raise IllegalLayer("pool_type", self.pool_type, f"0..{int(max(Pool))}")
        return Pool(self.pool_type)

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """OC, IC, k, k; IC is 1 for a depthwise layer."""
        inner = 1 if self.depthwise else self.in_channels
        return self.out_channels, inner, self.kernel, self.kernel

    @property
    def rows_in(self) -> int:
        """KPU RAM rows of one input map."""
        return map_rows(*self.in_shape)

    @property
    def rows_out(self) -> int:
        """KPU RAM rows of one output map."""
        return map_rows(*self.out_shape)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, before the pool."""
        oc, ic, k, _ = self.weights_shape
        return oc * ic * k * k * self.in_shape[1] * self.in_shape[2]

    def encode(self) -> bytes:
        """As 96 bytes; raises :class:`FieldOutOfRange` for a value its field cannot hold."""
        words = [0] * 12
        for name, register, lsb, width, signed in BIT_FIELDS:
            value = getattr(self, name)
            low, high = (
                (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
            )
            if not low <= value <= high:
                raise FieldOutOfRange(name, value, low, high)
            words[register] |= (int(value) & ((1 << width) - 1)) << lsb
        return struct.pack("<12Q", *words)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> LayerRegisters:
        """From 96 bytes; reserved bits are dropped."""
        words = struct.unpack("<12Q", data)
        values = []
        for _, register, lsb, width, signed in BIT_FIELDS:
            value = (words[register] >> lsb) & ((1 << width) - 1)
            if signed and value >> (width - 1):
                value -= 1 << width
            values.append(value)
        return cls(*values)


#: Every bit field, in the order of :class:`LayerRegisters`.
BIT_FIELDS: tuple[BitField, ...] = tuple(
    BitField(f.name, *f.metadata["bits"]) for f in dataclasses.fields(LayerRegisters)
)


def weight_loads(
    weights_shape: tuple[int, ...], depthwise: bool, weight_bytes: int
) -> dict[str, int]:
    """o_ch_num_coef, para_size and load_time of a layer: how its weights are fetched."""
    oc, ic, k, _ = weights_shape
    kernel = ic * k * k
    per = oc if depthwise else min(oc, LOAD_BYTES // kernel)
    if per < 1:
        raise IllegalLayer("weights of one output channel", kernel, f"at most {LOAD_BYTES}")
    return {
        "o_ch_num_coef": per - 1,
        "para_size": per * kernel * weight_bytes,
        "load_time": -(-oc // per) - 1,
    }


def conv_registers(
    *,
    in_channels: int,
    height: int,
    width: int,
    out_channels: int,
    kernel: int,
    depthwise: bool = False,
    pool: Pool = Pool.BYPASS,
    src_row: int = 0,
    dst_row: int = 0,
    pad_value: int = 0,
    arg_x: int = 0,
    shr_x: int = 0,
    arg_w: int = 0,
    shr_w: int = 0,
    arg_add: int = 0,
    weight_bytes: int = 1,
    send_data_out: bool = False,
) -> LayerRegisters:
    """The registers of a convolution, everything derivable derived (docs, section 1.2).

    ``height`` and ``width`` are of the input; ``src_row`` and ``dst_row`` count rows of
    KPU RAM; ``weight_bytes`` is 1 or 2. Raises :class:`IllegalLayer` or
    :class:`FieldOutOfRange` for what the KPU does not have.
    """
    if kernel not in (1, 3):
        raise IllegalLayer("kernel", kernel, "1 or 3")
    for name, n in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not 1 <= n <= MAX_CHANNELS:
            raise FieldOutOfRange(name, n, 1, MAX_CHANNELS)
    if depthwise and in_channels != out_channels:
        raise IllegalLayer(
            "out_channels", out_channels, f"{in_channels}, as a depthwise layer's input"
        )
    out_h, out_w = pooled(height, pool), pooled(width, pool)
    if min(out_h, out_w) < 1:
        raise IllegalLayer("output size", f"{out_w}x{out_h}", "at least one pixel after the pool")
    shape = (out_channels, 1 if depthwise else in_channels, kernel, kernel)
    src, dst = layout(width), layout(out_w)
    registers = LayerRegisters(
        depth_wise_layer=int(depthwise),
        image_src_addr=src_row,
        image_dst_addr=dst_row,
        i_ch_num=in_channels - 1,
        o_ch_num=out_channels - 1,
        i_row_wid=width - 1,
        i_col_high=height - 1,
        o_row_wid=out_w - 1,
        o_col_high=out_h - 1,
        kernel_type=int(kernel == 3),
        pool_type=int(pool),
        pad_value=pad_value,
        channel_switch_addr=src.rows_per_line * height,
        row_switch_addr=src.rows_per_line,
        coef_group=src.channels_per_group,
        wb_channel_switch_addr=dst.rows_per_line * out_h,
        wb_row_switch_addr=dst.rows_per_line,
        wb_group=dst.channels_per_group,
        shr_w=shr_w,
        shr_x=shr_x,
        arg_w=arg_w,
        arg_x=arg_x,
        arg_add=arg_add,
        send_data_out=int(send_data_out),
        channel_byte_num=(out_w * out_h - 1) & 0xFFFF,
        dma_total_byte=out_w * out_h * out_channels - 1,
        **weight_loads(shape, depthwise, weight_bytes),
    )
    registers.encode()  # every value fits its field
    return registers


class Deviation(NamedTuple):
    """A register whose value is not what the layer's geometry asks for."""

    field: str
    value: int
    expected: str


def check(r: LayerRegisters, weight_bytes: int = 1, batches: int = 1) -> Iterator[Deviation]:
    """What in ``r`` the hardware would not run as its geometry says; nothing for a good layer.

    Address fields are not looked at. ``kernel_type`` and ``pool_type`` are checked first:
    where they are unknown nothing else can be said.
    """
    if r.kernel_type > 1:
        yield Deviation("kernel_type", r.kernel_type, "0 (1x1) or 1 (3x3)")
    if r.pool_type > max(Pool):
        yield Deviation("pool_type", r.pool_type, f"0..{int(max(Pool))}")
    if r.kernel_type > 1 or r.pool_type > max(Pool):
        return
    if r.depthwise and r.i_ch_num != r.o_ch_num:
        yield Deviation(
            "o_ch_num", r.o_ch_num, f"{r.i_ch_num}, as i_ch_num: the layer is depthwise"
        )
    if r.depthwise and r.pool_type:
        yield Deviation("pool_type", r.pool_type, "0: a depthwise layer has no pool")
    _, height, width = r.in_shape
    out_h, out_w = pooled(height, r.pool), pooled(width, r.pool)
    if min(out_h, out_w) < 1:
        yield Deviation("pool_type", r.pool_type, f"a window that fits the {width}x{height} input")
        return
    src, dst = layout(width), layout(r.o_row_wid + 1)
    loads = weight_loads(r.weights_shape, r.depthwise, weight_bytes)
    expected = {
        "o_row_wid": out_w - 1,
        "o_col_high": out_h - 1,
        "channel_switch_addr": src.rows_per_line * height,
        "row_switch_addr": src.rows_per_line,
        "coef_group": src.channels_per_group,
        "wb_channel_switch_addr": dst.rows_per_line * (r.o_col_high + 1),
        "wb_row_switch_addr": dst.rows_per_line,
        "wb_group": dst.channels_per_group,
        "channel_byte_num": (out_w * out_h - 1) & 0xFFFF,
        "dma_total_byte": out_w * out_h * r.out_channels - 1,
        "pad_type": 0,
        "first_stride": 0,
        "bypass_conv": 0,
        "load_para": 1,
        "load_coor": 1,
        "load_act": 1,
        "coef_column_offset": 0,
        "coef_row_offset": 0,
        "coef_size": 0,
        "full_add": 0,
        "ram_flag": 0,
        **loads,
    }
    for name, value in expected.items():
        if getattr(r, name) != value:
            yield Deviation(name, getattr(r, name), str(value))
    for name, start, rows in (
        ("image_src_addr", r.image_src_addr, r.rows_in * batches),
        ("image_dst_addr", r.image_dst_addr, r.rows_out * batches),
    ):
        if start + rows > KPU_RAM_ROWS:
            yield Deviation(name, start, f"at most {KPU_RAM_ROWS - rows}: the map has {rows} rows")
    src_end = r.image_src_addr + r.rows_in * batches
    dst_end = r.image_dst_addr + r.rows_out * batches
    if r.image_src_addr < dst_end and r.image_dst_addr < src_end:
        yield Deviation(
            "image_dst_addr",
            r.image_dst_addr,
            f"a map of {r.rows_out * batches} rows outside the input's rows "
            f"{r.image_src_addr}..{src_end - 1}",
        )
