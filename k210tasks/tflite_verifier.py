"""Whether the bytes of a ``.tflite`` are what they say: asked before anything follows an offset.

Neither the schema's Python classes nor LiteRT look where an offset leads: a damaged file makes the
first raise anything, the second end the process. :func:`verify` looks at every table, vector and
string that the schema (:mod:`k210tasks.tflite_tables`) knows, then at what numbers point to:
tensors, buffers, operator codes, subgraphs, the bytes of constants, and whether what is read was
written. Nothing is copied. What ops make of their tensors is asked elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, lru_cache
from struct import Struct, error, unpack_from
from typing import NamedTuple

from k210tasks import tflite_schema
from k210tasks.errors import K210Error
from k210tasks.tflite_tables import TABLES

#: Tables within tables, at most; the schema itself needs seven.
DEEPEST = 32
#: Numbers of a tensor's shape, at most: LiteRT has arrays of this length in many ops.
MOST_DIMENSIONS = 8

#: bits of a value, by the number of its type; text and handles have no fixed size
_BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64,
         15: 32, 16: 16, 17: 4, 18: 16}  # fmt: skip
_UNSIZED = frozenset({5, 13, 14})

_U32, _I32, _U64, _U8 = Struct("<I"), Struct("<i"), Struct("<Q"), Struct("<B")


class DamagedTflite(K210Error):
    """The bytes are no TensorFlow Lite model, or a damaged one."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(f"not a usable TensorFlow Lite model: {what}")


class _Slot(NamedTuple):
    """``kind``: scalar, string, table, vector or union. ``of``: the table or enumeration; of a
    vector "" for scalars. ``size``: bytes in the table; of a vector those of an element."""

    kind: str
    of: str
    size: int


@cache
def _slots(table: str) -> tuple[_Slot | None, ...]:
    return tuple(_slot(word) for word in TABLES.get(table, "").split())


def _slot(word: str) -> _Slot | None:
    if word == "-":
        return None
    if word.isdigit():
        return _Slot("scalar", "", int(word))
    if word[0] == "[":
        inner = word[1:-1]
        return _Slot(
            "vector", "" if inner.isdigit() else inner, int(inner) if inner.isdigit() else 4
        )
    if word[0] == "<":
        return _Slot("union", word[1:-1], 4)
    return _Slot("string" if word == "string" else "table", word, 4)


#: slot -> where in the table its value lies; slots that a table leaves out are missing
_Fields = Mapping[int, int]


class _Walk:
    """Every table reachable from the root, once; ``seen`` has them by kind and place."""

    def __init__(self, data: bytes) -> None:
        self.data, self.end = data, len(data)
        self._shapes: dict[tuple[str, int, int], dict[int, int]] = {}
        self.seen: dict[tuple[str, int], None] = {}
        self._room = self.end // 4  # offsets that so many bytes can hold

    def fail(self, what: str, at: int) -> DamagedTflite:
        return DamagedTflite(f"it is damaged: {what} at byte {at} of {self.end}")

    def fields(self, table: str, at: int) -> _Fields:
        """Where the fields of a table lie, relative to it, all of them inside of the file."""
        if at & 3 or not 0 < at <= self.end - 4:
            raise self.fail(f"{table} lies outside of the file or between words,", at)
        where = at - _I32.unpack_from(self.data, at)[0]
        if where & 1 or not 0 <= where <= self.end - 4:
            raise self.fail(f"the layout of {table} lies outside of the file,", at)
        size, room = unpack_from("<HH", self.data, where)
        if size & 1 or size < 4 or where + size > self.end or at + room > self.end:
            raise self.fail(f"{table} ends outside of the file,", at)
        key = (table, where, room)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = self._layout(table, where, size, room)
        return found

    def _layout(self, table: str, where: int, size: int, room: int) -> dict[int, int]:
        found = {}
        slots = _slots(table)
        offsets = unpack_from(f"<{(size - 4) // 2}H", self.data, where + 4)
        for number, (slot, offset) in enumerate(zip(slots, offsets, strict=False)):
            if slot is None or not offset:
                continue
            width = slot.size if slot.kind == "scalar" else 4
            if offset < 4 or offset + width > room or offset % min(width, 4):
                raise self.fail(f"field {number} of {table} lies outside of it,", where)
            found[number] = offset
        return found

    def vector(self, at: int, size: int) -> tuple[int, int]:
        """First byte and length of the vector that the offset at ``at`` leads to."""
        start = at + int(_U32.unpack_from(self.data, at)[0])
        if start & 3 or start > self.end - 4:
            raise self.fail("an offset leads out of the file or between words,", at)
        length = int(_U32.unpack_from(self.data, start)[0])
        if length * size > self.end - 4 - start:
            raise self.fail(f"a vector of {length} elements ends outside of the file,", start)
        return start + 4, length

    def visit(self, table: str, at: int, depth: int = 0) -> None:
        """Look at a table and all that it leads to."""
        if (table, at) in self.seen:
            return
        self.seen[table, at] = None
        fields = self.fields(table, at)
        if depth > DEEPEST:
            raise self.fail(f"more than {DEEPEST} tables lie in each other,", at)
        slots = _slots(table)
        for number, offset in fields.items():
            slot = slots[number]
            if slot is None or slot.kind == "scalar":
                continue
            place = at + offset
            if slot.kind == "vector":
                self._vector(slot, place, depth)
            elif slot.kind == "string":
                self.text(place)
            elif slot.kind == "table":
                self.visit(slot.of, self.target(place), depth + 1)
            else:
                self._union(slot.of, number, at, fields, depth)

    def target(self, at: int) -> int:
        return at + int(_U32.unpack_from(self.data, at)[0])

    def text(self, at: int) -> None:
        start, length = self.vector(at, 1)
        if start + length >= self.end or self.data[start + length]:
            raise self.fail("a text does not end with a zero,", start)

    def _vector(self, slot: _Slot, place: int, depth: int) -> None:
        start, length = self.vector(place, slot.size)
        if not slot.of:
            return
        self._room -= length
        if self._room < 0:
            raise self.fail("more tables are named than the file can hold,", start)
        for at in range(start, start + 4 * length, 4):
            if slot.of == "string":
                self.text(at)
            else:
                self.visit(slot.of, self.target(at), depth + 1)

    def _union(self, union: str, number: int, at: int, fields: _Fields, depth: int) -> None:
        chosen = self.data[at + fields[number - 1]] if number - 1 in fields else 0
        table = tflite_schema.members(union).get(chosen)
        if table and table != "NONE":
            self.visit(table, self.target(at + fields[number]), depth + 1)

    # -- what has been looked at

    def number(self, table: str, at: int, slot: int, form: Struct, default: int = 0) -> int:
        offset = self.fields(table, at).get(slot)
        return default if offset is None else int(form.unpack_from(self.data, at + offset)[0])

    def numbers(self, table: str, at: int, slot: int, code: str = "i") -> tuple[int, ...]:
        offset = self.fields(table, at).get(slot)
        if offset is None:
            return ()
        start, length = self.vector(at + offset, Struct(code).size)
        return unpack_from(f"<{length}{code}", self.data, start)

    def tables(self, table: str, at: int, slot: int) -> list[int]:
        offset = self.fields(table, at).get(slot)
        if offset is None:
            return []
        start, length = self.vector(at + offset, 4)
        return [self.target(k) for k in range(start, start + 4 * length, 4)]

    def name(self, table: str, at: int, slot: int) -> str:
        offset = self.fields(table, at).get(slot)
        if offset is None:
            return ""
        start, length = self.vector(at + offset, 1)
        return self.data[start : start + length].decode("utf-8", "replace")


@lru_cache(maxsize=2)  # a file is read by several in turn
def verify(data: bytes) -> None:
    """Raises :class:`DamagedTflite`, naming what is wrong and where, for bytes that cannot be
    followed safely; some milliseconds for hundreds of ops, whatever their weights."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise DamagedTflite("it does not carry the identifier TFL3 at byte 4")
    walk = _Walk(data)
    try:
        root = int(_U32.unpack_from(data, 0)[0])
        walk.visit("Model", root)
        _refer(walk, root)
    except (error, RecursionError) as fault:  # none is known; then it is damage all the same
        raise DamagedTflite(f"it is damaged ({fault})") from fault


def _refer(walk: _Walk, root: int) -> None:
    """Look at everything that is named by number."""
    codes = len(walk.tables("Model", root, 1))
    graphs = walk.tables("Model", root, 2)
    buffers = walk.tables("Model", root, 4)
    if not graphs:
        raise DamagedTflite("it is damaged: it has no subgraph")
    lengths = [_bytes_of(walk, at) for at in buffers]
    for number in walk.numbers("Model", root, 5):
        _among(number, len(buffers), "buffer", "the metadata")
    for at in walk.tables("Model", root, 6):
        _among(walk.number("Metadata", at, 1, _U32), len(buffers), "buffer", "the metadata")
    tensors = [len(walk.tables("SubGraph", at, 0)) for at in graphs]
    for at in walk.tables("Model", root, 7):
        _signature(walk, at, tensors)
    for graph in graphs:
        _graph(walk, graph, codes, lengths)


def _signature(walk: _Walk, at: int, tensors: list[int]) -> None:
    graph = walk.number("SignatureDef", at, 4, _U32)
    _among(graph, len(tensors), "subgraph", "a signature")
    for which in (0, 1):
        for entry in walk.tables("SignatureDef", at, which):
            index = walk.number("TensorMap", entry, 1, _U32)
            _among(index, tensors[graph], "tensor", "a signature")


def _among(number: int, count: int, what: str, who: str) -> None:
    if not 0 <= number < count:
        raise DamagedTflite(f"it is damaged: {who} names {what} {number}, there are {count}")


def _graph(walk: _Walk, at: int, codes: int, lengths: list[int]) -> None:
    tensors = walk.tables("SubGraph", at, 0)
    #: by index: whether there is something to read before any op has run
    given = [_tensor(walk, tensor, lengths) for tensor in tensors]
    filled = bytearray(given)
    for slot, who in ((1, "the input"), (2, "the output")):
        for index in walk.numbers("SubGraph", at, slot):
            _among(index, len(tensors), "tensor", who)
            filled[index] |= slot == 1
    fixed = bytes(filled)
    for number, op in enumerate(walk.tables("SubGraph", at, 3)):
        who = f"op #{number}"
        _operator(walk, op, who, codes, len(tensors))
        for index in walk.numbers("Operator", op, 1):
            if index != -1 and not filled[index]:
                name = walk.name("Tensor", tensors[index], 3)
                raise DamagedTflite(f"tensor {name!r} is read by {who} before it is written")
        for index in walk.numbers("Operator", op, 2):
            if fixed[index] or filled[index]:
                name = walk.name("Tensor", tensors[index], 3)
                what = "an input or a constant" if fixed[index] else "written already"
                raise DamagedTflite(f"tensor {name!r} is written by {who}, but it is {what}")
        for index in walk.numbers("Operator", op, 2):
            filled[index] = 1
    for index in walk.numbers("SubGraph", at, 2):
        if not filled[index]:
            name = walk.name("Tensor", tensors[index], 3)
            raise DamagedTflite(f"output {name!r} is written by no op")


def _operator(walk: _Walk, op: int, who: str, codes: int, tensors: int) -> None:
    _among(walk.number("Operator", op, 0, _U32), codes, "operator code", who)
    for slot in (1, 2, 8):
        for index in walk.numbers("Operator", op, slot):
            if index != -1 or slot == 2:  # -1: an input that is left out
                _among(index, tensors, "tensor", who)
    if len(walk.numbers("Operator", op, 7, "b")) not in (0, len(walk.numbers("Operator", op, 1))):
        raise DamagedTflite(f"it is damaged: {who} has more marks for its inputs than inputs")
    outside = walk.number("Operator", op, 9, _U64)
    if outside and outside + walk.number("Operator", op, 10, _U64) > walk.end:
        raise DamagedTflite(f"it is damaged: the options of {who} lie outside of the file")


def _bytes_of(walk: _Walk, at: int) -> int:
    """The length of a buffer, which lies in the table or, of files beyond 2 GB, behind all."""
    fields = walk.fields("Buffer", at)
    if 0 in fields:
        _, length = walk.vector(at + fields[0], 1)
        if length:
            return length
    first, size = (walk.number("Buffer", at, k, _U64) for k in (1, 2))
    if size > 1 and first > 1:
        if first + size > walk.end:
            raise walk.fail(f"a buffer of {size} bytes ends outside of the file,", first)
        return size
    return 0


def _tensor(walk: _Walk, at: int, lengths: list[int]) -> bool:
    """Whether the tensor holds something before any op has run."""
    name = walk.name("Tensor", at, 3)
    who = f"tensor {name!r}"
    shape = walk.numbers("Tensor", at, 0)
    signature = walk.numbers("Tensor", at, 7)
    if len(shape) > MOST_DIMENSIONS or min(shape, default=0) < -1:
        raise DamagedTflite(f"{who} has the shape {_shown(shape)}")
    if signature and (len(signature) != len(shape) or min(signature) < -1):
        raise DamagedTflite(f"{who} has the shape {_shown(shape)}, signed as {_shown(signature)}")
    type_ = walk.number("Tensor", at, 1, _U8)
    if type_ not in _BITS and type_ not in _UNSIZED:
        raise DamagedTflite(f"{who} holds values of the unknown type {type_}")
    buffer = walk.number("Tensor", at, 2, _U32)
    _among(buffer, len(lengths), "buffer", who)
    quantization = walk.fields("Tensor", at).get(4)
    if quantization is not None:
        _scales(walk, walk.target(at + quantization), who, shape)
    if not (buffer and lengths[buffer]):
        return not math.prod(shape) or bool(walk.number("Tensor", at, 5, _U8))
    if 6 in walk.fields("Tensor", at) or type_ in _UNSIZED:
        return True
    wanted = (math.prod(shape) * _BITS[type_] + 7) // 8
    if wanted != lengths[buffer]:
        raise DamagedTflite(
            f"constant {name!r} of shape {list(shape)} has {lengths[buffer]} bytes, not {wanted}"
        )
    return True


def _shown(shape: tuple[int, ...]) -> str:
    few = ", ".join(map(str, shape[:MOST_DIMENSIONS]))
    return f"[{few}]" if len(shape) <= MOST_DIMENSIONS else f"[{few}, …] of {len(shape)} dimensions"


def _scales(walk: _Walk, at: int, who: str, shape: tuple[int, ...]) -> None:
    """Of one scale for all, or one for each place along an axis, with as many zero points."""
    scales = walk.numbers("QuantizationParameters", at, 2, "f")
    zeros = walk.numbers("QuantizationParameters", at, 3, "q")
    if zeros and len(zeros) != len(scales):
        raise DamagedTflite(f"{who} has {len(scales)} scales and {len(zeros)} zero points")
    if not all(0 <= s < math.inf for s in scales):
        raise DamagedTflite(f"{who} has scales that are below zero or not finite")
    if len(scales) > 1:
        axis = walk.number("QuantizationParameters", at, 6, _I32)
        if not 0 <= axis < len(shape) or shape[axis] != len(scales):
            raise DamagedTflite(
                f"{who} of shape {_shown(shape)} has {len(scales)} scales along axis {axis}"
            )
