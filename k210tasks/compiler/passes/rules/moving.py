"""Rules for what only moves values."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler import executor
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.ops import Concat, Conv, Dense, Pad, Reshape, Resize, Slice, Transpose
from k210tasks.compiler.passes.rules.editor import Editor


def pad_after_pad(e: Editor, op: Op) -> bool:
    """Two pads of one value are one; a pad of nothing is none."""
    if not isinstance(op, Pad):
        return False
    if not any(a or b for a, b in op.pads):
        e.drop(op)
        return True
    before = e.before(op.input)
    if not isinstance(before, Pad) or before.value != op.value:
        return False
    pairs = zip(before.pads, op.pads, strict=True)
    op.pads = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
    op.inputs = [before.input]
    return True


def _moves_ones_only(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    real = [p for p in perm if shape[p] != 1]
    return real == sorted(real)


def transposes(e: Editor, op: Op) -> bool:
    """A transpose that moves nothing, or dimensions of one, is a reshape; two are one."""
    if not isinstance(op, Transpose):
        return False
    perm = op.perm
    if perm == tuple(range(len(perm))):
        e.drop(op)
        return True
    if _moves_ones_only(op.input.shape, perm):
        return e.put(Reshape(op.inputs), op)
    before = e.before(op.input)
    if isinstance(before, Transpose):
        op.perm = tuple(before.perm[p] for p in perm)
        op.inputs = [before.input]
        return True
    return False


def reshapes(e: Editor, op: Op) -> bool:
    """A reshape to the same shape goes; two reshapes are one."""
    if not isinstance(op, Reshape):
        return False
    if op.input.shape == op.output.shape:
        e.drop(op)
        return True
    before = e.before(op.input)
    if isinstance(before, Reshape):
        op.inputs = [before.input]
        return True
    return False


def dense_takes_any_order(e: Editor, op: Op) -> bool:
    """Instead of its input being flattened in TFLite's order, a dense layer's columns move."""
    if not isinstance(op, Dense) or op.input.shape[0] != 1:
        return False
    reshape = e.before(op.input)
    transpose = e.before(reshape.input) if isinstance(reshape, Reshape) else None
    if reshape is None or not isinstance(transpose, Transpose):
        return False
    numbers = np.arange(op.input.size).reshape(transpose.input.shape)
    order = numbers.transpose(transpose.perm).ravel()
    columns = np.empty_like(order)
    columns[order] = np.arange(order.size)
    flat = Tensor(f"{transpose.input.name}/flat", op.input.shape)
    e.insert_before(op, Reshape([transpose.input], [flat], reshape.origin))
    op.weights = np.ascontiguousarray(op.weights[:, columns])
    op.inputs = [flat]
    return True


def concat_of_one(e: Editor, op: Op) -> bool:
    """A concatenation of one tensor goes; a slice of everything too."""
    same = isinstance(op, Concat) and len(op.inputs) == 1
    whole = isinstance(op, Slice) and op.input.shape == op.output.shape
    if not (same or whole):
        return False
    e.drop(op)
    return True


_MOVERS = (Reshape, Transpose, Concat, Slice, Resize)
_MOST_MOVERS = 12


def _chain(e: Editor, op: Op) -> list[Op]:
    """The movers that end in ``op``, each of one tensor, from the first on."""
    chain = [op]
    while len(chain) < _MOST_MOVERS:
        before = e.before(chain[-1].input)
        if not isinstance(before, _MOVERS) or len(set(before.inputs)) > 1:
            break
        if isinstance(before, Resize) and before.mode != "nearest":
            break
        chain.append(before)
    return chain[::-1]


def recognised_moves(e: Editor, op: Op) -> bool:
    """Reshapes, transposes and repetitions that together double a map's pixels or reorder its
    channels are that: found by moving the numbers of the values about."""
    if not isinstance(op, (Reshape, Transpose, Concat)) or len(op.output.shape) != 4:
        return False
    chain = _chain(e, op) if len(set(op.inputs)) == 1 else []
    odd = [m for m in chain if isinstance(m, Concat) or len(m.output.shape) > 4]
    start = chain[0].input if chain else None
    if not odd or start is None or len(start.shape) != 4 or start.value is not None:
        return False
    numbers = np.arange(start.size).reshape(start.shape)
    moved = numbers
    for mover in chain:
        moved = executor.compute(mover, *[moved] * len(mover.inputs))
    _, c, h, w = start.shape
    _, channels, rows, columns = moved.shape
    whole = (channels, rows % h, columns % w) == (c, 0, 0)
    if whole and np.array_equal(moved, numbers.repeat(rows // h, 2).repeat(columns // w, 3)):
        return e.put(Resize([start], mode="nearest"), op)
    if (rows, columns) == (h, w):
        order = moved[0, :, 0, 0] // (h * w)
        if np.array_equal(moved, numbers[:, order]):
            weights = np.zeros((channels, c, 1, 1), np.float32)
            weights[np.arange(channels), order] = 1
            bias = np.zeros(channels, np.float32)
            return e.put(Conv([start], weights=weights, bias=bias), op)
    return False
