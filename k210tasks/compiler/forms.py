"""The legal forms of the graph, and the checker that runs after every pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from k210tasks.compiler.agreement import faults
from k210tasks.compiler.ir import Graph, Op
from k210tasks.compiler.problems import PassBroke


@dataclass(frozen=True, slots=True)
class Form:
    """How an op of one kind looks: numbers of inputs and outputs, names of attributes, and
    the least height and width of the maps it puts out.

    ``law`` asserts what more has to hold in one format, so that every runtime of it computes
    the same.
    """

    inputs: tuple[int, int]
    attrs: tuple[str, ...] = ()
    outputs: tuple[int, int] = (1, 1)
    least: int = 1
    law: Callable[[Op], None] | None = None


#: kinds that stand for whole TFLite ops, in float, before legalise
FLOAT: dict[str, Form] = {
    "conv": Form((1, 1), ("weights", "bias", "groups", "stride", "dilation", "pads", "fn")),
    "deconv": Form((1, 1), ("weights", "bias", "stride", "pads", "fn")),
    "dense": Form((1, 1), ("weights", "bias", "fn")),
    "pool": Form((1, 1), ("op", "kernel", "stride", "pads", "fn")),
    "binary": Form((2, 2), ("op", "fn")),
    "map": Form((1, 1), ("fn",)),
    "reduce": Form((1, 1), ("op", "axes")),
    "softmax": Form((1, 1), ("beta", "axis")),
    "l2norm": Form((1, 1), ("axis",)),
    "pad": Form((1, 1), ("pads", "value")),
    "concat": Form((1, 1024), ("axis",)),
    "reshape": Form((1, 1)),
    "transpose": Form((1, 1), ("perm",)),
    "slice": Form((1, 1), ("begin", "strides")),
    "resize": Form((1, 1), ("mode", "align_corners", "half_pixel")),
}

#: kinds that stand for the layers of a kmodel
DEVICE: dict[str, Form] = {
    "kpu_conv": Form(
        (1, 1), ("weights", "bias", "depthwise", "pad_value", "fn", "pool"), (1, 2), least=4
    ),
    "kpu_concat": Form((1, 1024)),
    "kpu_part": Form((1, 1), ("first",)),
    "upload": Form((1, 1), least=4),
    "quantize": Form((1, 1)),
    "dequantize": Form((1, 1)),
    "requantize": Form((1, 1), ("fn",)),
    "turn": Form((1, 1), ("back",)),
    "add_padding": Form((1, 1)),
    "remove_padding": Form((1, 1), ("pixel",)),
    "unary": Form((1, 1), ("op",)),
}

KINDS = {**FLOAT, **DEVICE}

#: kernel and stride of the KPU's pools, and what they do (reference, section 1.5)
POOLS: dict[int, tuple[str, int, int]] = {
    0: ("none", 1, 1),
    1: ("max", 2, 2),
    2: ("mean", 2, 2),
    3: ("max", 4, 4),
    4: ("mean", 4, 4),
    5: ("left-top", 2, 2),
    6: ("right-top", 2, 2),
    7: ("left-top", 4, 4),
    8: ("mean", 2, 1),
    9: ("max", 2, 1),
}


def _windows(op: Op, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, int]:
    t, b, left, r = op.attrs["pads"]
    h, w = op.input.shape[2:]
    sy, sx = op.attrs["stride"]
    return (
        (h + t + b - (kernel[0] - 1) * dilation[0] - 1) // sy + 1,
        (w + left + r - (kernel[1] - 1) * dilation[1] - 1) // sx + 1,
    )


def _conv(op: Op) -> tuple[int, ...]:
    w, groups = op.attrs["weights"], op.attrs["groups"]
    assert w.shape[1] * groups == op.input.shape[1], "channels of kernel and input differ"
    assert op.attrs["bias"].shape == (w.shape[0],), "one bias a channel"
    return (1, w.shape[0], *_windows(op, w.shape[2:], op.attrs["dilation"]))


def _dense(op: Op) -> tuple[int, ...]:
    w = op.attrs["weights"]
    assert op.input.shape[-1] == w.shape[1], "columns of the weights and the input differ"
    return (*op.input.shape[:-1], w.shape[0])


def _pool(op: Op) -> tuple[int, ...]:
    return (*op.input.shape[:2], *_windows(op, op.attrs["kernel"], (1, 1)))


def _kpu_conv(op: Op) -> tuple[int, ...]:
    w = op.attrs["weights"]
    assert w.shape[2:] in ((1, 1), (3, 3)), "the KPU has 1x1 and 3x3 kernels"
    assert w.shape[1] == (1 if op.attrs["depthwise"] else op.input.shape[1]), "channels"
    assert not op.attrs["depthwise"] or w.shape[0] == op.input.shape[1], "channels"
    assert not (op.attrs["depthwise"] and op.attrs["pool"]), "no pool after a depthwise layer"
    assert max(op.input.shape[1], w.shape[0]) <= 1024, "at most 1024 channels"
    stride = POOLS[op.attrs["pool"]][2]
    return (1, w.shape[0], op.input.shape[2] // stride, op.input.shape[3] // stride)


def _concat(op: Op) -> tuple[int, ...]:
    axis = op.attrs.get("axis", 1)
    shape = list(op.input.shape)
    shape[axis] = sum(t.shape[axis] for t in op.inputs)
    return tuple(shape)


def _reduce(op: Op) -> tuple[int, ...]:
    return tuple(1 if i in op.attrs["axes"] else n for i, n in enumerate(op.input.shape))


def _reshape(op: Op) -> tuple[int, ...]:
    assert op.input.size == op.output.size, "a reshape keeps the number of elements"
    return op.output.shape


def _pad(op: Op) -> tuple[int, ...]:
    return tuple(n + a + b for n, (a, b) in zip(op.input.shape, op.attrs["pads"], strict=True))


def _slice(op: Op) -> tuple[int, ...]:
    rows = zip(op.input.shape, op.attrs["begin"], op.attrs["strides"], op.output.shape, strict=True)
    for n, begin, stride, count in rows:
        inside = begin >= 0 and begin + (count - 1) * stride < n
        assert inside, "a slice stays inside its input"
    return op.output.shape


def _same(op: Op) -> tuple[int, ...]:
    return op.input.shape


SHAPES: dict[str, Callable[[Op], tuple[int, ...]]] = {
    "conv": _conv,
    "dense": _dense,
    "pool": _pool,
    "binary": lambda op: np.broadcast_shapes(*(t.shape for t in op.inputs)),
    "map": _same,
    "reduce": _reduce,
    "softmax": _same,
    "l2norm": _same,
    "pad": _pad,
    "concat": _concat,
    "reshape": _reshape,
    "transpose": lambda op: tuple(op.input.shape[p] for p in op.attrs["perm"]),
    "slice": _slice,
    "kpu_conv": _kpu_conv,
    "kpu_concat": _concat,
    "kpu_part": lambda op: (1, op.output.shape[1], *op.input.shape[2:]),
    "upload": _same,
    "unary": _same,
    "quantize": _same,
    "dequantize": _same,
    "requantize": _same,
    "turn": _same,
    "add_padding": lambda op: (*op.input.shape[:2], 4, 4),
    "remove_padding": lambda op: op.input.shape[:2],
}


def no_activation(op: Op) -> None:
    """Kmodel 3: most runtimes ignore the activation of a dense layer."""
    assert not op.attrs["fn"], "a dense layer of kmodel 3 has no activation"


def _window_rows(op: Op) -> tuple[tuple[int, int, int, int], ...]:
    """Of rows and columns: pixels of input and output, stride, pixels before the first."""
    stride, before = (1, 1), (0, 0)
    if op.kind == "pool":
        stride, before = op.attrs["stride"], (op.attrs["pads"][0], op.attrs["pads"][2])
    elif op.kind == "pad":
        before = (op.attrs["pads"][2][0], op.attrs["pads"][3][0])
    elif op.kind == "slice" and not any(op.attrs["begin"]):
        stride = op.attrs["strides"][2:]
    sizes = zip(op.input.shape[2:], op.output.shape[2:], stride, before, strict=True)
    return tuple((n, m, s, b) for n, m, s, b in sizes)


def windows_within(op: Op) -> None:
    """Kmodel 3: runtimes compute how many pixels of a window lie on the map without a sign, so
    that a window that starts beyond the first pixel after the map reads what lies there. One
    that starts right after it is empty, and so is one before it; an empty one has no mean."""
    if len(op.output.shape) != 4 or (op.output.dtype == "float32" and op.kind != "pool"):
        return
    mean = op.kind == "pool" and op.attrs["op"] == "mean"
    for n, m, stride, before in _window_rows(op):
        last = (m - 1) * stride - before
        assert last <= n - mean, f"a window starts {last - n} pixels after the map"


_KPU_IN = {"kpu_conv", "kpu_concat", "kpu_part"}
_KPU_OUT = {"kpu_conv", "kpu_concat", "kpu_part", "upload", "add_padding"}


def check(graph: Graph, after: str, kinds: dict[str, Form], *, placed: bool = False) -> None:
    """Raise :class:`PassBroke` unless every op of ``graph`` has a legal form.

    ``kinds`` is the table of what may occur; ``placed``, once scales are chosen, also checks
    that feature maps are where their readers expect them and that codes mean the same to all
    (:mod:`k210tasks.compiler.agreement`).
    """
    known: set[Any] = set(graph.inputs)
    for op in graph.ops:

        def broke(what: str, op: Op = op) -> PassBroke:
            return PassBroke(after, repr(op), what)

        form = kinds.get(op.kind)
        if form is None:
            raise broke("this kind may not occur here")
        if not form.inputs[0] <= len(op.inputs) <= form.inputs[1]:
            raise broke("wrong number of inputs")
        if not form.outputs[0] <= len(op.outputs) <= form.outputs[1]:
            raise broke("wrong number of outputs")
        if missing := set(form.attrs) - set(op.attrs):
            raise broke(f"attributes missing: {sorted(missing)}")
        for tensor in op.inputs:
            if tensor.value is None and tensor not in known:
                raise broke(f"{tensor} is read before it is written")
        try:
            shape = SHAPES[op.kind](op) if op.kind in SHAPES else op.output.shape
            if form.law is not None:
                form.law(op)
        except (AssertionError, ValueError) as error:
            raise broke(str(error)) from error
        if form.least > 1 and min(shape[2:]) < form.least:
            raise broke(f"a map of less than {form.least}x{form.least} in KPU RAM")
        for tensor in op.outputs:
            if tensor in known:
                raise broke(f"{tensor} is written twice")
            if tensor.shape != tuple(shape):
                raise broke(f"the output should be {list(shape)}")
            known.add(tensor)
        if placed:
            for tensor in op.inputs:
                if (tensor.place == "kpu") != (op.kind in _KPU_IN):
                    raise broke(f"{tensor} is in the wrong memory")
            if (op.output.place == "kpu") != (op.kind in _KPU_OUT):
                raise broke("the output is in the wrong memory")
            for tensor in (*op.inputs, *op.outputs):
                if tensor.dtype == "uint8" and tensor.quant is None:
                    raise broke(f"{tensor} has codes without a scale")
    if placed:
        for op, what in faults(graph):
            raise PassBroke(after, repr(op), what)
    for tensor in graph.outputs:
        if tensor not in known and tensor.value is None:
            raise PassBroke(after, repr(tensor), "the output is never written")
