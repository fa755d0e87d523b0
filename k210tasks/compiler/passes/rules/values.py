"""Rules for constants and for functions of each value."""

from __future__ import annotations

import math

import numpy as np

from k210tasks.compiler import executor, functions
from k210tasks.compiler.ir import Op, Tensor, Within
from k210tasks.compiler.passes.rules.editor import Editor

_WEIGHTED = ("conv", "dense", "deconv")
_FUSING = ("conv", "dense", "binary", "pool", "deconv", "map")


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
    value = executor.KINDS[op.kind](op, *inputs)
    old = op.output
    e.graph.replace(old, Tensor(old.name, old.shape, value=np.asarray(value), source=old.source))
    e.remove(op)
    return True


def binary_with_scalar(e: Editor, op: Op) -> bool:
    """Adding, multiplying or limiting by one number is a function of each value."""
    if op.kind != "binary":
        return False
    a, b = op.inputs
    const = b if b.value is not None else a if a.value is not None else None
    if const is None or const.value is None or np.unique(const.value).size != 1:
        return False
    x = a if const is b else b
    if x.shape != op.output.shape:
        return False
    c = float(const.value.flat[0])
    steps: dict[str, functions.Fn] = {
        "add": (("add", c),),
        "mul": (("mul", c),),
        "sub": (("add", -c),) if const is b else (("mul", -1.0), ("add", c)),
        "min": (("clamp", -math.inf, c),),
        "max": (("clamp", c, math.inf),),
    }
    if op.attrs["op"] == "div":
        if const is b and c == 0:
            return False
        fn: functions.Fn = (("mul", 1 / c),) if const is b else (("reciprocal",), ("mul", c))
    else:
        fn = steps[op.attrs["op"]]
    op.kind, op.inputs = "map", [x]
    op.attrs = {"fn": (*fn, *op.attrs["fn"])}
    return True


def map_after(e: Editor, op: Op) -> bool:
    """A function of each value belongs to the op that computes the value."""
    if op.kind != "map":
        return False
    before = e.before(op.input)
    if before is None or before.kind not in _FUSING or not e.only_reader(op.input):
        return False
    fn = functions.simplify(before.attrs["fn"])
    if before.kind in _WEIGHTED and fn and fn[0][0] in functions.AFFINE:
        return False  # that goes into the weights first
    # What stands inside the layer tells most where nothing clamps it, and is known to the
    # clamp where something does; beyond any other function it tells nothing of the sums.
    clamp = functions.clamp_of(fn)
    inner = before.attrs.get("pre")
    if clamp is not None and (inner is None or inner[1:] != (-math.inf, math.inf)):
        before.attrs["pre"] = Within(op.input, *clamp)
    before.attrs["fn"] = functions.simplify(fn + op.attrs["fn"])
    e.absorb(op, before)
    return True


def affine_into_weights(e: Editor, op: Op) -> bool:
    """A factor or an offset right after a convolution or dense layer goes into its weights."""
    if op.kind not in _WEIGHTED or not op.attrs["fn"]:
        return False
    scale, offset, rest = functions.affine_first(op.attrs["fn"])
    if len(rest) == len(op.attrs["fn"]):
        return False
    op.attrs["weights"] = op.attrs["weights"] * np.float32(scale)
    op.attrs["bias"] = op.attrs["bias"] * np.float32(scale) + np.float32(offset)
    op.attrs["fn"] = rest
    op.attrs["pre"] = None  # the sums before it are none of the layer's any more
    return True


def empty_map(e: Editor, op: Op) -> bool:
    """A function that changes nothing goes."""
    if op.kind != "map" or functions.simplify(op.attrs["fn"]):
        return False
    e.drop(op)
    return True


def map_over_moves(e: Editor, op: Op) -> bool:
    """A function of each value comes before what only moves values, nearer to a producer."""
    if op.kind != "map":
        return False
    mover = e.before(op.input)
    if mover is None or mover.kind not in ("reshape", "transpose", "slice", "concat"):
        return False
    if not e.only_reader(op.input):
        return False
    parts = []
    for tensor in mover.inputs:
        part = Tensor(f"{tensor.name}/map", tensor.shape, range=op.output.range)
        if tensor.value is None:
            new = Op("map", [tensor], [part], dict(op.attrs), op.origin)
            e.insert_before(mover, new)
        else:
            part.value = functions.evaluate(op.attrs["fn"], tensor.value)
        parts.append(part)
    mover.inputs = parts
    mover.outputs = [op.output]
    e.remove(op)
    return True


def _from(e: Editor, tensor: Tensor) -> list[tuple[Tensor, functions.Fn]]:
    """The tensors that ``tensor`` is a function of, value by value, nearest first."""
    found: list[tuple[Tensor, functions.Fn]] = [(tensor, ())]
    while (op := e.before(tensor)) is not None and op.kind == "map":
        tensor = op.input
        found.append((tensor, op.attrs["fn"] + found[-1][1]))
    return found


def joined_functions(e: Editor, op: Op) -> bool:
    """Two functions of the same values, added, multiplied and so on, are one function."""
    if op.kind != "binary":
        return False
    a, b = op.inputs
    if a.value is not None or b.value is not None or a.shape != b.shape:
        return False
    others = dict(_from(e, b))
    for tensor, fn in _from(e, a):
        if tensor in others:
            join = ("join", op.attrs["op"], fn, others[tensor])
            op.kind, op.inputs = "map", [tensor]
            op.attrs = {"fn": (join, *op.attrs["fn"])}
            return True
    return False
