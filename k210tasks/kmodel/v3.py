"""kmodel version 3, written by nncase 0.1: parse and write (docs, sections 2.1 and 2.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from k210tasks.kmodel.codec import Reader, fitted, read_record, write_record
from k210tasks.kmodel.errors import KmodelError, NotAKmodel, TooMuch, Truncated
from k210tasks.kmodel.v3_layers import (
    BODIES,
    RESERVED,
    Body,
    K210AddPadding,
    K210Conv,
    K210Upload,
    Output,
)
from k210tasks.kpu.errors import KpuError
from k210tasks.kpu.layout import KPU_RAM_ROWS
from k210tasks.kpu.registers import REGISTER_BYTES, LayerRegisters
from k210tasks.kpu.tables import ACTIVATION_BYTES, BN_ENTRY_BYTES, Activation, BatchNorm

HEADER_BYTES = 28
#: Alignment in the file of a convolution's registers, weights, batch norm, activation table.
ALIGNMENTS = (8, 128, 128, 256)
MAX_LAYERS = 2048
MAX_OUTPUTS = 256


@dataclass(kw_only=True, eq=False)
class KmodelV3:
    """A kmodel of version 3. ``main_mem`` is in bytes; ``flags`` bit 0: 8-bit weights."""

    version: ClassVar[int] = 3
    layers: list[Body]
    outputs: list[Output]
    main_mem: int
    flags: int = 1
    arch: int = 0
    max_start_address: int | None = None  # None: the lowest KPU row the layers touch
    missing_padding: int = 0  # bytes of final padding the file leaves out, 0..7
    trailing: int = 0  # bytes that follow the model in the file it was read from
    size: int | None = None  # bytes of the model in the file it was read from

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight: 1 or 2."""
        return 1 if self.flags & 1 else 2

    def to_bytes(self) -> bytes:
        return write(self)


def describe(index: int, body: Body) -> str:
    """How messages call a layer."""
    return f"layer {index} ({body.NAME})"


def lowest_row(layers: Iterable[Body]) -> int:
    """The lowest KPU RAM row any layer touches; 32768 where none does."""
    rows = [KPU_RAM_ROWS]
    for body in layers:
        if isinstance(body, K210Conv):
            rows += [body.registers.image_src_addr, body.registers.image_dst_addr]
        elif isinstance(body, (K210AddPadding, K210Upload)):
            rows.append(body.out_kpu)
    return min(rows)


def _align(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _conv_sizes(registers: LayerRegisters, weight_bytes: int) -> tuple[int, int, int, int]:
    oc, ic, k, _ = registers.weights_shape
    return (REGISTER_BYTES, oc * ic * k * k * weight_bytes, BN_ENTRY_BYTES * oc, ACTIVATION_BYTES)


def aligned_offsets(
    start: int, registers: LayerRegisters, weight_bytes: int
) -> tuple[int, int, int, int]:
    """Where the four blobs of a convolution whose body begins at ``start`` belong."""
    position, offsets = start + 24, []
    sizes = _conv_sizes(registers, weight_bytes)
    for alignment, size in zip(ALIGNMENTS, sizes, strict=True):
        position = _align(position, alignment)
        offsets.append(position)
        position += size
    layer, weights, bn, activation = offsets
    return layer, weights, bn, activation


def _parse_conv(reader: Reader, weight_bytes: int) -> K210Conv:
    start = reader.pos
    flags, out_mem = reader.unpack("flags", "2I")
    layer, weight, bn, act = map(reader.u32, ("layer_off", "weights_off", "bn_off", "act_off"))
    offsets = (layer, weight, bn, act)

    def blob(name: str, index: int, size: int) -> memoryview:
        offset, at = offsets[index], start + 8 + 4 * index
        if not reader.pos <= offset <= reader.end - size:
            raise reader.fail(
                name,
                f"{offset}, with {size} bytes to read, is outside the body's bytes "
                f"{reader.pos}..{reader.end}",
                at,
            )
        return reader.data[offset : offset + size]

    registers = LayerRegisters.decode(blob("layer_off", 0, REGISTER_BYTES))
    try:
        shape = registers.weights_shape
        sizes = _conv_sizes(registers, weight_bytes)
    except KpuError as error:
        raise reader.fail("layer registers", str(error), offsets[0]) from error
    weights = np.frombuffer(
        blob("weights_off", 1, sizes[1]), "u1" if weight_bytes == 1 else "<u2"
    ).reshape(shape)
    canonical = aligned_offsets(start, registers, weight_bytes)
    return K210Conv(
        flags=flags,
        out_mem=out_mem,
        registers=registers,
        weights=weights,
        bn=BatchNorm.decode(blob("bn_off", 2, sizes[2])),
        activation=Activation.decode(blob("act_off", 3, sizes[3])),
        blob_offsets=None if offsets == canonical else offsets,
    )


def parse(data: memoryview) -> KmodelV3:
    """A v3 model from bytes that start with its header; raises :class:`KmodelError`."""
    reader = Reader(data)
    version = reader.u32("version")
    if version != 3:
        raise NotAKmodel(0, "version", f"{version}, not 3")
    flags, arch, count, max_start, main_mem, outputs = reader.unpack("header", "6I")
    if arch != 0:
        raise KmodelError(8, "arch", f"{arch}; only 0 exists")
    if count > MAX_LAYERS:
        raise TooMuch(12, "layers_length", count, MAX_LAYERS, "layers")
    if outputs > MAX_OUTPUTS:
        raise TooMuch(24, "output_count", outputs, MAX_OUTPUTS, "outputs")
    model = KmodelV3(
        layers=[],
        outputs=[Output(*reader.unpack(f"outputs[{i}]", "2I")) for i in range(outputs)],
        main_mem=main_mem,
        flags=flags,
        arch=arch,
        max_start_address=max_start,
    )
    reader.need("layer headers", 8 * count)
    headers = [reader.unpack(f"layer header {i}", "2I") for i in range(count)]
    position = reader.pos
    for i, (type_id, size) in enumerate(headers):
        at = HEADER_BYTES + 8 * outputs + 8 * i
        cls = BODIES.get(type_id)
        if cls is None:
            known = (
                f"{type_id} ({RESERVED[type_id]}) is reserved" if type_id in RESERVED else type_id
            )
            raise KmodelError(at, f"layer {i}: type", f"{known}; no such layer type")
        what = f"layer {i} ({cls.NAME})"
        end = position + size
        overrun = end - len(data)
        if overrun > 7 or (overrun > 0 and i < count - 1):
            raise Truncated(position, f"{what}: body", size, len(data) - position)
        reader = Reader(data, position, min(end, len(data)), what)
        if cls is K210Conv:
            body: Body = _parse_conv(reader, model.weight_bytes)
        else:
            body = cls(**read_record(cls, reader))
        body.offset = position
        model.layers.append(body)
        position = end
    model.missing_padding = max(0, position - len(data))
    model.trailing = max(0, len(data) - position)
    model.size = min(position, len(data))
    return model


def _write_conv(body: K210Conv, out: bytearray, what: str, weight_bytes: int) -> None:
    start, r = len(out), body.registers
    shape = r.weights_shape
    if len(body.bn) != r.out_channels:
        raise KmodelError(
            None, f"{what}: bn", f"{len(body.bn)} entries for {r.out_channels} channels"
        )
    dtype = "u1" if weight_bytes == 1 else "<u2"
    blobs = (
        r.encode(),
        fitted(body.weights, dtype, shape, f"{what}: weights"),
        body.bn.encode(),
        body.activation.encode(),
    )
    offsets = body.blob_offsets or aligned_offsets(start, r, weight_bytes)
    out += struct.pack("<6I", body.flags, body.out_mem, *offsets)
    for offset, blob in sorted(zip(offsets, blobs, strict=True)):
        if offset < len(out):
            raise KmodelError(
                None, f"{what}: blob_offsets", f"{offset} overlaps what lies before {len(out)}"
            )
        out += bytes(offset - len(out))
        out += blob


def write(model: KmodelV3) -> bytes:
    """The file of ``model``; raises :class:`KmodelError` for values that fit no field."""
    headers: list[tuple[int, int]] = []
    first = HEADER_BYTES + 8 * len(model.outputs) + 8 * len(model.layers)
    out = bytearray(first)
    padding = 0
    for i, body in enumerate(model.layers):
        start, what = len(out), describe(i, body)
        if isinstance(body, K210Conv):
            try:
                _write_conv(body, out, what, model.weight_bytes)
            except KpuError as error:
                raise KmodelError(None, what, str(error)) from error
        else:
            write_record(body, out, what)
        padding = -len(out) % 8
        out += bytes(padding)
        headers.append((body.TYPE, len(out) - start))
    max_start = model.max_start_address
    if max_start is None:
        max_start = lowest_row(model.layers)
    try:
        head = struct.pack(
            "<7I",
            3,
            model.flags,
            model.arch,
            len(model.layers),
            max_start,
            model.main_mem,
            len(model.outputs),
        )
        head += b"".join(struct.pack("<2I", *o) for o in model.outputs)
        head += b"".join(struct.pack("<2I", *h) for h in headers)
    except struct.error as error:
        raise KmodelError(None, "header", f"a value does not fit 32 bits: {error}") from error
    out[:first] = head
    return bytes(out[: len(out) - min(model.missing_padding, padding)])
