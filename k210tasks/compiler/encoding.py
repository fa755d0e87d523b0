"""What both formats write alike: the registers of a layer, tables from code to code."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.ir import Op
from k210tasks.compiler.ops import KpuConv, L2Norm, Requantize, Softmax
from k210tasks.compiler.passes.place import Memory
from k210tasks.compiler.problems import PassBroke
from k210tasks.kpu.pools import Pool
from k210tasks.kpu.registers import LayerRegisters, conv_registers
from k210tasks.kpu.tables import BatchNorm


def require(op: Op, /, **said: object) -> None:
    """Raise :class:`PassBroke` unless each field has the one value that its layer means:
    what an encoder does not write down must not have been said."""
    for name, value in said.items():
        if (own := getattr(op, name)) != value:
            raise PassBroke("encode", repr(op), f"{name} {own!r} has no place in it")


def rows(op: Softmax | L2Norm) -> tuple[int, int]:
    """(vectors, values of each) of what works along an axis of neighbouring values."""
    axis, shape = op.axis, op.input.shape
    if math.prod(shape[axis + 1 :]) != 1:
        raise PassBroke("encode", repr(op), f"axis {axis} is not of neighbouring values")
    return math.prod(shape[:axis]), shape[axis]


def vector(op: Softmax | L2Norm) -> int:
    """The values of what works on one vector."""
    count, values = rows(op)
    if count != 1:
        raise PassBroke("encode", repr(op), f"{count} vectors, the layer takes one")
    return values


def registers(op: KpuConv, memory: Memory, weight_bytes: int = 1) -> LayerRegisters:
    """The registers of a KPU layer."""
    numbers = op.chosen
    _, c, h, w = op.input.shape
    return conv_registers(
        in_channels=c + op.spare * op.depthwise,
        height=h,
        width=w,
        out_channels=op.output.shape[1] + op.spare,
        kernel=op.weights.shape[2],
        depthwise=op.depthwise,
        pool=Pool(op.pool),
        src_row=memory.rows[op.input],
        dst_row=memory.rows[op.output],
        pad_value=numbers.pad_value,
        arg_x=numbers.arg_x,
        arg_w=numbers.arg_w,
        arg_add=numbers.arg_add,
        weight_bytes=weight_bytes,
    )


def blobs(op: KpuConv) -> tuple[NDArray[np.integer], BatchNorm]:
    """Weights and batch norm of a KPU layer, with zeros for its spare channel."""
    codes, bn = op.chosen.codes, op.chosen.bn
    if op.spare:
        codes = np.concatenate([codes, np.zeros_like(codes[:1])])
        bn = BatchNorm.of(*(np.append(column, 0) for column in (bn.mul, bn.shift, bn.add)))
    return codes, bn


def byte_table(op: Requantize) -> NDArray[np.uint8]:
    """uint8 [256]: the output code of a ``requantize`` for each code of its input."""
    given, made = op.input.quant, op.output.quant
    assert given is not None
    assert made is not None
    reals = functions.evaluate(op.fn, given.decode(np.arange(256)).astype(np.float64))
    return made.encode(np.nan_to_num(reals))
