"""SSD, RetinaFace and theirs: rows of offsets from boxes that are given beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.declared import Scores
from k210tasks.heads.detections import Array, Detections, above
from k210tasks.heads.grids import HeadMisfit, chosen, corners, exp, sigmoid, softmax


def priors(
    size: tuple[int, int],
    strides: Sequence[int],
    min_sizes: Sequence[Sequence[float]],
    *,
    spread: bool = False,
    clip: bool = False,
) -> Array:
    """The boxes of square anchors: (N, 4) center x, center y, width, height as shares.

    ``size``: width and height of the input in pixels. ``min_sizes``: of each stride the sides in
    pixels. Stride by stride, row by row, cell by cell, side by side, the order in which SSD's
    heads are joined; maps of sizes that a stride does not divide are rounded up. Cells are a
    stride wide, and the last may reach beyond the input (RetinaFace); ``spread``: they share it
    evenly (Linzaer's Ultra-Light-Fast-Generic-Face-Detector). ``clip``: no number is more than 1
    (Linzaer's too).
    """
    found = []
    for stride, sides in zip(strides, min_sizes, strict=True):
        columns, rows = (math.ceil(edge / stride) for edge in size)
        wide, high = (1 / columns, 1 / rows) if spread else (stride / size[0], stride / size[1])
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) * wide, (row + 0.5) * high
                found += [(x, y, side / size[0], side / size[1]) for side in sides]
    return np.minimum(np.array(found, np.float64), 1 if clip else np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Ssd:
    """``priors``: (N, 4) center and size as shares (:func:`priors`, or the model's own constant).
    ``boxes``, ``classes``, ``points``: which output holds N rows of 4 offsets, N rows of
    numbers a class, and N rows of x, y a landmark (None: there are none). ``background``:
    whether the first class is "nothing"; classes are counted without it. ``variances``: offsets
    of centers and of the logarithms of sizes are multiplied by them (SSD, arXiv:1512.02325).
    """

    priors: Array
    boxes: int
    classes: int
    points: int | None = None
    background: bool = True
    scores: Scores = "given"
    variances: tuple[float, float] = (0.1, 0.2)

    def decode(self, outputs: Sequence[NDArray[Any]], score: float) -> Detections:
        """Raises :class:`~k210tasks.heads.grids.HeadMisfit`."""
        scores = self._rows(outputs, self.classes, None)
        if self.scores != "given":
            scores = sigmoid(scores) if self.scores == "sigmoid" else softmax(scores)
        if self.background:
            if scores.shape[1] < 2:
                wanted = "NUMBERS of two classes or more, the first of which is nothing"
                raise HeadMisfit("ssd", f"output {self.classes}", scores.shape, wanted)
            scores = scores[:, 1:]
        kept, classes = above(scores, score)
        center, size = self.priors[kept, :2], self.priors[kept, 2:]
        offsets = self._rows(outputs, self.boxes, 4)[kept]
        moved = center + offsets[:, :2] * self.variances[0] * size
        boxes = corners(moved, size * exp(offsets[:, 2:] * self.variances[1]))
        points = None
        if self.points is not None:
            rows = self._rows(outputs, self.points, None)[kept]
            moves = (
                rows.reshape(len(kept), rows.shape[1] // 2, 2) * self.variances[0] * size[:, None]
            )
            points = center[:, None] + moves
        return Detections.of(boxes, scores[kept, classes], classes, points)

    def _rows(self, outputs: Sequence[NDArray[Any]], which: int, each: int | None) -> Array:
        n = len(self.priors)
        given = chosen("ssd", outputs, which)
        per = max(given.size // n, 1) if each is None else each
        if given.size != n * per:
            wanted = f"{n}x{per if each else 'NUMBERS'}, a row for each of the {n} priors"
            raise HeadMisfit("ssd", f"output {which}", given.shape, wanted)
        return given.reshape(n, per)
