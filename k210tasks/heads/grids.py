"""What the decoders share: numbers of each cell of a map, and the curves that bound them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.errors import K210Error
from k210tasks.heads.detections import Array


class HeadMisfit(K210Error):
    """An output that is not what the head says."""

    def __init__(self, head: str, what: str, shape: tuple[int, ...], wanted: str) -> None:
        found = "x".join(map(str, shape)) or "a single number"
        super().__init__(f"head {head}: {what} is {found}, it must be {wanted}")


def chosen(head: str, outputs: Sequence[NDArray[Any]], which: int) -> Array:
    """The output of that number, float64.

    Raises:
        HeadMisfit: there are fewer.
    """
    if which >= len(outputs):
        wanted = f"{which + 1} or more, for one of them is output {which}"
        raise HeadMisfit(head, "the number of outputs", (len(outputs),), wanted)
    return np.asarray(outputs[which], np.float64)


def cells(head: str, output: NDArray[Any], each: int, anchors: int = 1) -> Array:
    """A map (anchors * each, H, W), anchor by anchor, as (anchors, H, W, each) float64.

    Raises:
        HeadMisfit: a map of another shape.
    """
    if output.ndim != 3 or output.shape[0] != anchors * each:
        per = f"{anchors} anchors of {each} numbers" if anchors > 1 else f"{each} numbers"
        wanted = f"{anchors * each}xHEIGHTxWIDTH ({per} a cell)"
        raise HeadMisfit(head, "an output", output.shape, wanted)
    parted = output.reshape(anchors, each, *output.shape[1:])
    return np.moveaxis(parted, 1, -1).astype(np.float64)


def columns_and_rows(height: int, width: int) -> Array:
    """(H, W, 2): column and row of each cell."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns, rows], axis=-1).astype(np.float64)


def corners(center: Array, size: Array) -> Array:
    """(…, 2) centers and sizes → (…, 4) left, top, right, bottom."""
    return np.concatenate([center - size / 2, center + size / 2], axis=-1)


def sigmoid(x: Array) -> Array:
    """Without an overflow for large negative numbers."""
    low = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, low) / (1 + low), np.float64)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float64)


def exp(x: Array) -> Array:
    """Of a size's logarithm, kept within float64: no trained network asks for e^50 of an anchor."""
    return np.asarray(np.exp(np.minimum(x, 50)), np.float64)
