"""A model in flash, as every snippet and the self-check speak of it."""

from __future__ import annotations

from dataclasses import dataclass

from k210tasks.firmware.c_header import c_identifier
from k210tasks.firmware.contract import Contract
from k210tasks.profiles import Profile


@dataclass(frozen=True, slots=True)
class Entry:
    """A model in flash: its contract, where it lies, the size of its file in bytes.

    ``anchors``: widths and heights of a YOLO v2 detector's boxes, as in models.yaml.
    ``limits``: least score, and the overlap from which the worse of two boxes goes; None: 0.5, 0.3.
    """

    contract: Contract
    address: int
    nbytes: int
    anchors: tuple[float, ...] | None = None
    limits: tuple[float, float] | None = None

    @property
    def symbol(self) -> str:
        """A name for variables, different for each model."""
        return c_identifier(self.contract.model).removeprefix("K210_").lower()

    @property
    def boxes(self) -> tuple[float, ...]:
        """The anchors, where the first output is the feature map they belong to."""
        maps = [self.contract.input.shape, *(out.shape for out in self.contract.outputs[:1])]
        return (self.anchors or ()) if [len(shape) for shape in maps] == [3, 3] else ()


def suffix_of(profile: Profile) -> str:
    """The suffix of the snippet's file."""
    if profile.language == "micropython":
        return ".py"
    return ".cpp" if profile.name == "arduino" else ".c"


@dataclass(frozen=True, slots=True)
class Snippet:
    suffix: str  # ".py", ".c" or ".cpp"
    text: str


def set_outputs_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Width, height and channels for ``kpu.set_outputs``: their product is what is checked.

    A feature map's own; a vector is all channels, as the boards' examples have it.
    """
    if len(shape) <= 1:
        return 1, 1, shape[0] if shape else 1
    channels = 1
    for size in shape[:-2]:
        channels *= size
    return shape[-1], shape[-2], channels
