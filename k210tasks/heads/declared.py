"""What models.yaml may say of a detector's outputs: which numbers each kind of head is told.

Declared here, without numpy, for the manifest, the steps' settings and the decoders alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Type = Literal["yolo2", "yolo3", "yolo5", "yolo8", "ssd", "yunet", "centers"]
#: what an output may hold, where a head has outputs of several meanings
Part = Literal["boxes", "scores", "points", "sizes", "offsets"]
#: what the numbers of classes are: scores already, or what a curve makes scores of
Scores = Literal["given", "sigmoid", "softmax"]

TYPES: tuple[Type, ...] = get_args(Type)
#: ``verify: {min_f1: …}`` of a detector that says nothing else
MIN_F1 = 0.9


@dataclass(frozen=True, slots=True)
class Head:
    """``anchors``: width and height in turn, a list a map: in cells (yolo2) or in pixels of the
    input (yolo3, yolo5). ``order``: what each output holds, in their order. ``min_sizes``: a
    list a stride, in pixels. ``score``: less is not shown; ``nms``: what overlaps a better box
    by more goes. The rest: :mod:`k210tasks.heads.ssd`, :mod:`~k210tasks.heads.yolo8` and
    :mod:`~k210tasks.heads.centers`."""

    type: Type
    anchors: tuple[tuple[float, ...], ...] = ()
    strides: tuple[int, ...] = ()
    min_sizes: tuple[tuple[float, ...], ...] = ()
    spread: bool = False
    clip: bool = False
    variances: tuple[float, ...] = (0.1, 0.2)
    order: tuple[Part, ...] = ()
    scores: Scores = "given"
    background: bool | None = None  # None: as is usual of the type
    bins: int = 16
    score: float = 0.5
    nms: float = 0.45


#: Of each type the keys that it must be told, and those that it may be told.
KEYS: dict[Type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "yolo2": (("anchors",), ()),
    "yolo3": (("anchors",), ()),
    "yolo5": (("anchors",), ()),
    "yolo8": ((), ("bins",)),
    "ssd": (
        ("strides", "min_sizes", "order"),
        ("spread", "clip", "variances", "scores", "background"),
    ),
    "yunet": ((), ("strides",)),
    "centers": ((), ("order", "background")),
}
#: Keys of every type.
COMMON = ("type", "score", "nms")
#: Of each type with an ``order`` what must be in it, and what may.
PARTS: dict[Type, tuple[tuple[Part, ...], tuple[Part, ...]]] = {
    "ssd": (("boxes", "scores"), ("points",)),
    "centers": (("scores",), ("sizes", "offsets")),
}
