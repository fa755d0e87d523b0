"""Damages frozen TensorFlow graphs, ``.pb``, by the grammar of their encoding: each must be
converted, or refused in words, and TensorFlow's worker, which nothing of the file may make ours,
must not hang or fill the memory.

    python tests/fuzz_graphs.py [--cases 3000] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import copy
import functools
import random
import signal
import struct
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks import toolchains
from k210tasks.steps.signature import read_signature
from k210tasks.toolchains import tensorflow
from k210tasks.toolchains.errors import WorkerDied
from k210tasks.toolchains.toolchain import PythonToolchain
from tests import fuzzing

WORKSPACE = Path(__file__).resolve().parents[1] / "workspace"
WHOLE = (0, 1, 2, 7, 19, 63, 127, 1 << 16, 1 << 20, (1 << 31) - 1, (1 << 63) - 1, (1 << 64) - 1)
WORDS = (
    b"Placeholder", b"Const", b"Conv2D", b"MatMul", b"Softmax", b"VariableV2", b"NoOp", b"While",
    b"^x", b"x:1", b"w", b"input", b"output", b"", b"\x1b[31m", b"\xff\xfe", b"a" * 300,
)  # fmt: skip

#: a message: fields of (number, wire type, value), the value a message where it can be read as one
Message: TypeAlias = list[tuple[int, int, "int | bytes | Message"]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def encoded(message: Message) -> bytes:
    out = bytearray()
    for number, wire, value in message:
        out += varint(number << 3 | wire)
        if isinstance(value, int):
            out += varint(value)
        elif wire == 2:
            inner = value if isinstance(value, bytes) else encoded(value)
            out += varint(len(inner)) + inner
        else:
            out += value if isinstance(value, bytes) else encoded(value)
    return bytes(out)


def decoded(data: bytes, depth: int = 0) -> Message | None:
    """None for what is no message."""
    at, found = 0, Message()
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            value: int | bytes | Message
            if wire == 0:
                value, at = _varint(data, at)
            else:
                size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
                value, at = data[at : at + size], at + size
                inner = decoded(value, depth + 1) if wire == 2 and size < 1000 > depth else None
                value = inner if inner else value
            if not 0 < number < 100 or at > len(data):
                return None
            found.append((number, wire, value))
    except (IndexError, KeyError):
        return None
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1


def tiny() -> bytes:
    """A dense layer with softmax: four inputs, three scores."""

    def attr(name: bytes, value: Message) -> tuple[int, int, Message]:
        return (5, 2, [(1, 2, name), (2, 2, value)])

    def shape(*sizes: int) -> Message:
        return [(2, 2, [(1, 0, size)]) for size in sizes]

    def node(name: bytes, op: bytes, inputs: tuple[bytes, ...], *attrs: object) -> Message:
        head: Message = [(1, 2, name), (2, 2, op), *((3, 2, i) for i in inputs)]
        return [*head, *attrs]  # type: ignore[list-item]

    real: Message = [(6, 0, 1)]
    size = attr(b"shape", [(7, 2, shape(1, 4))])
    weights = struct.pack("<12f", *(n / 7 - 1 for n in range(12)))
    tensor: Message = [(1, 0, 1), (2, 2, shape(4, 3)), (4, 2, weights)]
    nodes = [
        node(
            b"input",
            b"Placeholder",
            (),
            attr(b"dtype", real),
            size,
        ),
        node(b"w", b"Const", (), attr(b"dtype", real), attr(b"value", [(8, 2, tensor)])),
        node(b"scores", b"MatMul", (b"input", b"w"), attr(b"T", real)),
        node(b"output", b"Softmax", (b"scores",), attr(b"T", real)),
    ]
    return encoded([*((1, 2, made) for made in nodes), (4, 2, [(1, 0, 1087)])])


@functools.cache
def seeds() -> list[bytes]:
    return [tiny(), tiny(), tiny(), (WORKSPACE / "digits.pb").read_bytes()]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Fields changed, left out, doubled, exchanged, all lengths right; or bytes of it."""
    message = decoded(data)
    if message is None or rng.random() < 0.1:
        return fuzzing.mutate_bytes(rng, data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = _places(message)
        if not places:
            break
        inside, at = rng.choice(places)
        other, there = rng.choice(places)
        number, wire, value = inside[at]
        how = rng.randrange(6)
        if how == 0:
            del inside[at]
        elif how == 1:
            inside.insert(at, copy.deepcopy(inside[at]))
        elif how == 2:
            inside[at] = copy.deepcopy(other[there])
        elif how == 3:
            inside[at] = (rng.randint(1, 12), rng.choice((wire, 0, 2)), value)
        elif isinstance(value, int):
            inside[at] = (number, wire, rng.choice(WHOLE))
        elif isinstance(value, bytes):
            new = fuzzing.mutate_bytes(rng, value) if rng.random() < 0.4 else rng.choice(WORDS)
            inside[at] = (number, wire, new)
    return encoded(message)


def _places(message: Message) -> list[tuple[Message, int]]:
    found = []
    for at, (_, _, value) in enumerate(message):
        found.append((message, at))
        if isinstance(value, list):
            found += _places(value)
    return found


@functools.cache
def _tool() -> PythonToolchain:
    tool = toolchains.get("tensorflow")
    assert isinstance(tool, PythonToolchain)
    return tool


def warm_up() -> None:
    """TensorFlow takes seconds to start, which are no case's."""
    left = signal.alarm(0)
    convert(tiny())
    signal.alarm(left)


def convert(data: bytes) -> str:
    """The names that TensorFlow's worker tells, and the shape of the file that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "g.pb"), Path(folder, "g.tflite")
        source.write_bytes(data)
        with Path(folder, "log").open("w", encoding="utf-8") as log:
            told = tensorflow.convert(
                _tool(), source=source, kind="pb", inputs=None, outputs=None, out=out, log=log
            )
        read_signature(out.read_bytes(), "g.tflite")
        return " ".join((*told["inputs"], *told["outputs"])).encode("unicode_escape").decode()


def converted(data: bytes) -> str:
    before = _peak()
    try:
        return convert(data)
    except WorkerDied:
        warm_up()
        before = _peak()
        raise
    finally:
        if (took := _peak() - before) > fuzzing.MEMORY:
            raise MemoryError(f"TensorFlow took {took >> 20} MiB")


def _peak() -> int:
    """Of the worker's memory."""
    process = _tool().worker()._process
    assert process is not None
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) << 10


if __name__ == "__main__":
    given = fuzzing.arguments("frozen graphs", 3000).parse_args()
    _tool().require()
    sys.exit(fuzzing.reported("graphs", converted, seeds(), mutate, given, warm_up))
