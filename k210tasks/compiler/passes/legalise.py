"""The float graph as layers of the device: what the KPU can do on the KPU, the rest beside it.

One function a kind of op. The KPU is preferred wherever it computes the same; what the CPU
layers of the format then cannot carry is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from k210tasks.compiler import forms, functions, ops
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.options import SmallMaps
from k210tasks.compiler.passes import (
    cpu,
    kpu_binary,
    kpu_conv,
    kpu_dense,
    kpu_large,
    kpu_pool,
    transposes,
)
from k210tasks.compiler.passes.legaliser import Handler, Legaliser
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.mains import spare_channels
from k210tasks.compiler.passes.maps import MAX_CHANNELS, MIN_SIDE, Pixels, Value, fits
from k210tasks.compiler.problems import CompileError, NeedsKmodel4, Unsupported
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime

Kind = TypeVar("Kind", bound=Op)

SMALL_DENSE = 2048  # weights up to which a dense layer on floats stays on the CPU

LARGE_DEPTHWISE = 64  # channels up to which a large depthwise kernel becomes a full one
#: kinds that may occur in a device graph, by version of the kmodel
ALLOWED: dict[int, forms.Forms] = {
    3: {
        **forms.DEVICE,
        **{kind: form for kind, form in forms.FLOAT.items() if kind not in (ops.Conv, ops.Deconv)},
        **{
            kind: replace(forms.FLOAT[kind], law=forms.windows_within)
            for kind in (ops.Pool, ops.Slice, ops.Pad)
        },
        ops.Dense: replace(forms.FLOAT[ops.Dense], law=forms.no_activation),
    },
    4: {**forms.DEVICE, **{k: f for k, f in forms.FLOAT.items() if k not in (ops.Map, ops.L2Norm)}},
}  # fmt: skip


def allowed(version: int, small_maps: SmallMaps = "padded") -> forms.Forms:
    """The kinds of kmodel ``version``; "kpu" lets KPU layers put out maps below 4x4."""
    kinds = ALLOWED[version]
    if small_maps == "kpu":
        return {**kinds, ops.KpuConv: replace(kinds[ops.KpuConv], least=1)}
    return kinds


def _conv(s: Legaliser, op: ops.Conv) -> None:
    v, out = s.value(op.input), s.new(op.output)
    depthwise = op.groups > 1
    kernel = op.weights.shape[2:]
    many = not depthwise and v.shape[1] <= MAX_CHANNELS < len(op.weights)
    if many and _in_groups(s, op, out):
        return
    if max(kernel) <= 3 and all(d == 1 or k == 1 for k, d in zip(kernel, op.dilation, strict=True)):
        if kpu_conv.conv(s.dev, v, out, op.weights, op.bias, depthwise=depthwise,
                         stride=op.stride, pads=op.pads, fn=op.fn, pre=op.pre):  # fmt: skip
            return
    elif _large(s, op, v, out):
        return
    cpu.conv(s.dev, v, out, op)


def _large(s: Legaliser, op: ops.Conv, v: Value, out: Value) -> bool:
    """A large or dilated kernel on the KPU; False where that is too much for it."""
    if v.shape[2] < MIN_SIDE and op.weights.shape[2] == 1 and not any(op.pads[:2]):
        return _large_on_low_map(s, op, v, out)
    depthwise = op.groups > 1
    if depthwise and len(op.weights) > LARGE_DEPTHWISE:
        return kpu_large.depthwise_in_groups(s.dev, v, out, op)
    full = _ungrouped(op.weights) if depthwise else op.weights
    wide = kpu_large.spread(s.dev, v, out, full, op.dilation, op.stride, op.pads)
    return wide is not None and kpu_conv.conv(
        s.dev, wide[0], out, wide[1], op.bias, depthwise=False, stride=op.stride, pads=wide[2],
        fn=op.fn, pre=op.pre,
    )  # fmt: skip


def _large_on_low_map(s: Legaliser, op: ops.Conv, v: Value, out: Value) -> bool:
    """A large kernel along the rows of a map that is too low for the KPU, as those of
    one-dimensional networks are: with more rows, which nobody looks at."""
    bare = s.dev.bare(v)
    m = s.dev.uploaded(bare) if v.shape[2] == 1 else None
    if m is None:
        return False
    rows = m.tensor.shape[2]
    tall = Value(m.tensor.shape, v.name, None, v.range, map=Pixels.of(m.tensor))
    made = Value((1, out.shape[1], rows, out.shape[3]), out.name, out.source, out.range)
    if not _large(s, replace(op, stride=(1, op.stride[1])), tall, made):
        return False
    assert made.map is not None
    out.map = replace(made.map, size=(1, out.shape[3]), clean=False)
    return True


def _in_groups(s: Legaliser, op: ops.Conv, out: Value) -> bool:
    """A convolution of more output channels than a KPU tensor can have, in several."""
    count = -(-len(op.weights) // MAX_CHANNELS)
    parts = []
    for rows in np.array_split(np.arange(len(op.weights)), count):
        shape = (1, len(rows), *out.shape[2:])
        part = Value(shape, out.name, out.source, out.range)
        if not kpu_conv.conv(s.dev, s.value(op.input), part, op.weights[rows], op.bias[rows],
                             depthwise=False, stride=op.stride, pads=op.pads, fn=op.fn,
                             pre=op.pre, first=int(rows[0])):  # fmt: skip
            return False
        parts.append(part)
    out.parts = parts
    return True


def _ungrouped(weights: ops.Floats) -> ops.Floats:
    full = np.zeros((weights.shape[0], weights.shape[0], *weights.shape[2:]), np.float32)
    full[np.arange(len(weights)), np.arange(len(weights))] = weights[:, 0]
    return full


def _dense(s: Legaliser, op: ops.Dense) -> None:
    v, out = s.value(op.input), s.new(op.output)
    # What a kmodel 3 is fed with in floats has to go into a dense layer first.
    first = s.dev.version == 3 and v.floats is not None and v.floats not in s.dev.producers
    # The last one too: what it puts out, a class or a number for people, stays in floats.
    small = op.weights.size <= SMALL_DENSE and (not v.on_kpu or s.last(op.output))
    on_cpu = (first or small) and (s.dev.version == 4 or s.dev.runtime.copies_dense)
    if not on_cpu and kpu_dense.dense(s.dev, v, out, op):
        return
    cpu.dense(s.dev, v, out, op)


def _pool(s: Legaliser, op: ops.Pool) -> None:
    v, out = s.value(op.input), s.new(op.output)
    kernel, stride, pads = op.kernel, op.stride, op.pads
    if op.how == "max":
        fuse = s.alone(op.input)
        plain = Value(out.shape, f"{out.name}/max") if op.fn else out
        if (v.on_kpu or s.wants_kpu(op.output)) and kpu_pool.max_pool(
            s.dev, v, plain, kernel, stride, pads, fuse
        ):
            if op.fn:
                _apply(s, plain, out, op)
            return
    elif max(kernel) <= 3 and not any(pads) and (v.on_kpu or s.wants_kpu(op.output)):
        c = v.shape[1]
        weights = np.full((c, 1, *kernel), 1 / (kernel[0] * kernel[1]), np.float32)
        if kpu_conv.conv(s.dev, v, out, weights, np.zeros(c, np.float32), depthwise=True,
                         stride=stride, pads=pads, fn=op.fn, pre=op.pre):  # fmt: skip
            return
    cpu.pool(s.dev, v, out, op)


def _apply(s: Legaliser, v: Value, out: Value, op: ops.Map | ops.Pool) -> None:
    """The function of ``op`` of each value of ``v``."""
    fn = op.fn
    c = v.shape[1] if len(v.shape) > 1 else 1
    # A factor and an offset are exact in a layer's weights, and errors in its table.
    scale, offset, rest = functions.affine_first(fn)
    weights = np.full((c, 1, 1, 1), scale, np.float32)
    bias = np.full(c, offset, np.float32)
    pre = op.pre if (scale, offset) == (1.0, 0.0) else None
    if v.vector is not None:
        tensor, pixel = v.vector
        computes = None if out.source is None else ops.Computed(out.source, pixel, (1, 1))
        y = s.dev.conv(tensor, weights, bias, like=out, depthwise=True, fn=rest, computes=computes)
        out.vector = (y, pixel)
    elif len(v.shape) == 4 and (v.map is not None or s.wants_kpu(op.output) or (
        s.dev.version == 3 and fits(v.shape) and not cpu.v3_carries(fn, s.dev.runtime))
    ):  # fmt: skip
        if not kpu_conv.conv(s.dev, v, out, weights, bias, depthwise=True, fn=rest, pre=pre):
            cpu.function(s.dev, v, out, fn)
    else:
        cpu.function(s.dev, v, out, fn)


def _map(s: Legaliser, op: ops.Map) -> None:
    _apply(s, s.value(op.input), s.new(op.output), op)


def _binary(s: Legaliser, op: ops.Binary) -> None:
    a, b = (s.value(t) for t in op.inputs)
    out = s.new(op.output)
    computed = all(t.value is None for t in op.inputs) and a is not b
    if op.how in ("add", "sub") and len(out.shape) == 4 and a.shape == b.shape:
        both = a.map is not None and b.map is not None
        near = both or ((a.on_kpu or b.on_kpu or s.wants_kpu(op.output)) and fits(out.shape))
        if near and computed and kpu_binary.total(s.dev, a, b, out, op):
            return
    if s.dev.version == 3 and computed and _beyond_cpu(a, b, out, op):
        wide = [kpu_binary.broadcast(s.dev, v, out.shape) for v in (a, b)]
        if wide[0] is not None and wide[1] is not None:
            compute = kpu_binary.product if op.how == "mul" else kpu_binary.total
            if compute(s.dev, wide[0], wide[1], out, op):
                return
    cpu.binary(s.dev, a, b, out, op)


def _beyond_cpu(a: Value, b: Value, out: Value, op: ops.Binary) -> bool:
    """Whether kmodel 3 has no CPU layer for what the KPU can compute of two maps."""
    how = op.how
    return len(out.shape) == 4 and (how in ("mul", "sub") or (how == "add" and a.shape != b.shape))


def _concat(s: Legaliser, op: ops.Concat) -> None:
    parts = [s.value(t) for t in op.inputs]
    out = s.new(op.output)
    constant = any(t.value is not None for t in op.inputs)
    if op.axis == 1 and len(out.shape) == 4 and not constant and s.wants_kpu(op.output):
        m = s.dev.side_by_side(parts)
        if m is not None:
            if len({x.place for x in m}) > 1:
                wholes = [s.dev.whole(p) for p in parts]
                m = [Pixels.of(t) for t in wholes if t is not None]
            if not all(map(_clean, m)) and _padded(s, op.output):
                m = _each_with_zeros(s, parts, m)
            if len(m) == len(parts) and s.dev.joinable([x.tensor for x in m]):
                joined = s.dev.concat([x.tensor for x in m], out)
                out.map = replace(m[0], tensor=joined, clean=all(map(_clean, m)))
                return
    cpu.concat(s.dev, parts, out, op)


def _clean(m: Pixels) -> bool:
    """Whether nothing but zeros lies beside the picked pixels, or nothing at all."""
    return m.clean or m.whole


def _padded(s: Legaliser, tensor: Tensor) -> bool:
    """Whether a convolution reads zeros around ``tensor``."""
    readers = s.consumers.get(tensor, ())
    return any(isinstance(op, ops.Conv) and any(op.pads) for op in readers)


def _each_with_zeros(s: Legaliser, parts: list[Value], maps: list[Pixels]) -> list[Pixels]:
    """The parts of a map of which only some pixels count, as of one too small for the KPU to
    write, each with zeros around them: once joined they could only go through main memory
    together, with one step for all."""
    fresh = [
        m if _clean(m) else s.dev.uploaded(s.dev.bare(v)) for v, m in zip(parts, maps, strict=True)
    ]
    found = [m for m in fresh if m is not None]
    return found if len({m.place for m in found}) == 1 and len(found) == len(maps) else maps


def _slice(s: Legaliser, op: ops.Slice) -> None:
    v, out = s.value(op.input), s.new(op.output)
    spatial = len(out.shape) == 4 and out.shape[:2] == v.shape[:2]
    # Kmodel 3 has no layer that cuts: it is left to the KPU to shift.
    m = s.dev.as_map(v) if spatial and s.dev.version == 3 else v.map if spatial else None
    if m is not None:
        (y, x), (sy, sx), (uy, ux) = op.begin[2:], m.stride, op.strides[2:]
        offset = (m.offset[0] + y * sy, m.offset[1] + x * sx)
        size = (out.shape[2], out.shape[3])
        out.map = Pixels(m.tensor, offset, (sy * uy, sx * ux), size)
        return
    cpu.move(s.dev, v, out, op)


def _reshape(s: Legaliser, op: ops.Reshape) -> None:
    v, out = s.value(op.input), s.new(op.output)
    if v.vector is not None and v.floats is None and v.codes is None and len(out.shape) == 2:
        out.vector = v.vector
        return
    start = s.dev.producers.get(v.codes) if v.codes is not None else None
    if isinstance(start, ops.Reshape) and start.input.shape == out.shape:
        out.codes = start.input  # back to the map the input was fed as
        producer = s.dev.producers.get(start.input)
        if isinstance(producer, ops.KpuConv):
            out.map = Pixels.of(producer.output)
        return
    cpu.move(s.dev, v, out, op)


def _transpose(s: Legaliser, op: ops.Transpose) -> None:
    v, out = s.value(op.input), s.new(op.output)
    if s.dev.version == 3:
        x = transposes.with_kmodel_3(s.dev, s.dev.as_floats(v), out.shape, op.perm)
        x.name, x.source, x.range = out.name, out.source, out.range
        out.floats = x
        return
    cpu.move(s.dev, v, out, op)


def _pad(s: Legaliser, op: ops.Pad) -> None:
    v, out = s.value(op.input), s.new(op.output)
    pads, value = op.pads, op.value
    if value <= ops.FAR:
        raise Unsupported(
            s.dev.label,
            f"it pads with {value:g}, beside which eight bits hold nothing else",
            "only a max pool may read that; pad with the least value of the map",
        )
    if s.dev.version == 3:
        spatial = len(pads) == 4 and not any(a or b for a, b in pads[:2])
        if value != 0 or not spatial:
            raise NeedsKmodel4(s.dev.label, f"a pad by {[list(p) for p in pads]} with {value:g}")
    if value == 0 and (v.floats is None or s.dev.version == 3):
        out.codes = s.dev.zeros_around(s.dev.as_codes(v), out.shape, pads)
        out.codes.source, out.codes.range = out.source, out.range
    else:
        layer = ops.Pad([s.dev.as_floats(v)], pads=pads, value=value)
        out.floats = s.dev.emit(layer, out.shape, out, dtype="float32")


def _beside_kpu(compute: Callable[[Lowering, Value, Value, Kind], None]) -> Handler:
    """What always is a layer of the CPU."""

    def handler(s: Legaliser, op: Kind) -> None:
        compute(s.dev, s.value(op.input), s.new(op.output), op)

    return handler


HANDLERS: dict[type[Op], Handler] = {
    ops.Conv: _conv,
    ops.Dense: _dense,
    ops.Pool: _pool,
    ops.Map: _map,
    ops.Binary: _binary,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.Reshape: _reshape,
    ops.Transpose: _transpose,
    ops.Pad: _pad,
    ops.Resize: _beside_kpu(cpu.resize),
    ops.Reduce: _beside_kpu(cpu.reduce),
    ops.Softmax: _beside_kpu(cpu.softmax),
    ops.L2Norm: _beside_kpu(cpu.l2norm),
    ops.Deconv: _beside_kpu(cpu.deconv),
}


def legalise(
    graph: Graph,
    version: int,
    *,
    float_input: bool = False,
    tables: bool = False,
    small_maps: SmallMaps = "padded",
    runtime: Runtime = RUNTIMES["host"],
    refused: list[CompileError] | None = None,
) -> Graph:
    """The graph in the layers of kmodel ``version``; ``float_input``: fed with float32;
    ``tables``: the runtimes know the tables of beta4 (kmodel 4); ``small_maps``: "kpu" lets
    the KPU put out maps below 4x4; ``runtime``: what is to run it.

    Raises :class:`Unsupported` (of which :class:`NeedsKmodel4` is one) naming the op; with
    ``refused`` every such error is appended to it instead, and what is returned is of use
    only where none was.
    """
    dev = Lowering(version, tables, small=small_maps == "kpu", runtime=runtime)
    made = Legaliser(graph, dev, float_input, refused).run(HANDLERS)
    if version == 3:
        spare_channels(made)
    return made
