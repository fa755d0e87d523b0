"""YOLO v2: one map, anchors in cells, classes that exclude each other (darknet's region layer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Detections, above
from k210tasks.heads.grids import cells, columns_and_rows, corners, exp, sigmoid, softmax


@dataclass(frozen=True, slots=True)
class Yolo2:
    """``anchors``: width and height of each box in cells of the map. Each cell has, anchor by
    anchor, x, y, width, height, objectness and a number a class (darknet's region_layer.c, which
    the SDK's and MaixPy's follow)."""

    anchors: tuple[tuple[float, float], ...]
    classes: int

    def decode(self, outputs: list[NDArray[Any]], score: float) -> Detections:
        """Of one map; score = objectness times the softmax of the best class.

        Raises :class:`~k210tasks.heads.grids.HeadMisfit`.
        """
        at = cells("yolo2", outputs[0], 5 + self.classes, len(self.anchors))
        _, height, width, _ = at.shape
        size = np.array([width, height], np.float64)
        center = (sigmoid(at[..., :2]) + columns_and_rows(height, width)) / size
        spread = exp(at[..., 2:4]) * np.array(self.anchors)[:, None, None, :] / size
        scores = sigmoid(at[..., 4:5]) * softmax(at[..., 5:])
        scores = scores.reshape(-1, self.classes)
        kept, classes = above(scores, score)
        boxes = corners(center, spread).reshape(-1, 4)
        return Detections.of(boxes[kept], scores[kept, classes], classes)
