"""Boxes with scores and classes, and which of those that overlap stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Detections:
    """N boxes of one picture.

    ``boxes``: (N, 4) float64, left, top, right, bottom as shares of the width and height of the
    model's input, not clipped to 0..1. ``scores``: (N,) float64. ``classes``: (N,) int64.
    ``points``: (N, K, 2) float64, x and y of K landmarks as shares, K = 0 where there are none.
    """

    boxes: Array
    scores: Array
    classes: NDArray[np.int64]
    points: Array

    @staticmethod
    def of(
        boxes: Array, scores: Array, classes: Any = None, points: Array | None = None
    ) -> Detections:
        """``classes`` None: all of class 0."""
        n = len(scores)
        return Detections(
            np.asarray(boxes, np.float64).reshape(n, 4),
            np.asarray(scores, np.float64),
            np.zeros(n, np.int64) if classes is None else np.asarray(classes, np.int64),
            np.zeros((n, 0, 2)) if points is None else np.asarray(points, np.float64),
        )

    @staticmethod
    def joined(parts: Sequence[Detections]) -> Detections:
        """Those of several maps, one after another; at least one part."""
        columns = [[getattr(part, field.name) for part in parts] for field in fields(Detections)]
        return Detections(*map(np.concatenate, columns))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: Any) -> Detections:
        """By a mask, indexes or a slice."""
        return Detections(
            self.boxes[which], self.scores[which], self.classes[which], self.points[which]
        )


def above(scores: Array, limit: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of (N, classes) scores the rows whose best is more than ``limit``, and its class; of equal
    ones the first, as firmwares choose. What is not a number is not above anything."""
    best = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1)
    rows = np.flatnonzero(scores[np.arange(len(scores)), best] > limit)
    return rows, best[rows]


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of each of (N, 4) boxes with each of (M, 4): (N, M), 0 where a box
    has no area."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(opposite - corner, 0), axis=2)
    union = _areas(a)[:, None] + _areas(b)[None, :] - shared
    overlap: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def suppress(found: Detections, limit: float, most: int | None = None) -> Detections:
    """Non-maximum suppression within each class: what overlaps a better one by more than
    ``limit`` goes. The best come first; of equal scores the one that was found first.
    ``most``: at most so many stay, over all classes."""
    ranked = found[np.argsort(-found.scores, kind="stable")]
    stays = np.ones(len(ranked), bool)
    for i in range(len(ranked)):
        if stays[i]:
            later = np.flatnonzero(stays[i + 1 :] & (ranked.classes[i + 1 :] == ranked.classes[i]))
            later += i + 1
            stays[later] = overlaps(ranked.boxes[i : i + 1], ranked.boxes[later])[0] <= limit
    return ranked[np.flatnonzero(stays)[:most]]


def _areas(boxes: Array) -> Array:
    width, height = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).T
    return np.asarray(width * height, np.float64)
