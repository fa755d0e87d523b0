"""A detector's boxes, kmodel against float model, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from k210tasks.artifacts.measurement import BoxFigures
from k210tasks.heads.declared import Head
from k210tasks.heads.decoding import Reader, channels_first
from k210tasks.heads.matching import Agreement


class Boxes:
    """``shapes``: of the float model's outputs, batch first and channels last; ``input_shape``:
    of its input likewise; ``planar``: whether maps come channels first.

    Raises :class:`~k210tasks.heads.grids.HeadMisfit`, here and where boxes are read.
    """

    def __init__(
        self,
        head: Head,
        shapes: Sequence[tuple[int, ...]],
        input_shape: tuple[int, ...],
        planar: bool,
    ) -> None:
        self._head, self._shapes, self._planar = head, shapes, planar
        read = [(s[3], *s[1:3]) if len(s) == 4 else s[1:] for s in shapes]
        height, width = input_shape[1:3] if len(input_shape) == 4 else (1, 1)
        self._reader = Reader(head, read, (width, height))
        self._sum = Agreement()
        self._worst: tuple[float, str | None] = (1.0, None)

    def add(self, file: str, wanted: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]]) -> None:
        """The outputs of both for one sample, flat, in one order."""
        theirs, ours = (
            self._reader.read(
                [
                    channels_first(flat, shape, planar=self._planar)
                    for flat, shape in zip(outputs, self._shapes, strict=True)
                ]
            )
            for outputs in (wanted, found)
        )
        here = Agreement()
        here.add(ours, theirs)
        self._sum.add(ours, theirs)
        if here.f1 < self._worst[0]:
            self._worst = (here.f1, file)

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
        )
