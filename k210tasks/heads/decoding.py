"""From a declared head to the boxes of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.centers import Centers
from k210tasks.heads.declared import Head
from k210tasks.heads.detections import Detections, suppress
from k210tasks.heads.grids import HeadMisfit
from k210tasks.heads.ssd import Ssd, priors
from k210tasks.heads.yolo2 import Yolo2
from k210tasks.heads.yolo3 import Yolo3, Yolo5
from k210tasks.heads.yolo8 import Yolo8
from k210tasks.heads.yunet import STRIDES, YuNet

Shapes = Sequence[tuple[int, ...]]


class Decoder(Protocol):
    """What finds boxes in the outputs of one picture, in the order of the file."""

    def decode(self, outputs: list[NDArray[Any]], score: float) -> Detections: ...


class Reader:
    """Decodes pictures as a head says. ``shapes``: of the outputs, maps (C, H, W); ``size``: width
    and height of the input in pixels.

    Raises:
        HeadMisfit: outputs that the head does not fit.
    """

    def __init__(self, head: Head, shapes: Shapes, size: tuple[int, int]) -> None:
        self._head = head
        self._decoder = _decoder(head, shapes, size)

    def read(self, outputs: list[NDArray[Any]], score: float | None = None) -> Detections:
        """What stays above a score, the head's own where None is given, the best first."""
        least = self._head.score if score is None else score
        return suppress(self._decoder.decode(outputs, least), self._head.nms)


def _decoder(head: Head, shapes: Shapes, size: tuple[int, int]) -> Decoder:
    if head.type == "yolo2":
        anchors = _pairs(head.anchors[0])
        _expect(head, shapes, 1)
        return Yolo2(anchors, _classes(head, shapes[0], len(anchors), 5))
    if head.type in ("yolo3", "yolo5"):
        kind = Yolo3 if head.type == "yolo3" else Yolo5
        lists = tuple(map(_pairs, head.anchors))
        _expect(head, shapes, len(lists))
        return kind(lists, _classes(head, shapes[0], len(lists[0]), 5), size)
    if head.type == "yolo8":
        return Yolo8(_classes(head, shapes[0], 1, 4 * head.bins), head.bins)
    if head.type == "yunet":
        strides = head.strides or STRIDES
        _expect(head, shapes, 4 * len(strides))
        return YuNet(size, strides, points=max(1, max(s[-1] for s in shapes) // 2))
    order = head.order or ("scores",)
    _expect(head, shapes, len(order))
    at = {part: i for i, part in enumerate(order)}
    if head.type == "centers":
        return Centers(at["scores"], at.get("sizes"), at.get("offsets"), head.background or False)
    return Ssd(
        priors(size, head.strides, head.min_sizes, spread=head.spread, clip=head.clip),
        at["boxes"],
        at["scores"],
        at.get("points"),
        head.background is not False,
        head.scores,
        (head.variances[0], head.variances[1]),
    )


def _pairs(flat: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _expect(head: Head, shapes: Shapes, count: int) -> None:
    if len(shapes) != count:
        raise HeadMisfit(head.type, "the number of outputs", (len(shapes),), str(count))


def _classes(head: Head, shape: tuple[int, ...], anchors: int, fixed: int) -> int:
    """How many numbers of classes a cell has beside ``fixed`` others, anchor by anchor."""
    channels = shape[0] if len(shape) == 3 else 0
    classes, rest = divmod(channels, anchors)
    if rest or classes <= fixed:
        each = f"{fixed} numbers and one a class"
        wanted = f"CHANNELSxHEIGHTxWIDTH with {each}" + (
            f" for each of {anchors} anchors" if anchors > 1 else ""
        )
        raise HeadMisfit(head.type, "an output", shape, wanted)
    return classes - fixed


def channels_first(flat: NDArray[Any], shape: tuple[int, ...], *, planar: bool) -> NDArray[Any]:
    """An output of one picture as decoders take it. ``flat``: its values; ``shape``: the float
    model's, batch first and channels last; ``planar``: whether maps lie channels first."""
    if len(shape) != 4:
        return flat.reshape(shape[1:])
    height, width, channels = shape[1:]
    if planar:
        return flat.reshape(channels, height, width)
    return np.moveaxis(flat.reshape(height, width, channels), -1, 0)
