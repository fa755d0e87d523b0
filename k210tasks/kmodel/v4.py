"""kmodel version 4, written by nncase 0.2: parse and write (docs, sections 3.2, 3.5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import ClassVar

from k210tasks.kmodel.codec import (
    MemoryRange,
    Reader,
    Shape,
    fitted,
    read_record,
    write_record,
)
from k210tasks.kmodel.errors import KmodelError, NotAKmodel, TooMuch, Truncated
from k210tasks.kmodel.v4_ops import NODES, KpuConv2d, Node
from k210tasks.kpu.errors import KpuError
from k210tasks.kpu.registers import REGISTER_BYTES, LayerRegisters
from k210tasks.kpu.tables import ACTIVATION_BYTES, BN_ENTRY_BYTES, Activation, BatchNorm

IDENTIFIER = 0x4B4D444C  # bytes "LDMK"
HEADER_BYTES = 40
BLOB_ALIGNMENT = 256
MAX_NODES = 2048
MAX_RANGES = 256
TARGETS = {0: "CPU", 1: "K210"}


@dataclass(kw_only=True, eq=False)
class KmodelV4:
    """A kmodel of version 4. ``main_mem`` is in bytes; ``constants`` the constant segment."""

    version: ClassVar[int] = 4
    nodes: list[Node]
    inputs: list[MemoryRange]
    input_shapes: list[Shape]
    outputs: list[MemoryRange]
    constants: bytes | memoryview = b""
    main_mem: int
    target: int = 1
    flags: int = 0
    reserved0: int = 0  # not initialised by nncase
    missing_padding: int = 0  # bytes of final padding the file leaves out, 0..7
    trailing: int = 0  # bytes that follow the model in the file it was read from
    size: int | None = None  # bytes of the model in the file it was read from

    @property
    def layers(self) -> list[Node]:
        """The nodes, under the name v3 gives them."""
        return self.nodes

    def to_bytes(self) -> bytes:
        return write(self)


def describe(index: int, node: Node) -> str:
    """How messages call a node."""
    return f"node {index} ({node.NAME})"


def aligned_skips(start: int, out_channels: int) -> tuple[int, int, int]:
    """Padding in front of batch norm, activation and weights of a kpu_conv2d at ``start``."""
    position, skips = start + 24 + REGISTER_BYTES, []
    for size in (BN_ENTRY_BYTES * out_channels, ACTIVATION_BYTES, 0):
        skip = -position % BLOB_ALIGNMENT
        skips.append(skip)
        position += skip + size
    return skips[0], skips[1], skips[2]


def _parse_conv(reader: Reader) -> KpuConv2d:
    start = reader.pos
    main_output = MemoryRange(*reader.unpack("main_output", "4I"))
    batches, reserved = reader.unpack("batches", "2i")
    registers = LayerRegisters.decode(reader.bytes("layer registers", REGISTER_BYTES))
    try:
        shape = registers.weights_shape
    except KpuError as error:
        raise reader.fail("layer registers", str(error), start + 24) from error
    skips = (registers.bwsx_base_addr, registers.active_addr, registers.para_start_addr)
    reader.bytes("bwsx_base_addr (padding before batch norm)", skips[0])
    bn = reader.bytes("batch norm", BN_ENTRY_BYTES * registers.out_channels)
    reader.bytes("active_addr (padding before activation)", skips[1])
    activation = reader.bytes("activation table", ACTIVATION_BYTES)
    reader.bytes("para_start_addr (padding before weights)", skips[2])
    weights = reader.array("weights", "u1", shape)
    canonical = aligned_skips(start, registers.out_channels)
    return KpuConv2d(
        main_output=main_output,
        batches=batches,
        reserved=reserved,
        registers=replace(registers, bwsx_base_addr=0, active_addr=0, para_start_addr=0),
        bn=BatchNorm.decode(bn),
        activation=Activation.decode(activation),
        weights=weights,
        skips=None if skips == canonical else skips,
    )


def parse(data: memoryview) -> KmodelV4:
    """A v4 model from bytes that start with its header; raises :class:`KmodelError`."""
    reader = Reader(data)
    identifier, version = reader.unpack("identifier", "2I")
    if identifier != IDENTIFIER or version != 4:
        raise NotAKmodel(0, "identifier", f"0x{identifier:08x} and version {version}, not LDMK 4")
    flags, target, constants, main_mem = reader.unpack("header", "4I")
    nodes, inputs, outputs, reserved0 = reader.unpack("header", "4I")
    if target not in TARGETS:
        raise KmodelError(12, "target", f"{target}; 0 (CPU) and 1 (K210) exist")
    if nodes > MAX_NODES:
        raise TooMuch(24, "nodes", nodes, MAX_NODES, "nodes")
    for at, name, count in ((28, "inputs", inputs), (32, "outputs", outputs)):
        if count > MAX_RANGES:
            raise TooMuch(at, name, count, MAX_RANGES, name)
    model = KmodelV4(
        nodes=[],
        inputs=[MemoryRange(*reader.unpack(f"inputs[{i}]", "4I")) for i in range(inputs)],
        input_shapes=[Shape(*reader.unpack(f"input_shapes[{i}]", "4i")) for i in range(inputs)],
        outputs=[MemoryRange(*reader.unpack(f"outputs[{i}]", "4I")) for i in range(outputs)],
        constants=reader.bytes("constants", constants),
        main_mem=main_mem,
        target=target,
        flags=flags,
        reserved0=reserved0,
    )
    table = reader.pos
    reader.need("node headers", 8 * nodes)
    headers = [reader.unpack(f"node header {i}", "2I") for i in range(nodes)]
    position = reader.pos
    for i, (opcode, size) in enumerate(headers):
        cls = NODES.get(opcode)
        if cls is None:
            raise KmodelError(table + 8 * i, f"node {i}: opcode", f"0x{opcode:x} does not exist")
        what = f"node {i} ({cls.NAME})"
        end = position + size
        overrun = end - len(data)
        if overrun > 7 or (overrun > 0 and i < nodes - 1):
            raise Truncated(position, f"{what}: body", size, len(data) - position)
        reader = Reader(data, position, min(end, len(data)), what)
        if cls is KpuConv2d:
            node: Node = _parse_conv(reader)
        else:
            node = cls(**read_record(cls, reader))
        node.offset = position
        model.nodes.append(node)
        position = end
    model.missing_padding = max(0, position - len(data))
    model.trailing = max(0, len(data) - position)
    model.size = min(position, len(data))
    return model


def _write_conv(node: KpuConv2d, out: bytearray, what: str) -> None:
    r = node.registers
    if len(node.bn) != r.out_channels:
        raise KmodelError(
            None, f"{what}: bn", f"{len(node.bn)} entries for {r.out_channels} channels"
        )
    skips = node.skips or aligned_skips(len(out), r.out_channels)
    stored = replace(r, bwsx_base_addr=skips[0], active_addr=skips[1], para_start_addr=skips[2])
    weights = fitted(node.weights, "u1", r.weights_shape, f"{what}: weights")
    try:
        out += struct.pack("<4I2i", *node.main_output, node.batches, node.reserved)
    except struct.error as error:
        raise KmodelError(None, f"{what}: main_output, batches", str(error)) from error
    out += stored.encode()
    blobs = (node.bn.encode(), node.activation.encode(), weights)
    for skip, blob in zip(skips, blobs, strict=True):
        out += bytes(skip) + blob


def write(model: KmodelV4) -> bytes:
    """The file of ``model``; raises :class:`KmodelError` for values that fit no field."""
    if len(model.inputs) != len(model.input_shapes):
        raise KmodelError(
            None,
            "input_shapes",
            f"{len(model.input_shapes)} shapes for {len(model.inputs)} inputs",
        )
    out = bytearray()
    try:
        out += struct.pack(
            "<10I",
            IDENTIFIER,
            4,
            model.flags,
            model.target,
            len(model.constants),
            model.main_mem,
            len(model.nodes),
            len(model.inputs),
            len(model.outputs),
            model.reserved0,
        )
        for memory in model.inputs:
            out += struct.pack("<4I", *memory)
        for shape in model.input_shapes:
            out += struct.pack("<4i", *shape)
        for memory in model.outputs:
            out += struct.pack("<4I", *memory)
    except struct.error as error:
        raise KmodelError(None, "header", f"a value does not fit 32 bits: {error}") from error
    out += model.constants
    table = len(out)
    out += bytes(8 * len(model.nodes))
    padding = 0
    for i, node in enumerate(model.nodes):
        start, what = len(out), describe(i, node)
        if isinstance(node, KpuConv2d):
            try:
                _write_conv(node, out, what)
            except KpuError as error:
                raise KmodelError(None, what, str(error)) from error
        else:
            write_record(node, out, what)
        padding = -len(out) % 8
        out += bytes(padding)
        struct.pack_into("<2I", out, table + 8 * i, node.OPCODE, len(out) - start)
    return bytes(out[: len(out) - min(model.missing_padding, padding)])
