"""Where values live while the graph is rewritten for the device, and how they get elsewhere.

A :class:`Value` is one tensor of the float graph. It may exist in several places at once:
as a feature map in KPU RAM, as codes in main memory, as floats in main memory. Each form
is made when it is first asked for and then shared.

A feature map is kept lazily: the KPU computes maps of the full size of its input, so what
a VALID or strided convolution means is *which pixels* of such a map, see :class:`Pixels`.
Only a reader that cannot look past the difference makes it real.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.passes import chunks, clamps
from k210tasks.compiler.passes.device import Device
from k210tasks.compiler.passes.maps import MIN_SIDE, Pixels, Value, fits
from k210tasks.kpu.timing import pixel_rows


def _tensor(v: Value) -> Tensor:
    """Shape, name, source and range of a value."""
    return Tensor(v.name, v.shape, source=v.source, range=v.range)


@dataclass(eq=False, slots=True)
class Lowering(Device):
    """A device graph that makes each form of a value when it is asked for."""

    def resize(self, v: Value, out: Value) -> None:
        """The device's layer that repeats or leaves out pixels, of codes where the values are
        codes."""
        lacks = self.runtime.lacks if self.version == 3 else ()
        if (v.codes is not None or v.on_kpu) and "QuantizedResizeNearestNeighbor" not in lacks:
            out.codes = self.emit(ops.Resize([self.as_codes(v)], mode="nearest"), out.shape, out)
        else:
            op = ops.Resize([self.as_floats(v)], mode="nearest")
            out.floats = self.emit(op, out.shape, out, dtype="float32")

    # -- forms of a value

    def as_floats(self, v: Value) -> Tensor:
        """Float32 in main memory."""
        if v.floats is None and v.parts and v.codes is None:
            floats = [self.as_floats(part) for part in v.parts]
            v.floats = self.emit(ops.Concat(floats, axis=1), v.shape, v, dtype="float32")
        if v.floats is None and v.unclamped is not None:
            v.floats = clamps.floats(self, _tensor(v), *v.unclamped)
        if v.floats is None:
            codes = self.as_codes(v)
            v.floats = self.emit(ops.Dequantize([codes]), v.shape, v, dtype="float32")
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
            v.codes = clamps.codes(self, _tensor(v), *v.unclamped)
        else:
            v.codes = self.emit(ops.Quantize([self.as_floats(v)]), v.shape, v)
        return v.codes

    def _codes_of_map(self, v: Value, m: Pixels) -> Tensor:
        if m.whole:
            return self.main_copy(m.tensor)
        if self.version == 3:
            m = self.at_origin(m)
        if m.whole:
            return self.main_copy(m.tensor)
        picked = ops.Slice(
            [self.main_copy(m.tensor)], begin=(0, 0, *m.offset), strides=(1, 1, *m.stride)
        )
        return self.emit(picked, (1, m.tensor.shape[1], *m.size), v)

    def _codes_of_vector(self, v: Value, tensor: Tensor, pixel: ops.Pair) -> Tensor:
        main = self.main_copy(tensor)
        c = tensor.shape[1]
        if self.version == 3:
            return self.emit(ops.RemovePadding([main], pixel=pixel), (1, c), v)
        picked = ops.Slice([main], begin=(0, 0, *pixel), strides=(1, 1, 1, 1))
        return self.emit(ops.Reshape([self.emit(picked, (1, c, 1, 1))]), (1, c), v)

    def bare(self, v: Value) -> Value:
        """The value as codes in main memory, and in no other form."""
        return Value(v.shape, v.name, v.source, v.range, codes=self.as_codes(v))

    def as_map(self, v: Value) -> Pixels | None:
        """In KPU RAM as a map; None for a value that can be none."""
        if v.map is None and len(v.shape) == 4:
            v.map = self.uploaded(v)
        return v.map

    def uploaded(self, v: Value) -> Pixels | None:
        """A map made from the codes in main memory, with zeros around if it is too small."""
        _, c, h, w = v.shape
        grow = (max(0, MIN_SIDE - h), max(0, MIN_SIDE - w))
        if not fits((1, c, h + grow[0], w + grow[1])):
            return None
        if grow == (0, 0):
            codes = self.as_codes(v)
            return Pixels.of(self.emit(ops.Upload([codes]), v.shape, v, place="kpu"))
        return self.padded(v, (0, grow[0], 0, grow[1]))

    def padded(self, v: Value, pads: ops.Pads) -> Pixels:
        """The value with zeros around it (top, bottom, left, right), uploaded."""
        top, bottom, left, right = pads
        _, c, h, w = v.shape
        shape = (1, c, h + top + bottom, w + left + right)
        wide = self.zeros_around(
            self.as_codes(v), shape, ((0, 0), (0, 0), (top, bottom), (left, right))
        )
        on_kpu = self.emit(ops.Upload([wide]), shape, place="kpu")
        return Pixels(on_kpu, (top, left), (1, 1), (h, w), True)

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
            return self.emit(ops.Pad([codes], pads=pads), shape)
        turned = self.emit(ops.Turn([codes], back=False), codes.shape)
        before = [a for a, _ in pads]
        left = [b for _, b in pads]
        wide = turned
        while True:
            step = tuple((a, min(b, 1)) for a, b in zip(before, left, strict=True))
            size = tuple(n + a + b for n, (a, b) in zip(wide.shape, step, strict=True))
            wide = self.emit(ops.Pad([wide], pads=step), size)
            before, left = [0] * len(pads), [b - min(b, 1) for b in left]
            if not any(left):
                break
        return self.emit(ops.Turn([wide], back=True), shape)

    # -- geometry of lazy maps

    def writes(self, h: int, w: int) -> bool:
        """Whether the KPU may put out a map of this size."""
        return self.small or min(h, w) >= MIN_SIDE

    def stays(self, m: Pixels) -> bool:
        """Whether readers take a strided map as it lies: its pixels alone would be a map too
        small for the KPU to write, and it is worked through in no more time than the map
        that main memory would have to make of them."""
        if m.stride not in ((2, 2), (4, 4)):
            return False
        h, w = m.tensor.shape[2:]
        grown = [max(n, MIN_SIDE) for n in m.size]
        small = not self.writes(h // m.stride[0], w // m.stride[1])
        return small and pixel_rows(h, w) <= pixel_rows(*grown)

    def side_by_side(self, values: list[Value]) -> list[Pixels] | None:
        """The values' maps, to be read pixel by pixel together: as they lie where they do so
        alike, else of stride 1; None where one can be none."""
        lazy = [m for m in (v.map for v in values) if m is not None and self.stays(m)]
        if len(lazy) == len(values) and len({m.place for m in lazy}) == 1:
            return lazy
        maps = [self.settled(v) for v in values]
        return [m for m in maps if m is not None] if None not in maps else None

    def shifted(self, m: Pixels, by: ops.Pair) -> Pixels:
        """The same pixels ``by`` nearer to the origin; what falls off was not picked."""
        key = (m.tensor, by)
        tensor = self.aligned[key].tensor if key in self.aligned else m.tensor
        if tensor is m.tensor:
            dy, dx = by
            while dy or dx:
                step = (min(dy, 1), min(dx, 1))
                tensor = self.copy(tensor, tap=step)
                dy, dx = dy - step[0], dx - step[1]
            self.aligned[key] = Pixels.of(tensor)
        at = (m.offset[0] - by[0], m.offset[1] - by[1])
        return Pixels(tensor, at, m.stride, m.size, False)

    def at_origin(self, m: Pixels) -> Pixels:
        """The map with its first pixel at (0, 0)."""
        return self.shifted(m, m.offset) if m.offset != (0, 0) else m

    def pool_of_stride(self, m: Pixels) -> tuple[int, ops.Pair] | None:
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

    def after_pool(self, m: Pixels, tensor: Tensor) -> Pixels:
        """``m`` once ``tensor`` holds its strided pixels."""
        s = m.stride[0]
        offset = (m.offset[0] // s, m.offset[1] // s)
        return replace(m, tensor=tensor, offset=offset, stride=(1, 1), clean=False)

    def settled(self, v: Value) -> Pixels | None:
        """The value as a map of stride 1."""
        m = self.as_map(v)
        if m is None or m.stride == (1, 1):
            return self.grown(v)
        pool = self.pool_of_stride(m)
        if pool is None:
            v.map = self.uploaded(self.bare(v))
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

    def grown(self, v: Value) -> Pixels | None:
        """The value's map, carried through main memory where it is too small to be read."""
        if v.map is not None and not fits(v.map.tensor.shape):
            v.map = self.uploaded(self.bare(v))
        return v.map

    def whole(self, v: Value) -> Tensor | None:
        """The value as a KPU tensor of exactly its shape."""
        m = self.settled(v)
        if m is None or m.whole:
            return m.tensor if m else None
        m = self.uploaded(self.bare(v))
        if m is None or not m.whole:
            return None
        v.map = m
        return m.tensor
