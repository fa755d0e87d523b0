"""What float model and kmodel answered for the worst samples: kept for people to look at.

Only for a bounded number of samples, and in a bounded form each, so that a measurement of
any model on any number of samples stays a small file.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.measurement import (
    Answers,
    BothBoxes,
    ErrorMap,
    Pairs,
    SampleFigures,
    TopScores,
)
from k210tasks.steps.accuracy import is_vector

#: Samples whose answers are kept, the worst ones.
WORST = 24
#: Scores kept of a row of class scores, the highest by either model.
TOP = 5
#: Pairs of values kept of any other output, evenly spaced.
PAIRS = 96
#: Cells of an error map along its longer side, at most.
CELLS = 24


class WorstAnswers:
    """The answers of the worst samples seen. ``planar``: maps come channels first."""

    def __init__(self, planar: bool) -> None:
        self._planar = planar
        self._heap: list[tuple[tuple[float, float, int], Answers]] = []
        self._seen = 0

    def add(
        self,
        record: SampleFigures,
        outputs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, ...]]],
        boxes: BothBoxes | None = None,
    ) -> None:
        """``record``: what is measured of the sample. ``outputs``: float and kmodel, flat, in
        one order, and the float model's shape, batch first and channels last; ``boxes``: of a
        detector."""
        self._seen += 1
        badness = (*_badness(record), -self._seen)
        if len(self._heap) == WORST and badness <= self._heap[0][0]:
            return
        answers = tuple(self._answer(f, k, shape) for f, k, shape in outputs)
        entry = Answers(record.file, answers, boxes)
        push = heapq.heappush if len(self._heap) < WORST else heapq.heapreplace
        push(self._heap, (badness, entry))

    def worst(self) -> tuple[Answers, ...]:
        """The worst first."""
        ranked = sorted(self._heap, key=lambda pair: pair[0], reverse=True)
        return tuple(entry for _, entry in ranked)

    def _answer(
        self, wanted: NDArray[np.float32], got: NDArray[np.float32], shape: tuple[int, ...]
    ) -> TopScores | Pairs:
        if is_vector(shape):
            order = list(np.argsort(-np.nan_to_num(wanted), kind="stable")[:TOP])
            order += list(np.argsort(-np.nan_to_num(got), kind="stable")[:1])
            indexes = map(int, dict.fromkeys(order))
            return TopScores(tuple((i, _short(wanted[i]), _short(got[i])) for i in indexes))
        at = np.unique(np.linspace(0, wanted.size - 1, min(PAIRS, wanted.size)).astype(int))
        is_map = len(shape) == 4 and shape[0] == 1
        return Pairs(
            tuple((_short(wanted[i]), _short(got[i])) for i in at),
            _error_map(wanted, got, shape, self._planar) if is_map else None,
        )


def _badness(record: SampleFigures) -> tuple[float, float]:
    """Greater is worse: not finite, other boxes or another class, then by the cosine of the worst
    output."""
    cosines = [c for c in record.cosine if c is not None]
    if len(cosines) < len(record.cosine):
        return 2.0, 0.0
    differs = float(record.differs) if record.f1 is None else 1 - record.f1
    return differs, -min(cosines, default=1.0)


def _short(value: Any) -> float | None:
    """Five digits; None where it is infinite or not a number, which JSON cannot say."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _error_map(
    wanted: NDArray[np.float32], got: NDArray[np.float32], shape: tuple[int, ...], planar: bool
) -> ErrorMap:
    _, height, width, channels = shape
    error = np.nan_to_num(np.abs(wanted - got), nan=0.0, posinf=0.0)
    order = (channels, height, width) if planar else (height, width, channels)
    error = error.reshape(order).max(axis=0 if planar else 2)
    step = -(-max(height, width) // CELLS)
    rows, columns = -(-height // step), -(-width // step)
    padded = np.zeros((rows * step, columns * step), np.float32)
    padded[:height, :width] = error
    cells = padded.reshape(rows, step, columns, step).max(axis=(1, 3))
    largest = float(cells.max(initial=0.0))
    codes = np.rint(cells * (255 / largest if largest else 0.0)).astype(int)
    return ErrorMap(rows, columns, _short(largest), tuple(codes.ravel().tolist()))
