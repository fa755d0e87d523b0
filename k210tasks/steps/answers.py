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
        self._heap: list[tuple[tuple[float, float, int], dict[str, Any]]] = []
        self._seen = 0

    def add(
        self,
        record: dict[str, Any],
        outputs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, ...]]],
    ) -> None:
        """``record``: what is measured of the sample. ``outputs``: float and kmodel, flat, in
        one order, and the float model's shape, batch first and channels last."""
        self._seen += 1
        badness = (*_badness(record), -self._seen)
        if len(self._heap) == WORST and badness <= self._heap[0][0]:
            return
        entry = {
            "file": record["file"],
            "outputs": [self._answer(f, k, shape) for f, k, shape in outputs],
        }
        push = heapq.heappush if len(self._heap) < WORST else heapq.heapreplace
        push(self._heap, (badness, entry))

    def worst(self) -> list[dict[str, Any]]:
        """One entry a sample, the worst first.

        ``outputs`` of an entry: for class scores ``top``, rows of index, float model's score,
        kmodel's; for others ``pairs`` of values and, of maps, ``map``: the largest error of
        each cell as a share of ``max``, in 0..255, row by row.
        """
        return [entry for _, entry in sorted(self._heap, key=lambda pair: pair[0], reverse=True)]

    def _answer(
        self, wanted: NDArray[np.float32], got: NDArray[np.float32], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        if is_vector(shape):
            order = list(np.argsort(-np.nan_to_num(wanted), kind="stable")[:TOP])
            order += list(np.argsort(-np.nan_to_num(got), kind="stable")[:1])
            rows = [[int(i), _short(wanted[i]), _short(got[i])] for i in dict.fromkeys(order)]
            return {"top": rows}
        at = np.unique(np.linspace(0, wanted.size - 1, min(PAIRS, wanted.size)).astype(int))
        answer: dict[str, Any] = {"pairs": [[_short(wanted[i]), _short(got[i])] for i in at]}
        if len(shape) == 4 and shape[0] == 1:
            answer["map"] = _error_map(wanted, got, shape, self._planar)
        return answer


def _badness(record: dict[str, Any]) -> tuple[float, float]:
    """Greater is worse: not finite, another class, then by the cosine of the worst output."""
    cosines = record["cosine"]
    if None in cosines:
        return 2.0, 0.0
    differs = any(picks is not None and picks[0] != picks[1] for picks in record["top1"])
    return float(differs), -min(cosines, default=1.0)


def _short(value: Any) -> float | None:
    """Five digits; None where it is infinite or not a number, which JSON cannot say."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _error_map(
    wanted: NDArray[np.float32], got: NDArray[np.float32], shape: tuple[int, ...], planar: bool
) -> dict[str, Any]:
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
    return {
        "rows": rows,
        "columns": columns,
        "max": _short(largest),
        "codes": codes.ravel().tolist(),
    }
