"""YOLOv8 and its kin: no anchors, the distance of each side as a distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Detections, above
from k210tasks.heads.grids import cells, columns_and_rows, sigmoid, softmax


@dataclass(frozen=True, slots=True)
class Yolo8:
    """Each output is the map of one stride. A cell has ``bins`` numbers for each of left, top,
    right and bottom, then one a class. The distance of a side from the middle of the cell, in
    cells, is the mean of 0, 1, … under the softmax of its numbers (distribution focal loss,
    arXiv:2006.04388; ultralytics' DFL and dist2bbox)."""

    classes: int
    bins: int = 16

    def decode(self, outputs: Sequence[NDArray[Any]], score: float) -> Detections:
        """Score = the sigmoid of the best class.

        Raises :class:`~k210tasks.heads.grids.HeadMisfit`.
        """
        return Detections.joined([self._of_map(output, score) for output in outputs])

    def _of_map(self, output: NDArray[Any], score: float) -> Detections:
        at = cells("yolo8", output, 4 * self.bins + self.classes)[0]
        height, width, _ = at.shape
        scores = sigmoid(at[..., 4 * self.bins :]).reshape(-1, self.classes)
        kept, classes = above(scores, score)
        sides = at[..., : 4 * self.bins].reshape(-1, 4, self.bins)[kept]
        distances = (softmax(sides) * np.arange(self.bins)).sum(axis=-1)
        middle = (columns_and_rows(height, width) + 0.5).reshape(-1, 2)[kept]
        boxes = np.concatenate([middle - distances[:, :2], middle + distances[:, 2:]], axis=1)
        boxes /= np.array([width, height, width, height])
        return Detections.of(boxes, scores[kept, classes], classes)
