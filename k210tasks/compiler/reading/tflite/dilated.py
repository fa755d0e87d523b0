"""Dilated convolutions as older converters wrote them: cut up, convolved, put together; and
pads written as cuts into one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from k210tasks.compiler.operands import OPERANDS, misfit
from k210tasks.compiler.source_ops import SourceOp, SourceTensor

_CONVS = ("CONV_2D", "DEPTHWISE_CONV_2D")
#: what puts an axis into a one-dimensional map, and takes it out
_WIDENED, _NARROWED = ("EXPAND_DIMS", "RESHAPE"), ("SQUEEZE", "RESHAPE")


def fold_dilated(ops: list[SourceOp], outputs: list[SourceTensor]) -> list[SourceOp]:
    """``ops`` with every SPACE_TO_BATCH_ND, convolution, BATCH_TO_SPACE_ND that belong together
    as the one dilated convolution they are, and with those that cut nothing as the pads they
    are; others stay, to be refused by name."""
    given, ops = ops, []
    for op in given:
        ops.append((None if op.name not in OPERANDS or misfit(op) else _pad(op)) or op)
    readers: dict[int, list[SourceOp]] = {}
    for op in ops:
        for t in op.inputs:
            if t is not None:
                readers.setdefault(t.index, []).append(op)
    kept = {t.index for t in outputs}

    def only_reader(op: SourceOp, names: tuple[str, ...]) -> SourceOp | None:
        if misfit(op):
            return None
        index = op.outputs[0].index
        found = readers.get(index, [])
        fine = len(found) == 1 and index not in kept and found[0].name in names
        fine = fine and not misfit(found[0]) and found[0].inputs[0] is op.outputs[0]
        return found[0] if fine else None

    replaced: dict[int, list[SourceOp]] = {}
    for cut in ops:
        if cut.name != "SPACE_TO_BATCH_ND":
            continue
        chain = [cut]
        for names in (_WIDENED, _CONVS, _NARROWED, ("BATCH_TO_SPACE_ND",)):
            after = only_reader(chain[-1], names)
            if after is not None:
                chain.append(after)
            elif names not in (_WIDENED, _NARROWED):
                break
        if chain[-1].name == "BATCH_TO_SPACE_ND" and (made := _as_one(chain)):
            replaced.update({id(op): [] for op in chain[:-1]})
            replaced[id(chain[-1])] = made
    return [made for op in ops for made in replaced.get(id(op), [op])]


def _pad(op: SourceOp) -> SourceOp | None:
    """A SPACE_TO_BATCH_ND with blocks of one pixel, which only pads."""
    if op.name != "SPACE_TO_BATCH_ND":
        return None
    block, pads = op.const(1), op.const(2)
    if block is None or pads is None or (block != 1).any() or pads.shape != (block.size, 2):
        return None
    if block.size >= len(op.shape()):
        return None
    every = np.zeros((len(op.shape()), 2), np.int32)
    every[1 : 1 + len(pads)] = pads
    const = SourceTensor(_new_index(op, 0), "pads", every.shape, "INT32", every)
    return SourceOp("PAD", op.index, 1, [op.inputs[0], const], op.outputs)


def _as_one(chain: list[SourceOp]) -> list[SourceOp] | None:
    """The ops that do what ``chain`` does: cut, convolve and join, the convolution of a
    one-dimensional map with an axis put in before it and taken out behind it."""
    cut, join = chain[0], chain[-1]
    conv = next(op for op in chain if op.name in _CONVS)
    flat = len(chain) == 5
    block, pads = cut.const(1), cut.const(2)
    again, crops = join.const(1), join.const(2)
    if block is None or pads is None or again is None or crops is None:
        return None
    plain = conv.options.get("stride") == (1, 1) and conv.options.get("dilation") == (1, 1)
    if not plain or conv.options.get("padding") != "VALID":
        return None
    rank = 3 if flat else 4
    if pads.size != 2 * (rank - 2) or crops.size != pads.size or (block < 1).any():
        return None
    if block.shape != (rank - 2,) or not np.array_equal(block, again) or len(cut.shape()) != rank:
        return None
    inner = pads.reshape(-1, 2) - crops.reshape(-1, 2)
    if (inner < 0).any() or len(chain) == 4:
        return None
    if not flat:
        return [_dilated(conv, block.tolist(), inner.ravel().tolist(), cut.inputs[0], join.outputs)]
    if conv.shape()[1] != 1 or conv.outputs[0].shape[1] != 1:  # not as a row of places
        return None
    wide = [_row(t, n, conv) for n, t in enumerate((cut.inputs[0], join.outputs[0]), 1)]
    before = SourceOp("EXPAND_DIMS", chain[1].index, 1, [cut.inputs[0]], [wide[0]])
    one = _dilated(conv, [1, *block.tolist()], [0, 0, *inner.ravel().tolist()], wide[0], [wide[1]])
    return [before, one, SourceOp("SQUEEZE", chain[3].index, 1, [wide[1]], join.outputs)]


def _row(t: SourceTensor | None, number: int, conv: SourceOp) -> SourceTensor:
    """A one-dimensional map (1, places, channels) as one of a single row."""
    assert t is not None
    wide = replace(t, shape=(t.shape[0], 1, *t.shape[1:]), name=f"{t.name}/row", open=False)
    wide.index = _new_index(conv, number)
    return wide


def _new_index(op: SourceOp, number: int) -> int:
    """An index that no tensor of the file has, nor any other made here."""
    return -1 - 4 * op.index - number


def _dilated(
    conv: SourceOp,
    dilation: list[int],
    pads: list[int],
    given: SourceTensor | None,
    outputs: list[SourceTensor],
) -> SourceOp:
    options = {**conv.options, "dilation": tuple(dilation), "pads": tuple(pads)}
    return SourceOp(
        conv.name, conv.index, conv.version, [given, *conv.inputs[1:]], outputs, options
    )
