"""What is in a kmodel, for people and for programs: one row per layer, and the totals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from k210tasks.kmodel import v3_layers, v4_ops
from k210tasks.kmodel.codec import KPU, MAIN, MemoryRange
from k210tasks.kmodel.detect import PRODUCERS
from k210tasks.kmodel.shapes import Dims, Tracker, text, volume
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.layout import ROW_BYTES, map_rows
from k210tasks.kpu.pools import POOLS, Pool
from k210tasks.kpu.registers import LayerRegisters, check
from k210tasks.kpu.timing import layer_cycles, layer_seconds

#: Nodes that came with later betas of nncase 0.2 (docs, section 3.4).
LATE_NODES = {v4_ops.TableLookup1d, v4_ops.NnilUnary}
#: Layers a v3 runtime accepts as the first, and feeds.
FIRST_LAYERS = (v3_layers.K210Conv, v3_layers.FullyConnected)


@dataclass(frozen=True, slots=True)
class KpuRow:
    """What the KPU does in one layer."""

    kernel: int  # 1 or 3
    depthwise: bool
    pool: str
    macs: int
    weight_bytes: int
    rows_in: int  # 64-byte rows of KPU RAM
    rows_out: int
    estimated_us: float


@dataclass(frozen=True, slots=True)
class LayerRow:
    index: int
    name: str
    input: tuple[int, ...] | None
    output: tuple[int, ...] | None
    kpu: KpuRow | None = None  # None: a layer of the CPU

    def __str__(self) -> str:
        """In the form of ncc 0.1's log."""
        given = f" {text(self.input)}" if self.input else ""
        return f"{self.index}: {self.name}{given} -> {text(self.output)}"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the model."""

    dtype: str
    shape: tuple[int, ...] | None  # N, C, H, W; None: the file does not tell
    nbytes: int
    memory: str  # "kpu" | "main"
    address: int  # bytes
    layout: str | None = None  # "CHW" for inputs
    scale: float | None = None  # real step of one code, where the file tells; of a float32
    zero_point: float | None = None  # input, of the codes that it is rounded to first


@dataclass(frozen=True, slots=True)
class Summary:
    version: int
    producer: str  # of this version of the format
    model_bytes: int
    trailing_bytes: int  # that follow the model in the file
    weight_bits: int
    layers: tuple[LayerRow, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    kpu_bytes: int  # 64 times the rows from the lowest to the highest one touched
    main_bytes: int
    macs: int  # of the KPU layers
    estimated_kpu_ms: float  # of the KPU layers
    notes: tuple[str, ...] = ()  # what may keep a runtime from running it


def kpu_row(registers: LayerRegisters, weight_bytes: int = 1, batches: int = 1) -> KpuRow:
    """The figures of one convolution; ``weight_bytes`` is 1 or 2."""
    channels, height, width = registers.in_shape
    oc, ic, k, _ = registers.weights_shape
    size = oc * ic * k * k * weight_bytes
    cycles = layer_cycles(channels, oc, height, width, depthwise=registers.depthwise)
    pool = POOLS[Pool(registers.pool_type)].name if registers.pool_type <= max(Pool) else "?"
    return KpuRow(
        kernel=k,
        depthwise=registers.depthwise,
        pool=pool,
        macs=registers.macs * batches,
        weight_bytes=size,
        rows_in=registers.rows_in * batches,
        rows_out=registers.rows_out * batches,
        estimated_us=round(1e6 * layer_seconds(cycles * batches, size), 1),
    )


def touched(body: Any) -> list[tuple[int, int]]:
    """(first row, rows) of every part of KPU RAM a layer touches; what it writes is the last."""
    if isinstance(body, (v3_layers.K210Conv, v4_ops.KpuConv2d)):
        r, batches = body.registers, max(1, getattr(body, "batches", 1))
        return [
            (r.image_src_addr, r.rows_in * batches),
            (r.image_dst_addr, r.rows_out * batches),
        ]
    if isinstance(body, v3_layers.K210AddPadding):
        return [(body.out_kpu, map_rows(max(1, body.channels), 4, 4))]
    if isinstance(body, v3_layers.K210Upload):
        return [(body.out_kpu, map_rows(max(1, body.channels), body.height, max(1, body.width)))]
    if isinstance(body, v4_ops.KpuUpload) and min(body.shape) > 0:
        n, c, h, w = body.shape
        return [(body.out.start // ROW_BYTES, n * map_rows(c, h, w))]
    return []


def kpu_bytes(bodies: Any) -> int:
    """64 times the KPU RAM rows from the lowest to the highest one ``bodies`` touch."""
    spans = [span for body in bodies for span in touched(body)]
    if not spans:
        return 0
    return ROW_BYTES * (max(start + rows for start, rows in spans) - min(s for s, _ in spans))


def summary(model: KmodelV3 | KmodelV4) -> Summary:
    """Everything a listing shows of ``model``; never fails on a model that could be parsed."""
    tracker, rows = Tracker(), []
    dequantised: dict[int, tuple[float, float]] = {}
    bodies: Any = model.layers
    weight_bytes = model.weight_bytes if isinstance(model, KmodelV3) else 1
    for i, body in enumerate(bodies):
        flow = tracker.flow(body)
        kpu = None
        if isinstance(body, (v3_layers.K210Conv, v4_ops.KpuConv2d)):
            kpu = kpu_row(body.registers, weight_bytes, max(1, getattr(body, "batches", 1)))
        rows.append(LayerRow(i, body.NAME, _plain(flow.input), _plain(flow.output), kpu))
        if flow.writes is not None:
            dequantised.pop(flow.writes, None)
            step = (0.0, 0.0)
            if isinstance(body, v3_layers.Dequantize) and body.scale:
                step = (body.scale, -body.bias / body.scale)
            elif isinstance(body, v4_ops.Dequantize) and body.quant.scale:
                step = (1 / body.quant.scale, body.quant.zero_point)
            if step[0] and all(map(math.isfinite, step)):
                dequantised[flow.writes] = step
    inputs, outputs = _ports(model, bodies, tracker, dequantised)
    return Summary(
        version=model.version,
        producer=PRODUCERS[model.version],
        model_bytes=len(model.to_bytes()) if model.size is None else model.size,
        trailing_bytes=model.trailing,
        weight_bits=8 * weight_bytes,
        layers=tuple(rows),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        kpu_bytes=kpu_bytes(bodies),
        main_bytes=model.main_mem,
        macs=sum(row.kpu.macs for row in rows if row.kpu),
        notes=tuple(notes(model)),
        estimated_kpu_ms=round(sum(row.kpu.estimated_us for row in rows if row.kpu) / 1000, 4),
    )


def notes(model: KmodelV3 | KmodelV4) -> list[str]:
    """What in ``model`` some or all runtimes do not run, one sentence each."""
    found = []
    bodies: Any = model.layers
    weight_bytes = model.weight_bytes if isinstance(model, KmodelV3) else 1
    names = sorted({body.NAME for body in bodies if type(body) in LATE_NODES})
    if names:
        found.append(
            f"{', '.join(names)}: not in runtimes of nncase 0.2 beta2 and before, "
            "MaixPy's among them"
        )
    if isinstance(model, KmodelV3) and bodies and not isinstance(bodies[0], FIRST_LAYERS):
        found.append(
            f"the first layer is {bodies[0].NAME}: runtimes start with K210Conv2d or FullyConnected"
        )
    for i, body in enumerate(bodies):
        if isinstance(body, v3_layers.MaxPool2d):
            found.append(f"layer {i} ({body.NAME}): no runtime has a handler for it")
        elif isinstance(body, v4_ops.Node) and 0x1001 <= body.OPCODE <= 0x1005:
            found.append(f"layer {i} ({body.NAME}): an operation of the CPU target")
        elif isinstance(body, (v3_layers.K210Conv, v4_ops.KpuConv2d)):
            batches = max(1, getattr(body, "batches", 1))
            odd = next(check(body.registers, weight_bytes, batches), None)
            if odd is not None:
                found.append(
                    f"layer {i} ({body.NAME}): register {odd.field} is {odd.value}, "
                    f"its geometry asks for {odd.expected}"
                )
    return found


def _plain(dims: Dims | None) -> tuple[int, ...] | None:
    return None if dims is None else tuple(int(n) for n in dims)


def _zero_point(body: Any) -> float | None:
    """The input code of real 0, from a convolution's registers: -arg_w."""
    r: LayerRegisters = body.registers
    return -r.arg_w / (1 << r.shr_w)


def _codes_of(memory: MemoryRange, bodies: Any) -> tuple[float | None, float | None]:
    """Scale and zero point of an input in main memory, from the first node that reads it: its
    codes, or those that floats are rounded to."""
    for body in bodies:
        if isinstance(body, (v4_ops.Quantize, v4_ops.Dequantize)):
            if body.input.start == memory.start and body.input.memory_type == MAIN:
                scale = body.quant.scale
                return (1 / scale, body.quant.zero_point) if scale else (None, None)
        elif getattr(getattr(body, "out", None), "start", None) == memory.start:
            break  # what lies there from now on is no input
    return None, None


def _ports(
    model: KmodelV3 | KmodelV4,
    bodies: Any,
    tracker: Tracker,
    dequantised: dict[int, tuple[float, float]],
) -> tuple[list[Port], list[Port]]:
    inputs: list[Port] = []
    outputs: list[Port] = []
    first = bodies[0] if bodies else None
    if isinstance(model, KmodelV3):
        if isinstance(first, v3_layers.K210Conv):
            c, h, w = first.registers.in_shape
            inputs.append(
                Port(
                    "uint8",
                    (1, c, h, w),
                    c * h * w,
                    "kpu",
                    first.registers.image_src_addr * ROW_BYTES,
                    "CHW",
                    zero_point=_zero_point(first),
                )
            )
        elif isinstance(first, v3_layers.FullyConnected):
            inputs.append(Port("float32", (1, first.in_ch), 4 * first.in_ch, "main", first.in_mem))
        for out in model.outputs:
            shape = tracker.shape_at(out.address, out.size // 4)
            scale, zero = dequantised.get(out.address, (None, None))
            outputs.append(Port("float32", shape, out.size, "main", out.address, None, scale, zero))
        return inputs, outputs
    for memory, shape in zip(model.inputs, model.input_shapes, strict=True):
        in_kpu = memory.memory_type == KPU
        scale, zero = (None, None) if in_kpu else _codes_of(memory, bodies)
        if in_kpu and isinstance(first, v4_ops.KpuConv2d):
            fed = first.registers.image_src_addr * ROW_BYTES == memory.start
            zero = _zero_point(first) if fed else None
        known = in_kpu or volume(shape) * memory.itemsize == memory.size
        inputs.append(
            Port(
                "uint8" if in_kpu or memory.datatype == 1 else "float32",
                tuple(shape) if known else None,
                volume(shape) if in_kpu else memory.size,
                "kpu" if in_kpu else "main",
                memory.start,
                "CHW" if known else None,
                scale,
                zero,
            )
        )
    for memory in model.outputs:
        shape_there = tracker.shape_at(memory.start, memory.size // memory.itemsize)
        scale, zero = (None, None)
        if memory.memory_type == MAIN:
            scale, zero = dequantised.get(memory.start, (None, None))
        outputs.append(
            Port(
                "float32" if memory.datatype == 0 else "uint8",
                _plain(shape_there),
                memory.size,
                "main",
                memory.start,
                None,
                scale,
                zero,
            )
        )
    return inputs, outputs


def listing_text(listed: Summary) -> str:
    """The layers in the form of ncc 0.1's log, one a line, without the memory lines."""
    return "".join(f"{row}\n" for row in listed.layers)


def memory_lines(listed: Summary) -> tuple[str, str]:
    """KPU and main memory usage, as ncc prints them."""
    return (
        f"KPU memory usage: {listed.kpu_bytes} B",
        f"Main memory usage: {listed.main_bytes} B",
    )
