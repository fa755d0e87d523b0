"""Where values live while the graph is rewritten for the device, and how they get elsewhere.

A :class:`Value` is one tensor of the float graph. It may exist in several places at once:
as a feature map in KPU RAM, as codes in main memory, as floats in main memory. Each form
is made when it is first asked for and then shared.

A feature map is kept lazily: the KPU computes maps of the full size of its input, so what
a VALID or strided convolution means is *which pixels* of such a map, see :class:`Map`.
Only a reader that cannot look past the difference makes it real.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.functions import Fn, Step
from k210tasks.compiler.ir import DType, Op, Place, Tensor, Within
from k210tasks.compiler.passes import chunks, clamps
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime
from k210tasks.kpu.layout import layout
from k210tasks.kpu.timing import pixel_rows

MIN_SIDE = 4  # smallest map the KPU is fed with, and writes but where smaller ones are allowed
MAX_WIDTH, MAX_HEIGHT = 512, 256
MAX_CHANNELS = 1024
MAX_LOADS = 64
LOAD_BYTES = 30 * 1024


@dataclass(frozen=True, slots=True)
class Map:
    """Pixels of ``tensor`` in KPU RAM: logical (y, x) is at ``offset + (y, x) * stride``.

    ``clean``: every pixel outside the picked ones is zero in reals.
    """

    tensor: Tensor
    offset: tuple[int, int]
    stride: tuple[int, int]
    size: tuple[int, int]
    clean: bool = False

    @property
    def whole(self) -> bool:
        """Whether the map is the tensor itself."""
        return self.stride == (1, 1) and self.size == self.tensor.shape[2:]

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the picked pixels lie, whatever their channels."""
        return self.tensor.shape[2:], self.offset, self.stride, self.size

    @classmethod
    def of(cls, tensor: Tensor) -> Map:
        h, w = tensor.shape[2:]
        return cls(tensor, (0, 0), (1, 1), (h, w), True)


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the float graph and the forms it exists in; ``shape`` as in that graph.

    ``unclamped``: floats that the value is a clamp of, which is computed for what reads it.
    ``parts``: a map of more channels than one KPU tensor can have, in groups of channels.
    """

    shape: tuple[int, ...]
    name: str
    source: int | None = None
    range: tuple[float, float] | None = None
    floats: Tensor | None = None
    codes: Tensor | None = None
    unclamped: tuple[Tensor, Step] | None = None
    map: Map | None = None
    vector: tuple[Tensor, tuple[int, int]] | None = None  # (1, C, 4, 4) in KPU RAM, and the pixel
    parts: list[Value] = field(default_factory=list)

    @property
    def on_kpu(self) -> bool:
        return self.map is not None or self.vector is not None


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a (1, C, H, W) map can be an input of the KPU."""
    _, c, h, w = shape
    return 1 <= c <= MAX_CHANNELS and MIN_SIDE <= h <= MAX_HEIGHT and MIN_SIDE <= w <= MAX_WIDTH


def _tensor(v: Value) -> Tensor:
    """Shape, name, source and range of a value."""
    return Tensor(v.name, v.shape, source=v.source, range=v.range)


@dataclass(eq=False, slots=True)
class Lowering:
    """The device graph being written. ``version`` is 3 or 4; ``tables``: whether runtimes know
    the opcode that looks bytes up in a table, as those of kmodel 4 do from beta4 on;
    ``small``: whether the KPU may write maps of less than 4x4 (reference, section 1.4a);
    ``runtime``: what is to run the file."""

    version: int
    tables: bool = False
    small: bool = False
    runtime: Runtime = RUNTIMES["host"]
    ops: list[Op] = field(default_factory=list)
    producers: dict[Tensor, Op] = field(default_factory=dict)
    joined: set[Tensor] = field(default_factory=set)  # parts of a kpu_concat
    origin: tuple[str, ...] = ()
    mains: dict[Tensor, Tensor] = field(default_factory=dict)
    aligned: dict[Any, Map] = field(default_factory=dict)

    def emit(
        self,
        kind: str,
        inputs: list[Tensor],
        shape: tuple[int, ...],
        like: Value | Tensor | None = None,
        *,
        dtype: DType = "uint8",
        place: Place = "main",
        **attrs: Any,
    ) -> Tensor:
        """Append an op; the output takes name, source and range from ``like``."""
        name = like.name if like is not None else f"{inputs[0].name}/{kind}"
        out = Tensor(name, tuple(int(n) for n in shape), dtype, place=place)
        if like is not None:
            out.source, out.range = like.source, like.range
        op = Op(kind, list(inputs), [out], attrs, self.origin)
        self.ops.append(op)
        self.producers[out] = op
        return out

    @property
    def label(self) -> str:
        """The source ops under way, for messages."""
        return ", ".join(self.origin) or "the input"

    # -- KPU layers

    def conv(
        self,
        x: Tensor,
        weights: NDArray[Any],
        bias: NDArray[Any],
        *,
        like: Value | Tensor | None = None,
        depthwise: bool = False,
        fn: Fn = (),
        pool: int = 0,
        computes: tuple[int, ...] | None = None,
        first: int = 0,
        identity: bool = False,
        pre: Within | None = None,
    ) -> Tensor:
        """A KPU layer on the whole tensor ``x``, its output channels split where one layer
        cannot load them all.

        ``computes`` (source tensor, offsets, strides): before its pool the layer computes,
        at ``offset + (y, x) * stride``, pixel (y, x) of that tensor of the source file, or
        of the tensor ``pre``, inside the layer's function; ``first`` is the channel of it that
        the layer's channel 0 is.
        """
        out, inner, k, _ = weights.shape
        stride = (1, 2, 2, 4, 4, 2, 2, 4, 1, 1)[pool]
        h, w = x.shape[2] // stride, x.shape[3] // stride
        per = out if depthwise else min(out, LOAD_BYTES // (k * k * inner))
        most = min(MAX_CHANNELS, MAX_LOADS * per)
        if out > most:
            most -= most % 4
        parts = []
        for begin in range(0, out, most):
            rows = slice(begin, min(begin + most, out))
            count = rows.stop - rows.start
            part = self.emit(
                "kpu_conv",
                [x],
                (1, count, h, w),
                like,
                place="kpu",
                weights=np.ascontiguousarray(weights[rows], np.float32),
                bias=np.asarray(bias[rows], np.float32),
                depthwise=depthwise,
                pad_value=0.0,
                fn=fn,
                pool=pool,
                computes=None if computes is None else (*computes, first + begin),
                identity=identity,
                pre=None if pre is None else pre.tensor.source,
                pre_range=None if pre is None else pre.tensor.range,
                pre_clamp=None if pre is None else (pre.low, pre.high),
            )
            parts.append(part)
        return parts[0] if len(parts) == 1 else self.concat(parts, like)

    def copy(self, x: Tensor, *, pool: int = 0, tap: tuple[int, int] = (0, 0)) -> Tensor:
        """The codes of ``x``, unchanged, pooled if asked; ``tap`` shifts the map: output
        pixel (y, x) is input pixel (y, x) + tap, each of -1, 0, 1."""
        c = x.shape[1]
        k = 1 if tap == (0, 0) else 3
        normal = pool != 0
        weights = np.zeros((c, c if normal else 1, k, k), np.float32)
        at = (tap[0] + 1, tap[1] + 1) if k == 3 else (0, 0)
        weights[np.arange(c), np.arange(c) if normal else 0, at[0], at[1]] = 1
        return self.conv(
            x, weights, np.zeros(c, np.float32), depthwise=not normal, pool=pool, identity=True
        )

    def part(self, x: Tensor, first: int, count: int) -> Tensor:
        """Channels of a KPU tensor as a tensor of their own: the same rows. ``first`` must
        be a multiple of the layout's group."""
        if self.version == 3 and x not in self.producers:
            # The first layer's registers say how large the input is: it must read all of it.
            key = (x, (0, 0))
            if key not in self.aligned:
                self.aligned[key] = Map.of(self.copy(x))
            x = self.aligned[key].tensor
        shape = (1, count, *x.shape[2:])
        return self.emit("kpu_part", [x], shape, place="kpu", first=first)

    def concat(self, parts: list[Tensor], like: Value | Tensor | None = None) -> Tensor:
        """Maps of one size behind each other in KPU RAM; parts that cannot be placed so are
        copied first. Channels must be multiples of the layout's group, but for the last."""
        ready = []
        for part in parts:
            producer = self.producers.get(part)
            free = producer is not None and producer.kind not in ("kpu_concat", "kpu_part")
            if not free or part in self.joined or part in ready:
                part = self.copy(part)
            ready.append(part)
        self.joined.update(ready)
        channels = sum(p.shape[1] for p in ready)
        return self.emit("kpu_concat", ready, (1, channels, *ready[0].shape[2:]), like, place="kpu")

    def joinable(self, maps: list[Tensor]) -> bool:
        """Whether :meth:`concat` can join these."""
        group = layout(maps[0].shape[3]).channels_per_group
        total = sum(t.shape[1] for t in maps)
        return total <= MAX_CHANNELS and all(t.shape[1] % group == 0 for t in maps[:-1])

    def main_copy(self, x: Tensor) -> Tensor:
        """The dense codes of a KPU tensor in main memory."""
        if x in self.mains:
            return self.mains[x]
        producer = self.producers.get(x)
        if producer is None or producer.kind != "kpu_conv":
            producer = self.producers[self.copy(x)]
        main = Tensor(f"{x.name}/main", x.shape, "uint8", source=x.source, range=x.range)
        producer.outputs.append(main)
        self.producers[main] = producer
        self.mains[x] = main
        return main

    def resize(self, v: Value, out: Value, **attrs: Any) -> None:
        """A layer that repeats or leaves out pixels, of codes where the values are codes."""
        lacks = self.runtime.lacks if self.version == 3 else ()
        if (v.codes is not None or v.on_kpu) and "QuantizedResizeNearestNeighbor" not in lacks:
            out.codes = self.emit("resize", [self.as_codes(v)], out.shape, out, **attrs)
        else:
            floats = [self.as_floats(v)]
            out.floats = self.emit("resize", floats, out.shape, out, dtype="float32", **attrs)

    # -- forms of a value

    def as_floats(self, v: Value) -> Tensor:
        """Float32 in main memory."""
        if v.floats is None and v.parts and v.codes is None:
            floats = [self.as_floats(part) for part in v.parts]
            v.floats = self.emit("concat", floats, v.shape, v, dtype="float32", axis=1)
        if v.floats is None and v.unclamped is not None:
            v.floats = clamps.floats(self.emit, _tensor(v), *v.unclamped)
        if v.floats is None:
            codes = self.as_codes(v)
            v.floats = self.emit("dequantize", [codes], v.shape, v, dtype="float32")
        return v.floats

    def as_codes(self, v: Value) -> Tensor:
        """Codes in main memory, dense, in the value's own shape."""
        if v.codes is not None:
            return v.codes
        if v.map is not None:
            v.codes = self._codes_of_map(v, v.map)
        elif v.vector is not None:
            v.codes = self._codes_of_vector(v, *v.vector)
        elif v.unclamped is not None and clamps.on_codes(v.unclamped[1]):
            v.codes = clamps.codes(self.emit, _tensor(v), *v.unclamped)
        else:
            v.codes = self.emit("quantize", [self.as_floats(v)], v.shape, v)
        return v.codes

    def _codes_of_map(self, v: Value, m: Map) -> Tensor:
        if m.whole:
            return self.main_copy(m.tensor)
        if self.version == 3:
            m = self.at_origin(m)
        if m.whole:
            return self.main_copy(m.tensor)
        return self.emit(
            "slice",
            [self.main_copy(m.tensor)],
            (1, m.tensor.shape[1], *m.size),
            v,
            begin=(0, 0, *m.offset),
            strides=(1, 1, *m.stride),
        )

    def _codes_of_vector(self, v: Value, tensor: Tensor, pixel: tuple[int, int]) -> Tensor:
        main = self.main_copy(tensor)
        c = tensor.shape[1]
        if self.version == 3:
            return self.emit("remove_padding", [main], (1, c), v, pixel=pixel)
        one = self.emit("slice", [main], (1, c, 1, 1), begin=(0, 0, *pixel), strides=(1, 1, 1, 1))
        return self.emit("reshape", [one], (1, c), v)

    def as_map(self, v: Value) -> Map | None:
        """In KPU RAM as a map; None for a value that can be none."""
        if v.map is None and len(v.shape) == 4:
            v.map = self.uploaded(v)
        return v.map

    def uploaded(self, v: Value) -> Map | None:
        """A map made from the codes in main memory, with zeros around if it is too small."""
        _, c, h, w = v.shape
        grow = (max(0, MIN_SIDE - h), max(0, MIN_SIDE - w))
        if not fits((1, c, h + grow[0], w + grow[1])):
            return None
        if grow == (0, 0):
            codes = self.as_codes(v)
            return Map.of(self.emit("upload", [codes], v.shape, v, place="kpu"))
        return self.padded(v, (0, grow[0], 0, grow[1]))

    def padded(self, v: Value, pads: tuple[int, int, int, int]) -> Map:
        """The value with zeros around it (top, bottom, left, right), uploaded."""
        top, bottom, left, right = pads
        _, c, h, w = v.shape
        shape = (1, c, h + top + bottom, w + left + right)
        wide = self.zeros_around(
            self.as_codes(v), shape, ((0, 0), (0, 0), (top, bottom), (left, right))
        )
        on_kpu = self.emit("upload", [wide], shape, place="kpu")
        return Map(on_kpu, (top, left), (1, 1), (h, w), True)

    def zeros_around(
        self, codes: Tensor, shape: tuple[int, ...], pads: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """Codes in main memory padded with the code of zero.

        Kmodel 3 can pad with code 0 only: there the codes are turned until zero is code 0,
        padded and turned back; the turns go where zero is code 0 anyway. Its layer is right for
        any number of pixels above and to the left, below and to the right for one: it is
        repeated.
        """
        if self.version == 4:
            return self.emit("pad", [codes], shape, pads=pads, value=0.0)
        turned = self.emit("turn", [codes], codes.shape, back=False)
        before = [a for a, _ in pads]
        left = [b for _, b in pads]
        wide = turned
        while True:
            step = tuple((a, min(b, 1)) for a, b in zip(before, left, strict=True))
            size = tuple(n + a + b for n, (a, b) in zip(wide.shape, step, strict=True))
            wide = self.emit("pad", [wide], size, pads=step, value=0.0)
            before, left = [0] * len(pads), [b - min(b, 1) for b in left]
            if not any(left):
                break
        return self.emit("turn", [wide], shape, back=True)

    # -- geometry of lazy maps

    def writes(self, h: int, w: int) -> bool:
        """Whether the KPU may put out a map of this size."""
        return self.small or min(h, w) >= MIN_SIDE

    def stays(self, m: Map) -> bool:
        """Whether readers take a strided map as it lies: its pixels alone would be a map too
        small for the KPU to write, and it is worked through in no more time than the map
        that main memory would have to make of them."""
        if m.stride not in ((2, 2), (4, 4)):
            return False
        h, w = m.tensor.shape[2:]
        grown = [max(n, MIN_SIDE) for n in m.size]
        small = not self.writes(h // m.stride[0], w // m.stride[1])
        return small and pixel_rows(h, w) <= pixel_rows(*grown)

    def side_by_side(self, values: list[Value]) -> list[Map] | None:
        """The values' maps, to be read pixel by pixel together: as they lie where they do so
        alike, else of stride 1; None where one can be none."""
        lazy = [m for m in (v.map for v in values) if m is not None and self.stays(m)]
        if len(lazy) == len(values) and len({m.place for m in lazy}) == 1:
            return lazy
        maps = [self.settled(v) for v in values]
        return [m for m in maps if m is not None] if None not in maps else None

    def shifted(self, m: Map, by: tuple[int, int]) -> Map:
        """The same pixels ``by`` nearer to the origin; what falls off was not picked."""
        key = (m.tensor, by)
        tensor = self.aligned[key].tensor if key in self.aligned else m.tensor
        if tensor is m.tensor:
            dy, dx = by
            while dy or dx:
                step = (min(dy, 1), min(dx, 1))
                tensor = self.copy(tensor, tap=step)
                dy, dx = dy - step[0], dx - step[1]
            self.aligned[key] = Map.of(tensor)
        at = (m.offset[0] - by[0], m.offset[1] - by[1])
        return Map(tensor, at, m.stride, m.size, False)

    def at_origin(self, m: Map) -> Map:
        """The map with its first pixel at (0, 0)."""
        return self.shifted(m, m.offset) if m.offset != (0, 0) else m

    def pool_of_stride(self, m: Map) -> tuple[int, tuple[int, int]] | None:
        """The left-top pool that makes the map's stride real and the shift it needs first;
        None where no pool can."""
        s = m.stride[0]
        if m.stride not in ((2, 2), (4, 4)):
            return None
        shift = (m.offset[0] % s, m.offset[1] % s)
        h, w = m.tensor.shape[2:]
        if not self.writes(h // s, w // s):
            return None
        for offset, n, whole in zip(m.offset, m.size, (h, w), strict=True):
            if offset // s + n > whole // s:
                return None
        return (5 if s == 2 else 7), shift

    def after_pool(self, m: Map, tensor: Tensor) -> Map:
        """``m`` once ``tensor`` holds its strided pixels."""
        s = m.stride[0]
        offset = (m.offset[0] // s, m.offset[1] // s)
        return replace(m, tensor=tensor, offset=offset, stride=(1, 1), clean=False)

    def settled(self, v: Value) -> Map | None:
        """The value as a map of stride 1."""
        m = self.as_map(v)
        if m is None or m.stride == (1, 1):
            return self.grown(v)
        pool = self.pool_of_stride(m)
        if pool is None:
            v.map = self.uploaded(Value(v.shape, v.name, v.source, v.range, codes=self.as_codes(v)))
            return v.map
        kind, shift = pool
        copies = 1 if max(shift) else 0
        small = chunks.pooled(self, m, kind, shift) if chunks.too_large(
            self, m, copies=copies) else None  # fmt: skip
        if small is not None:
            v.map = self.after_pool(m, small)
        elif max(shift) == 1 and m.tensor.shape[1] <= 16:
            v.map = self.after_pool(m, self.copy(m.tensor, pool=kind, tap=shift))
        else:
            moved = self.shifted(m, shift) if any(shift) else m
            v.map = self.after_pool(moved, self.copy(moved.tensor, pool=kind))
        return self.grown(v)

    def grown(self, v: Value) -> Map | None:
        """The value's map, carried through main memory where it is too small to be read."""
        if v.map is not None and not fits(v.map.tensor.shape):
            v.map = self.uploaded(Value(v.shape, v.name, v.source, v.range, codes=self.as_codes(v)))
        return v.map

    def whole(self, v: Value) -> Tensor | None:
        """The value as a KPU tensor of exactly its shape."""
        m = self.settled(v)
        if m is None or m.whole:
            return m.tensor if m else None
        fresh = Value(v.shape, v.name, v.source, v.range, codes=self.as_codes(v))
        m = self.uploaded(fresh)
        if m is None or not m.whole:
            return None
        v.map = m
        return m.tensor
