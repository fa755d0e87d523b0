"""CenterNet and FOMO: objects are the peaks of a map of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Array, Detections
from k210tasks.heads.grids import HeadMisfit, chosen, corners


@dataclass(frozen=True, slots=True)
class Centers:
    """``scores``: which output is the map (classes, H, W) of scores. ``sizes``: which one is
    (2, H, W), width and height in cells, ``offsets`` likewise, where in its cell the center
    lies; None: a box is its cell, and the center its middle (FOMO). ``background``: whether the
    first class is "nothing"; classes are counted without it.
    """

    scores: int = 0
    sizes: int | None = None
    offsets: int | None = None
    background: bool = False

    def decode(self, outputs: Sequence[NDArray[Any]], score: float) -> Detections:
        """A cell counts where none of its eight neighbours has a higher score of the class (as
        CenterNet's max pool has it, arXiv:1904.07850); of equal neighbours all count.

        Raises :class:`~k210tasks.heads.grids.HeadMisfit`.
        """
        scores = _map(outputs, self.scores, None)[1 if self.background else 0 :]
        height, width = scores.shape[1:]
        known = np.nan_to_num(scores, nan=-np.inf)
        walled = np.pad(known, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        around = np.stack(
            [walled[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        )
        which, row, column = np.nonzero((known >= around.max(axis=0)) & (known > score))
        at = np.stack([column, row], axis=-1).astype(np.float64)
        inside = self._each(outputs, self.offsets, row, column, 0.5)
        size = self._each(outputs, self.sizes, row, column, 1.0)
        boxes = corners(at + inside, size) / np.array([width, height, width, height])
        return Detections.of(boxes, scores[which, row, column], which)

    def _each(
        self,
        outputs: Sequence[NDArray[Any]],
        which: int | None,
        row: NDArray[np.intp],
        column: NDArray[np.intp],
        otherwise: float,
    ) -> Array:
        if which is None:
            return np.full((len(row), 2), otherwise)
        return _map(outputs, which, 2)[:, row, column].T


def _map(outputs: Sequence[NDArray[Any]], which: int, channels: int | None) -> Array:
    given = chosen("centers", outputs, which)
    if given.ndim != 3 or (channels is not None and given.shape[0] != channels):
        wanted = f"{channels or 'CLASSES'}xHEIGHTxWIDTH"
        raise HeadMisfit("centers", f"output {which}", given.shape, wanted)
    return given
