"""Rules for constants and for functions of each value."""

from __future__ import annotations

import math

import numpy as np

from k210tasks.compiler import executor, functions, ops
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes.rules.editor import Editor

_WEIGHTED = (ops.Conv, ops.Dense, ops.Deconv)


def constants_per_image(e: Editor, op: Op) -> bool:
    """Constants are float32 from here on."""
    changed = False
    for tensor in op.inputs:
        if tensor.value is not None and tensor.value.dtype != np.float32:
            tensor.value = tensor.value.astype(np.float32)
            changed = True
    return changed


def fold_constants(e: Editor, op: Op) -> bool:
    """An op on constants is a constant."""
    if not op.inputs or any(t.value is None for t in op.inputs):
        return False
    inputs = [np.asarray(t.value, np.float32) for t in op.inputs]
    old, value = op.output, executor.compute(op, *inputs)
    e.graph.replace(old, Tensor(old.name, old.shape, value=value, source=old.source))
    e.remove(op)
    return True


def binary_with_scalar(e: Editor, op: Op) -> bool:
    """Adding, multiplying or limiting by one number is a function of each value."""
    if not isinstance(op, ops.Binary):
        return False
    a, b = op.inputs
    const = b if b.value is not None else a if a.value is not None else None
    if const is None or const.value is None or np.unique(const.value).size != 1:
        return False
    x = a if const is b else b
    if x.shape != op.output.shape:
        return False
    c = float(const.value.flat[0])
    known: dict[str, functions.Fn] = {
        "add": (("add", c),),
        "mul": (("mul", c),),
        "sub": (("add", -c),) if const is b else (("mul", -1.0), ("add", c)),
        "min": (("clamp", -math.inf, c),),
        "max": (("clamp", c, math.inf),),
    }
    if op.how == "div":
        if const is b and c == 0:
            return False
        fn: functions.Fn = (("mul", 1 / c),) if const is b else (("reciprocal",), ("mul", c))
    else:
        fn = known[op.how]
    return e.put(ops.Map([x], fn=(*fn, *op.fn)), op)


def map_after(e: Editor, op: Op) -> bool:
    """A function of each value belongs to the op that computes the value."""
    before = e.before(op.input) if isinstance(op, ops.Map) else None
    if (
        not isinstance(op, ops.Map)
        or not isinstance(before, ops.Activated)
        or not e.only_reader(op.input)
    ):
        return False
    fn = functions.simplify(before.fn)
    if isinstance(before, _WEIGHTED) and fn and fn[0][0] in functions.AFFINE:
        return False  # that goes into the weights first
    # What stands inside the layer tells most where nothing clamps it, and is known to the
    # clamp where something does; beyond any other function it tells nothing of the sums.
    clamp = functions.clamp_of(fn)
    if clamp is not None and (before.pre is None or before.pre[1:] != (-math.inf, math.inf)):
        before.pre = ops.Within(op.input, *clamp)
    before.fn = functions.simplify(fn + op.fn)
    e.absorb(op, before)
    return True


def affine_into_weights(e: Editor, op: Op) -> bool:
    """A factor or an offset right after a convolution or dense layer goes into its weights."""
    if not isinstance(op, _WEIGHTED) or not op.fn:
        return False
    scale, offset, rest = functions.affine_first(op.fn)
    if len(rest) == len(op.fn):
        return False
    op.weights = op.weights * np.float32(scale)
    op.bias = op.bias * np.float32(scale) + np.float32(offset)
    op.fn, op.pre = rest, None  # the sums before it are none of the layer's any more
    return True


def empty_map(e: Editor, op: Op) -> bool:
    """A function that changes nothing goes."""
    if not isinstance(op, ops.Map) or functions.simplify(op.fn):
        return False
    e.drop(op)
    return True


def map_over_moves(e: Editor, op: Op) -> bool:
    """A function of each value comes before what only moves values, nearer to a producer."""
    if not isinstance(op, ops.Map):
        return False
    mover = e.before(op.input)
    if not isinstance(mover, (ops.Reshape, ops.Transpose, ops.Slice, ops.Concat)):
        return False
    if not e.only_reader(op.input):
        return False
    parts = []
    for tensor in mover.inputs:
        part = Tensor(f"{tensor.name}/map", tensor.shape, range=op.output.range)
        if tensor.value is None:
            e.insert_before(mover, ops.Map([tensor], [part], op.origin, fn=op.fn, pre=op.pre))
        else:
            part.value = functions.evaluate(op.fn, tensor.value)
        parts.append(part)
    mover.inputs = parts
    mover.outputs = [op.output]
    e.remove(op)
    return True


def _from(e: Editor, tensor: Tensor) -> list[tuple[Tensor, functions.Fn]]:
    """The tensors that ``tensor`` is a function of, value by value, nearest first."""
    found: list[tuple[Tensor, functions.Fn]] = [(tensor, ())]
    while isinstance(op := e.before(tensor), ops.Map):
        tensor = op.input
        found.append((tensor, op.fn + found[-1][1]))
    return found


def joined_functions(e: Editor, op: Op) -> bool:
    """Two functions of the same values, added, multiplied and so on, are one function."""
    if not isinstance(op, ops.Binary):
        return False
    a, b = op.inputs
    if a.value is not None or b.value is not None or a.shape != b.shape:
        return False
    others = dict(_from(e, b))
    for tensor, fn in _from(e, a):
        if tensor in others:
            join = ("join", op.how, fn, others[tensor])
            return e.put(ops.Map([tensor], fn=(join, *op.fn)), op)
    return False
