"""The preprocessing contract: how a picture becomes the numbers a model is fed.

Written once in models.yaml, it drives calibration, verification, the compiler's
input quantisation and the contract handed to the firmware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "exact"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """A raw pixel 0..255 enters the model as ``(pixel / 255 - mean) / std``.

    ``color`` None means: grey for a model with one input channel, RGB for three.
    ``mean`` and ``std`` None means: not stated by the user; 0 and 1 are used and every
    place that shows results warns, since a wrong pair is the commonest fault.
    ``resize`` "stretch" scales a picture of another size bilinearly; "exact" refuses it.
    """

    color: Color | None = None
    mean: float | None = None
    std: float | None = None
    resize: Resize = "stretch"

    @property
    def stated(self) -> bool:
        """Whether the user stated both mean and std."""
        return self.mean is not None and self.std is not None

    @property
    def effective_mean(self) -> float:
        return 0.0 if self.mean is None else self.mean

    @property
    def effective_std(self) -> float:
        return 1.0 if self.std is None else self.std

    @property
    def effective(self) -> Preprocess:
        """With ``mean`` and ``std`` as they are used: stating a default changes no result."""
        return Preprocess(self.color, self.effective_mean, self.effective_std, self.resize)
