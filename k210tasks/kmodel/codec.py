"""Reading and writing records whose dataclass declaration is their format.

A field is annotated with a :class:`Packed`, :class:`Array` or :class:`Rest`; fields without
one are not part of the format. Little endian throughout. Every read is checked against the
bytes that are really there before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.errors import KmodelError, Truncated


@dataclasses.dataclass(frozen=True)
class Packed:
    """A ``struct`` format; ``make`` builds the value from several items (None: one plain item)."""

    fmt: str
    make: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class Array:
    """An array whose shape follows from fields read before it."""

    dtype: str
    shape: Callable[[Any], tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of as many :class:`Packed` records as the field ``count`` says."""

    packed: Packed
    count: Callable[[Any], int]
    limit: int


@dataclasses.dataclass(frozen=True)
class Rest:
    """Raw bytes up to the end of the body; what pads it to 8 bytes comes along."""


@dataclasses.dataclass(eq=False, repr=False)
class Record:
    """Base of the bodies, which are many: what dataclasses would generate for each is here once.

    It keeps the import of a format, which every start of a compiler pays, to half.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__ is None:  # else dataclass spells one out of the signature it inspects
            cls.__doc__ = f"The fields of {cls.__name__} in the order of the file."

    def __repr__(self) -> str:
        shown = [f for f in dataclasses.fields(self) if f.repr]
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in shown)
        return f"{type(self).__name__}({values})"


class MemoryRange(NamedTuple):
    """Bytes of one of a v4 model's three memories (docs, section 3.1)."""

    memory_type: int  # 0 constants, 1 main memory, 2 KPU RAM
    datatype: int  # 0 float32, 1 uint8
    start: int  # byte offset
    size: int  # bytes; KPU RAM: of whole rows

    @property
    def itemsize(self) -> int:
        return 1 if self.datatype == 1 else 4


class QuantParam(NamedTuple):
    """``q = x * scale + zero_point``: scale is levels per unit."""

    zero_point: int
    scale: float


class Scalar(NamedTuple):
    datatype: int
    payload: bytes  # 4


class Range(NamedTuple):
    low: float
    high: float


class Pad(NamedTuple):
    before: int
    after: int  # may be negative: crop


class Shape(NamedTuple):
    n: int
    c: int
    h: int
    w: int


FLT_MAX = 3.4028234663852886e38
NO_RANGE = Range(-FLT_MAX, FLT_MAX)
CONST, MAIN, KPU = 0, 1, 2
FLOAT32, UINT8 = 0, 1

U32 = Annotated[int, Packed("I")]
I32 = Annotated[int, Packed("i")]
F32 = Annotated[float, Packed("f")]
Mem = Annotated[MemoryRange, Packed("4I", MemoryRange)]
ShapeField = Annotated[Shape, Packed("4i", Shape)]
PadField = Annotated[Pad, Packed("2i", Pad)]
RangeField = Annotated[Range, Packed("2f", Range)]
QuantField = Annotated[QuantParam, Packed("if", QuantParam)]
ScalarField = Annotated[Scalar, Packed("I4s", Scalar)]


class Reader:
    """A cursor over one model's bytes that stops at ``end`` and names what it was reading."""

    def __init__(self, data: memoryview, pos: int = 0, end: int | None = None, what: str = ""):
        self.data, self.pos, self.what = data, pos, what
        self.end = len(data) if end is None else end

    def name(self, field: str) -> str:
        return f"{self.what}: {field}" if self.what else field

    def fail(self, field: str, problem: str, offset: int | None = None) -> KmodelError:
        """An error about ``field`` at the cursor, to be raised by the caller."""
        return KmodelError(self.pos if offset is None else offset, self.name(field), problem)

    def need(self, field: str, size: int) -> None:
        """Raise :class:`Truncated` unless ``size`` more bytes are there."""
        if size > self.end - self.pos:
            raise Truncated(self.pos, self.name(field), size, self.end - self.pos)

    def unpack(self, field: str, fmt: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + fmt)
        self.need(field, size)
        values = struct.unpack_from("<" + fmt, self.data, self.pos)
        self.pos += size
        return values

    def u32(self, field: str) -> int:
        return int(self.unpack(field, "I")[0])

    def bytes(self, field: str, size: int) -> memoryview:
        self.need(field, size)
        view = self.data[self.pos : self.pos + size]
        self.pos += size
        return view

    def array(self, field: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A read-only view of the file's own bytes."""
        count = 1
        for n in shape:
            if n < 0:
                raise self.fail(field, f"shape {shape} has a negative dimension")
            count *= n
        size = count * np.dtype(dtype).itemsize
        raw = self.bytes(field, size)
        try:
            return np.frombuffer(raw, dtype).reshape(shape) if count else np.zeros(shape, dtype)
        except ValueError:  # no elements, in dimensions numpy cannot multiply
            raise self.fail(field, f"shape {shape} is absurd") from None


@cache
def record_fields(cls: type) -> tuple[tuple[str, Any], ...]:
    """(name, codec) of every field of ``cls`` that is part of the format, in order."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if get_origin(hint) is Annotated:
            found.append((field.name, get_args(hint)[1]))
    return tuple(found)


class _Partial:
    """What has been read of a record so far; shapes of later fields look at it."""


def read_record(cls: type, reader: Reader) -> dict[str, Any]:
    """The format fields of ``cls`` from ``reader``, as keyword arguments of its constructor."""
    partial = _Partial()
    for name, codec in record_fields(cls):
        setattr(partial, name, read_field(name, codec, partial, reader))
    return vars(partial)


def read_field(name: str, codec: Any, partial: Any, reader: Reader) -> Any:
    """One field of a record; see :func:`read_record`."""
    if isinstance(codec, Packed):
        values = reader.unpack(name, codec.fmt)
        return codec.make(*values) if codec.make else values[0]
    if isinstance(codec, Array):
        return reader.array(name, codec.dtype, codec.shape(partial))
    if isinstance(codec, Items):
        count = codec.count(partial)
        if not 0 <= count <= codec.limit:
            raise reader.fail(name, f"{count} entries; at most {codec.limit} are accepted")
        reader.need(name, count * struct.calcsize("<" + codec.packed.fmt))
        make = codec.packed.make or (lambda value: value)
        return [make(*reader.unpack(f"{name}[{i}]", codec.packed.fmt)) for i in range(count)]
    return bytes(reader.bytes(name, reader.end - reader.pos))


def write_record(obj: Any, out: bytearray, what: str) -> None:
    """Append the format fields of ``obj`` to ``out``."""
    cls: type = type(obj)
    for name, codec in record_fields(cls):
        write_field(name, codec, obj, out, what)


def write_field(name: str, codec: Any, obj: Any, out: bytearray, what: str) -> None:
    """One field of a record; raises :class:`KmodelError` for a value that does not fit."""
    value = getattr(obj, name)
    try:
        if isinstance(codec, Packed):
            out += struct.pack("<" + codec.fmt, *(value if codec.make else (value,)))
        elif isinstance(codec, Array):
            out += fitted(value, codec.dtype, codec.shape(obj), f"{what}: {name}")
        elif isinstance(codec, Items):
            if len(value) != codec.count(obj):
                raise KmodelError(
                    None, f"{what}: {name}", f"{len(value)} entries, not {codec.count(obj)}"
                )
            for item in value:
                row = item if codec.packed.make else (item,)
                out += struct.pack("<" + codec.packed.fmt, *row)
        else:
            out += value
    except (struct.error, TypeError, OverflowError) as error:
        raise KmodelError(None, f"{what}: {name}", f"{value!r} does not fit: {error}") from error


def fitted(value: Any, dtype: str, shape: tuple[int, ...], what: str) -> bytes:
    """``value`` as the bytes of an array of ``dtype``; its element count must be ``shape``'s."""
    array = np.asarray(value)
    size = int(np.prod(shape, dtype=np.int64))
    if array.size != size:
        raise KmodelError(None, what, f"shape {array.shape}; {shape} is needed")
    target = np.dtype(dtype)
    if target.kind in "iu" and array.dtype.kind in "iu":
        info = np.iinfo(target)
        if size and not info.min <= array.min() <= array.max() <= info.max:
            raise KmodelError(
                None, what, f"values {array.min()}..{array.max()} do not fit {target}"
            )
    elif not np.can_cast(array.dtype, target, "same_kind"):
        raise KmodelError(None, what, f"elements of type {array.dtype}; {target} is needed")
    return array.astype(target).tobytes()
