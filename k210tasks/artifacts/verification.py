"""``verify.json``: the judgement of a measurement, with the measurement beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from k210tasks.artifacts.doubts import AnyDoubt
from k210tasks.artifacts.measurement import Measurement
from k210tasks.jsondata import plain, pretty, sparse


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``min_cosine``: of the mean over samples of the worst output. ``min_top1``: share.
    ``min_f1``: of a detector's boxes. ``max_map_loss``: of mAP50-95. None: not judged."""

    min_cosine: float | None
    min_top1: float | None = None
    min_f1: float | None = sparse()
    max_map_loss: float | None = sparse()


@dataclass(frozen=True, slots=True)
class Weighed:
    """Bytes of SRAM a model needs and may have; ``known``: who says what is free."""

    file: int
    main_memory: int | None
    needed: int
    available: int
    known: Literal["user", "profile", "no"]
    fits: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Verification:
    """``thresholds`` None: not measured. ``sram`` None: not weighed. ``warnings``: the ``doubts``
    in the words of models.yaml."""

    model: str
    verified: bool | Literal["off"]
    headline: str = ""
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    thresholds: Thresholds | None = None
    sram: Weighed | None = None
    doubts: tuple[AnyDoubt, ...] = ()

    def beside(self, measurement: Measurement | None) -> str:
        """The text of the file: one object, of which :class:`Measurement` is read as well."""
        judged = plain(self)
        doubts = judged.pop("doubts")
        return pretty({**judged, **(plain(measurement) if measurement else {}), "doubts": doubts})
