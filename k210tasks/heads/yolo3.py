"""YOLO v3 and v5: a map a stride, anchors in pixels, classes that may go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Array, Detections, above
from k210tasks.heads.grids import HeadMisfit, cells, columns_and_rows, corners, exp, sigmoid

Anchors = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Yolo3:
    """``anchors``: of each map, in the order of the outputs, width and height of each box in
    pixels of the input. A map's stride follows from its size and ``size``, width and height of
    the input. Each cell has, anchor by anchor, x, y, width, height, objectness and a number a
    class (darknet's yolo_layer.c)."""

    anchors: tuple[Anchors, ...]
    classes: int
    size: tuple[int, int]

    def decode(self, outputs: Sequence[NDArray[Any]], score: float) -> Detections:
        """Score = objectness times the best class, a sigmoid each.

        Raises :class:`~k210tasks.heads.grids.HeadMisfit`.
        """
        if len(outputs) != len(self.anchors):
            wanted = f"one for each of the {len(self.anchors)} lists of anchors"
            raise HeadMisfit(self.name, "the number of outputs", (len(outputs),), wanted)
        return Detections.joined(
            [self._of_map(y, a, score) for y, a in zip(outputs, self.anchors, strict=True)]
        )

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def _of_map(self, output: NDArray[Any], anchors: Anchors, score: float) -> Detections:
        at = cells(self.name, output, 5 + self.classes, len(anchors))
        _, height, width, _ = at.shape
        scores = (sigmoid(at[..., 4:5]) * sigmoid(at[..., 5:])).reshape(-1, self.classes)
        kept, classes = above(scores, score)
        within, factor = self._box(at[..., :4])
        center = (within + columns_and_rows(height, width)) / np.array([width, height])
        size = factor * np.array(anchors)[:, None, None, :] / np.array(self.size)
        boxes = corners(center, size).reshape(-1, 4)
        return Detections.of(boxes[kept], scores[kept, classes], classes)

    def _box(self, numbers: Array) -> tuple[Array, Array]:
        """Where the center lies, from the cell's corner in cells, and what the anchor is
        multiplied by."""
        return sigmoid(numbers[..., :2]), exp(numbers[..., 2:])


@dataclass(frozen=True, slots=True)
class Yolo5(Yolo3):
    """The same numbers, read as ultralytics' Detect of YOLOv5 does: a center may lie half a cell
    outside of its own, and no box is more than four times its anchor."""

    def _box(self, numbers: Array) -> tuple[Array, Array]:
        near = sigmoid(numbers)
        return near[..., :2] * 2 - 0.5, (near[..., 2:] * 2) ** 2
