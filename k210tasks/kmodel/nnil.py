"""The bytecode of v4's nnil_unary_method: a stack machine run per element (docs, section 3.4)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from k210tasks.kmodel.errors import KmodelError

STACK_LIMIT = 64
#: Longest program that is accepted; real ones have a dozen instructions.
MAX_INSTRUCTIONS = 4096


class Op(NamedTuple):
    name: str
    pops: int
    pushes: int


OPS: dict[int, Op] = {
    0x00: Op("nop", 0, 0),
    0x01: Op("dup", 1, 2),
    0x02: Op("pop", 1, 0),
    0x03: Op("push_x", 0, 1),
    0x04: Op("push_0", 0, 1),
    0x05: Op("push_1", 0, 1),
    0x06: Op("push", 0, 1),  # a float32 follows
    0x20: Op("abs", 1, 1),
    0x21: Op("ceil", 1, 1),
    0x22: Op("cos", 1, 1),
    0x23: Op("exp", 1, 1),
    0x24: Op("floor", 1, 1),
    0x25: Op("log", 1, 1),
    0x26: Op("neg", 1, 1),
    0x27: Op("rsqrt", 1, 1),
    0x28: Op("sin", 1, 1),
    0x29: Op("square", 1, 1),
    0x40: Op("add", 2, 1),
    0x41: Op("sub", 2, 1),
    0x42: Op("mul", 2, 1),
    0x43: Op("div", 2, 1),
    0x44: Op("min", 2, 1),
    0x45: Op("max", 2, 1),
    0x80: Op("clamp", 3, 1),
    0xA0: Op("ret", 1, 0),
}
CODES = {op.name: code for code, op in OPS.items()}


class Instruction(NamedTuple):
    name: str
    literal: float = 0.0


def decode(code: bytes, offset: int | None, field: str) -> list[Instruction]:
    """The instructions up to and including ``ret``, the stack checked at every step."""
    program: list[Instruction] = []
    position = depth = 0
    while len(program) < MAX_INSTRUCTIONS:
        at = None if offset is None else offset + position
        if position >= len(code):
            raise KmodelError(at, field, "the program ends without a return")
        op = OPS.get(code[position])
        if op is None:
            raise KmodelError(at, field, f"0x{code[position]:02x} is no instruction")
        position += 1
        literal = 0.0
        if op.name == "push":
            if position + 4 > len(code):
                raise KmodelError(at, field, "the program ends inside a literal")
            (literal,) = struct.unpack_from("<f", code, position)
            position += 4
        if depth < op.pops:
            raise KmodelError(
                at, field, f"{op.name} needs {op.pops} values, the stack holds {depth}"
            )
        depth += op.pushes - op.pops
        if depth > STACK_LIMIT:
            raise KmodelError(at, field, f"the stack exceeds {STACK_LIMIT} values")
        program.append(Instruction(op.name, literal))
        if op.name == "ret":
            return program
    raise KmodelError(offset, field, f"more than {MAX_INSTRUCTIONS} instructions")


def encode(program: list[Instruction]) -> bytes:
    """Bytecode of a program; the inverse of :func:`decode`."""
    out = bytearray()
    for name, literal in program:
        out.append(CODES[name])
        if name == "push":
            out += struct.pack("<f", literal)
    return bytes(out)
