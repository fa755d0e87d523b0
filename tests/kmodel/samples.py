"""Random legal records of both formats, from the very tables that declare them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from k210tasks.kmodel import v3_layers, v4_ops
from k210tasks.kmodel.codec import Array, Items, MemoryRange, Packed, Shape, record_fields
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.pools import Pool
from k210tasks.kpu.registers import LayerRegisters, conv_registers
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm

#: Fields that arrays are sized by: kept small.
SIZES = {
    "n", "in_ch", "out_ch", "channels", "out_channels", "groups", "filter_h", "filter_w", "b_cols",
    "shape", "shape_out",
}  # fmt: skip


class _Made:
    """Fields drawn so far, for the shapes of later ones."""


def record(cls: type, rng: np.random.Generator) -> Any:
    """A record of ``cls`` with random values in every field of the format."""
    made = _Made()
    for name, codec in record_fields(cls):
        setattr(made, name, _value(name, codec, made, rng))
    return cls(**vars(made))


def _value(name: str, codec: Any, made: Any, rng: np.random.Generator) -> Any:
    if isinstance(codec, Packed):
        return _packed(codec, rng, small=name in SIZES)
    if isinstance(codec, Array):
        shape = codec.shape(made)
        raw = rng.integers(0, 256, int(np.prod(shape)) * np.dtype(codec.dtype).itemsize)
        array = np.frombuffer(raw.astype(np.uint8).tobytes(), codec.dtype)
        return array.reshape(shape)
    if isinstance(codec, Items):
        return [_packed(codec.packed, rng) for _ in range(codec.count(made))]
    return rng.bytes(8 * int(rng.integers(1, 5)))  # whole words: the rest includes the padding


def _packed(codec: Packed, rng: np.random.Generator, small: bool = False) -> Any:
    if small:
        count = struct.calcsize("<" + codec.fmt) // 4
        values: Any = [int(v) for v in rng.integers(1, 4, count)]
        return codec.make(*values) if codec.make else values[0]
    while True:
        values = struct.unpack("<" + codec.fmt, rng.bytes(struct.calcsize("<" + codec.fmt)))
        if all(v == v for v in values):  # a NaN is equal to nothing, not even in a test
            return codec.make(*values) if codec.make else values[0]


def tables(rng: np.random.Generator, out_channels: int) -> tuple[BatchNorm, Activation]:
    bn = BatchNorm.of(
        rng.integers(-(1 << 23), 1 << 23, out_channels),
        rng.integers(0, 16, out_channels),
        rng.integers(-(1 << 31), 1 << 31, out_channels),
    )
    start = np.sort(np.r_[LOWEST_START, rng.integers(-(1 << 35), 1 << 35, 15)])
    activation = Activation.of(
        start,
        rng.integers(-(1 << 15), 1 << 15, 16),
        rng.integers(0, 256, 16),
        rng.integers(0, 256, 16),
    )
    return bn, activation


def registers(rng: np.random.Generator, weight_bytes: int = 1) -> LayerRegisters:
    depthwise = bool(rng.random() < 0.3)
    channels = int(rng.integers(1, 12))
    facts: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": channels if depthwise else int(rng.integers(1, 12)),
        "height": int(rng.integers(4, 12)),
        "width": int(rng.integers(4, 80)),
        "kernel": int(rng.choice([1, 3])),
        "depthwise": depthwise,
        "pool": Pool.BYPASS if depthwise else Pool(int(rng.integers(0, 10))),
        "src_row": int(rng.integers(0, 1000)),
        "dst_row": int(rng.integers(2000, 9000)),
        "pad_value": int(rng.integers(0, 256)),
        "arg_x": int(rng.integers(-(1 << 23), 1 << 23)),
        "shr_x": int(rng.integers(0, 16)),
        "arg_w": int(rng.integers(-(1 << 23), 1 << 23)),
        "arg_add": int(rng.integers(-(1 << 39), 1 << 39)),
        "weight_bytes": weight_bytes,
    }
    return conv_registers(**facts)


def conv_v3(rng: np.random.Generator, weight_bytes: int) -> v3_layers.K210Conv:
    r = registers(rng, weight_bytes)
    bn, activation = tables(rng, r.out_channels)
    dtype = np.uint8 if weight_bytes == 1 else np.uint16
    return v3_layers.K210Conv(
        flags=int(rng.integers(0, 2)),
        out_mem=int(rng.integers(0, 1 << 20)),
        registers=r,
        weights=rng.integers(0, np.iinfo(dtype).max + 1, r.weights_shape).astype(dtype),
        bn=bn,
        activation=activation,
    )


def conv_v4(rng: np.random.Generator) -> v4_ops.KpuConv2d:
    r = registers(rng)
    bn, activation = tables(rng, r.out_channels)
    return v4_ops.KpuConv2d(
        main_output=MemoryRange(*(int(v) for v in rng.integers(0, 1 << 20, 4))),
        batches=int(rng.integers(1, 3)),
        registers=r,
        bn=bn,
        activation=activation,
        weights=rng.integers(0, 256, r.weights_shape).astype(np.uint8),
    )


def model_v3(seed: int, layers: int = 4) -> KmodelV3:
    """A v3 file of random legal layers; not one that makes sense to run."""
    rng = np.random.default_rng(seed)
    weight_bytes = int(rng.integers(1, 3))
    bodies: list[v3_layers.Body] = []
    for cls in rng.choice(np.array(list(v3_layers.BODIES.values()), object), layers):
        if cls is v3_layers.K210Conv:
            bodies.append(conv_v3(rng, weight_bytes))
        else:
            bodies.append(record(cls, rng))
    return KmodelV3(
        layers=bodies,
        outputs=[
            v3_layers.Output(int(a), int(s))
            for a, s in rng.integers(0, 1 << 32, (int(rng.integers(0, 4)), 2))
        ],
        main_mem=int(rng.integers(0, 1 << 32)),
        flags=2 - weight_bytes,
    )


def model_v4(seed: int, nodes: int = 4) -> KmodelV4:
    """A v4 file of random legal nodes; not one that makes sense to run."""
    rng = np.random.default_rng(seed)
    bodies: list[v4_ops.Node] = []
    for cls in rng.choice(np.array(list(v4_ops.NODES.values()), object), nodes):
        bodies.append(conv_v4(rng) if cls is v4_ops.KpuConv2d else record(cls, rng))
    inputs = int(rng.integers(0, 3))
    return KmodelV4(
        nodes=bodies,
        inputs=[MemoryRange(*(int(v) for v in row)) for row in rng.integers(0, 99, (inputs, 4))],
        input_shapes=[Shape(*(int(v) for v in row)) for row in rng.integers(1, 99, (inputs, 4))],
        outputs=[MemoryRange(1, 0, 0, 8)],
        constants=rng.bytes(int(rng.integers(0, 40))),
        main_mem=int(rng.integers(0, 1 << 32)),
        reserved0=int(rng.integers(0, 1 << 32)),
    )
