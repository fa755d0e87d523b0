"""Dilated convolutions as older converters wrote them: cut up, convolved, put together; and
pads written as cuts into one piece."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.constraints import SourceOp, SourceTensor

_CONVS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fold_dilated(ops: list[SourceOp], outputs: list[SourceTensor]) -> list[SourceOp]:
    """``ops`` with every SPACE_TO_BATCH_ND, convolution, BATCH_TO_SPACE_ND that belong together
    as the one dilated convolution they are, and with those that cut nothing as the pads they
    are; others stay, to be refused by name."""
    ops = [_pad(op) or op for op in ops]
    readers: dict[int, list[SourceOp]] = {}
    for op in ops:
        for t in op.inputs:
            if t is not None:
                readers.setdefault(t.index, []).append(op)
    kept = {t.index for t in outputs}

    def only_reader(op: SourceOp, name: tuple[str, ...]) -> SourceOp | None:
        index = op.outputs[0].index
        found = readers.get(index, [])
        fine = len(found) == 1 and index not in kept and found[0].name in name
        return found[0] if fine and found[0].inputs[0] is op.outputs[0] else None

    replaced: dict[int, SourceOp | None] = {}
    for cut in ops:
        if cut.name != "SPACE_TO_BATCH_ND":
            continue
        conv = only_reader(cut, _CONVS)
        join = only_reader(conv, ("BATCH_TO_SPACE_ND",)) if conv is not None else None
        if conv is not None and join is not None and (one := _as_one(cut, conv, join)):
            replaced.update({id(cut): None, id(conv): None, id(join): one})
    kept_ops = (replaced.get(id(op), op) for op in ops)
    return [op for op in kept_ops if op is not None]


def _pad(op: SourceOp) -> SourceOp | None:
    """A SPACE_TO_BATCH_ND with blocks of one pixel, which only pads."""
    if op.name != "SPACE_TO_BATCH_ND":
        return None
    block, pads = op.const(1), op.const(2)
    if block is None or pads is None or (block != 1).any() or pads.shape != (block.size, 2):
        return None
    every = np.zeros((len(op.shape()), 2), np.int32)
    every[1 : 1 + len(pads)] = pads
    const = SourceTensor(-1 - op.index, "pads", every.shape, "INT32", every)
    return SourceOp("PAD", op.index, 1, [op.inputs[0], const], op.outputs)


def _as_one(cut: SourceOp, conv: SourceOp, join: SourceOp) -> SourceOp | None:
    block, pads = cut.const(1), cut.const(2)
    again, crops = join.const(1), join.const(2)
    if block is None or pads is None or again is None or crops is None:
        return None
    plain = conv.options.get("stride") == (1, 1) and conv.options.get("dilation") == (1, 1)
    if not plain or conv.options.get("padding") != "VALID":
        return None
    if block.shape != (2,) or not np.array_equal(block, again) or len(cut.shape()) != 4:
        return None
    inner = pads.reshape(2, 2) - crops.reshape(2, 2)
    if (inner < 0).any():
        return None
    dilation = (int(block[0]), int(block[1]))
    options = {**conv.options, "dilation": dilation, "pads": tuple(int(n) for n in inner.ravel())}
    inputs = [cut.inputs[0], *conv.inputs[1:]]
    return SourceOp(conv.name, conv.index, conv.version, inputs, join.outputs, options)
