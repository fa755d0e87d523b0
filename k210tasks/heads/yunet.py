"""YuNet, the face detector of libfacedetection: class, objectness, box and points a stride."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Array, Detections, above
from k210tasks.heads.grids import HeadMisfit, columns_and_rows, corners, exp

#: of the published models
STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class YuNet:
    """Outputs: classes of each stride, then objectness, boxes, points; each has a row of 1, 1, 4
    and 2 a point for each cell, row by row. ``size``: width and height of the input in pixels.
    Class and objectness are scores already (the file holds their sigmoid)."""

    size: tuple[int, int]
    strides: tuple[int, ...] = STRIDES
    points: int = 5

    def decode(self, outputs: Sequence[NDArray[Any]], score: float) -> Detections:
        """Score = the geometric mean of class and objectness, each clipped to 0..1.

        Raises :class:`~k210tasks.heads.grids.HeadMisfit`.
        """
        n = len(self.strides)
        if len(outputs) != 4 * n:
            wanted = f"{4 * n}: class, objectness, boxes and points of {n} strides"
            raise HeadMisfit("yunet", "the number of outputs", (len(outputs),), wanted)
        return Detections.joined(
            [self._of_stride(outputs[i::n], stride, score) for i, stride in enumerate(self.strides)]
        )

    def _of_stride(self, outputs: Sequence[NDArray[Any]], stride: int, score: float) -> Detections:
        width, height = (edge // stride for edge in self.size)
        corner = columns_and_rows(height, width).reshape(-1, 2)
        each = (1, 1, 4, 2 * self.points)
        classes, objects, box, points = (
            _rows(y, len(corner), k) for y, k in zip(outputs, each, strict=True)
        )
        scores = np.sqrt(np.clip(classes, 0, 1) * np.clip(objects, 0, 1))
        kept, _ = above(scores, score)
        pixels = stride / np.array(self.size)
        center = (corner + box[:, :2])[kept]
        boxes = corners(center * pixels, exp(box[kept, 2:]) * pixels)
        moves = points.reshape(-1, self.points, 2)[kept]
        return Detections.of(boxes, scores[kept, 0], None, (corner[kept, None] + moves) * pixels)


def _rows(output: NDArray[Any], n: int, each: int) -> Array:
    if output.size != n * each:
        raise HeadMisfit("yunet", "an output", output.shape, f"{n}x{each}, a row for each cell")
    return np.asarray(output, np.float64).reshape(n, each)
