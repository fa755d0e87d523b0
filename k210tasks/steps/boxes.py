"""A detector's boxes, kmodel against float model, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.measurement import BothBoxes, BoxFigures, Precision, Shown, TruthFigures
from k210tasks.heads.declared import Head
from k210tasks.heads.decoding import Reader, channels_first
from k210tasks.heads.detections import Detections
from k210tasks.heads.matching import COCO, Agreement, average_precision
from k210tasks.samples.truth import Box

#: Boxes of a lower score do not count for average precision, whose curve ends where recall does.
LEAST = 0.01
#: Boxes of a sample that are kept to look at, by either model.
SHOWN = 24
#: by sample: number of the class, and where it is drawn
Truth = Mapping[str, Sequence[tuple[int, Box]]]


class Boxes:
    """``shapes``: of the float model's outputs, batch first and channels last; ``input_shape``:
    of its input likewise; ``planar``: whether maps come channels first;
    ``truth``: by sample the boxes that people have drawn, with the numbers of their classes.

    Raises :class:`~k210tasks.heads.grids.HeadMisfit`, here and where boxes are read.
    """

    def __init__(
        self,
        head: Head,
        shapes: Sequence[tuple[int, ...]],
        input_shape: tuple[int, ...],
        planar: bool,
        truth: Truth,
    ) -> None:
        self._head, self._shapes, self._planar = head, shapes, planar
        read = [(s[3], *s[1:3]) if len(s) == 4 else s[1:] for s in shapes]
        height, width = input_shape[1:3] if len(input_shape) == 4 else (1, 1)
        self._reader = Reader(head, read, (width, height))
        self._sum = Agreement()
        self._worst: tuple[float, str | None] = (1.0, None)
        self._truth = truth
        self._drawn: list[Detections] = []
        self._seen: tuple[list[Detections], list[Detections]] = ([], [])

    def add(
        self, file: str, wanted: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]
    ) -> tuple[float, BothBoxes]:
        """The outputs of both for one sample, flat, in one order: its F1, and what to look at."""
        each = [
            [
                channels_first(flat, shape, planar=self._planar)
                for flat, shape in zip(outputs, self._shapes, strict=True)
            ]
            for outputs in (wanted, found)
        ]
        theirs, ours = map(self._reader.read, each)
        here = Agreement()
        here.add(ours, theirs)
        self._sum += here
        if here.f1 < self._worst[0]:
            self._worst = (here.f1, file)
        if (drawn := self._truth.get(file)) is not None:
            corners = [(b.left, b.top, b.right, b.bottom) for _, b in drawn]
            at = np.array(corners, np.float64).reshape(-1, 4)
            self._drawn.append(Detections.of(at, np.ones(len(at)), [c for c, _ in drawn]))
            for seen, outputs in zip(self._seen, each, strict=True):
                seen.append(self._reader.read(outputs, LEAST))
        return here.f1, BothBoxes(_shown(theirs), _shown(ours))

    def figures(self) -> BoxFigures:
        total = self._sum
        return BoxFigures(
            type=self._head.type,
            score=self._head.score,
            found=total.found,
            wanted=total.wanted,
            matched=total.matched,
            precision=total.precision,
            recall=total.recall,
            f1=total.f1,
            mean_overlap=total.mean_overlap,
            mean_drift=total.mean_drift,
            mean_points=total.mean_points,
            worst_file=self._worst[1],
            worst_f1=self._worst[0],
            truth=self._against_truth(),
        )

    def _against_truth(self) -> TruthFigures | None:
        boxes = sum(map(len, self._drawn))
        if not boxes:
            return None
        float_model, kmodel = (_precision(seen, self._drawn) for seen in self._seen)
        return TruthFigures(
            pictures=len(self._drawn), boxes=boxes, float_model=float_model, kmodel=kmodel
        )


def _shown(found: Detections) -> tuple[Shown, ...]:
    """The best :data:`SHOWN`, as far as they lie in the picture."""
    edges = np.rint(np.clip(np.nan_to_num(found.boxes[:SHOWN]), 0, 1) * 1000).astype(int).tolist()
    return tuple(
        Shown(left, top, right, bottom, round(float(score), 4), int(label))
        for (left, top, right, bottom), score, label in zip(
            edges, found.scores, found.classes, strict=False
        )
    )


def _precision(found: list[Detections], truth: list[Detections]) -> Precision:
    areas = [average_precision(found, truth, overlap) or 0.0 for overlap in COCO]
    return Precision(ap50=areas[0], ap=sum(areas) / len(areas))
