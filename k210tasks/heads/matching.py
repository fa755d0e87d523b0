"""How far two models find the same, and how well one finds what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Array, Detections, overlaps

#: two boxes are of one object from this overlap on (PASCAL VOC)
SAME = 0.5
#: overlaps over which COCO takes the mean of the average precision
COCO = tuple(np.arange(50, 100, 5) / 100)


def matches(
    found: Detections, wanted: Detections, least: float = SAME
) -> list[tuple[int, int, float]]:
    """Pairs (index of found, index of wanted, overlap) of one class, each box in one pair at most.

    The best found choose first (of equal scores the first), each the wanted box that is still
    free and overlaps most, by ``least`` at least; as COCO's evaluation has it.
    """
    shared = overlaps(found.boxes, wanted.boxes)
    shared[found.classes[:, None] != wanted.classes[None, :]] = -1
    pairs = []
    for i in np.argsort(-found.scores, kind="stable"):
        if len(wanted) and shared[i].max() >= least:
            j = int(shared[i].argmax())
            pairs.append((int(i), j, float(shared[i, j])))
            shared[:, j] = -1
    return pairs


@dataclass(slots=True)
class Agreement:
    """What a model finds against what another does, summed over pictures.

    ``found``, ``wanted``: boxes of the one judged and of the other. ``points``: mean distance of
    landmarks as a share of the wanted box's diagonal, summed over the ``pointed`` matched boxes
    that have some.
    """

    found: int = 0
    wanted: int = 0
    matched: int = 0
    overlap: float = 0.0
    drift: float = 0.0
    points: float = 0.0
    pointed: int = 0

    def add(self, found: Detections, wanted: Detections) -> None:
        """Take in one picture."""
        self.found += len(found)
        self.wanted += len(wanted)
        for i, j, shared in matches(found, wanted):
            self.matched += 1
            self.overlap += shared
            self.drift += abs(float(found.scores[i] - wanted.scores[j]))
            if found.points.shape[1]:
                box = wanted.boxes[j]
                away = np.linalg.norm(found.points[i] - wanted.points[j], axis=1).mean()
                self.pointed += 1
                self.points += float(away / np.linalg.norm(box[2:] - box[:2]))

    def __add__(self, other: Agreement) -> Agreement:
        """Of the pictures of both."""
        return Agreement(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def precision(self) -> float:
        """Share of the found boxes that are wanted; 1 where none is found."""
        return self.matched / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the wanted boxes that are found; 1 where none is wanted."""
        return self.matched / self.wanted if self.wanted else 1.0

    @property
    def f1(self) -> float:
        """1 where neither finds anything."""
        total = self.found + self.wanted
        return 2 * self.matched / total if total else 1.0

    @property
    def mean_overlap(self) -> float | None:
        """Of matched boxes; None where there is none."""
        return self.overlap / self.matched if self.matched else None

    @property
    def mean_drift(self) -> float | None:
        """Mean distance of the scores of matched boxes; None where there is none."""
        return self.drift / self.matched if self.matched else None

    @property
    def mean_points(self) -> float | None:
        """Of the landmarks of matched boxes, a share of the box's diagonal."""
        return self.points / self.pointed if self.pointed else None


def average_precision(
    found: Sequence[Detections], truth: Sequence[Detections], least: float = SAME
) -> float | None:
    """Mean over classes of the area below precision by recall, at COCO's 101 recalls.

    ``found``, ``truth``: a picture each, in one order; scores of the truth do not count. Classes
    of which the truth has no box are left out; None where that leaves none.
    """
    classes = sorted({int(c) for t in truth for c in t.classes})
    areas = [_area(found, truth, c, least) for c in classes]
    return float(np.mean(areas)) if areas else None


def _area(found: Sequence[Detections], truth: Sequence[Detections], of: int, least: float) -> float:
    scores: list[Array] = []
    right: list[NDArray[np.bool_]] = []
    there = 0
    for here, real in zip(found, truth, strict=True):
        mine, wanted = here[here.classes == of], real[real.classes == of]
        hit = np.zeros(len(mine), bool)
        hit[[i for i, _, _ in matches(mine, wanted, least)]] = True
        scores.append(mine.scores)
        right.append(hit)
        there += len(wanted)
    ranked = np.concatenate(right)[np.argsort(-np.concatenate(scores), kind="stable")]
    hits = np.cumsum(ranked)
    precision = hits / np.arange(1, len(ranked) + 1)
    # What a lower score would still reach counts, as everywhere since PASCAL VOC 2010.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / there, np.linspace(0, 1, 101), side="left")
    return float(np.append(best, 0.0)[np.minimum(at, len(best))].mean())
