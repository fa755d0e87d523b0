"""The preprocessing contract: how a picture becomes the numbers a model is fed.

Written once in models.yaml, it drives calibration, verification, the compiler's
input quantisation and the contract handed to the firmware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: one number, or one a channel in the order that the model is fed them in
PerChannel = float | tuple[float, ...]

Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "exact"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """A raw pixel 0..255 enters the model as ``(pixel / 255 - mean) / std``.

    ``mean`` and ``std`` are one number, or one a channel, in the order of ``color``.
    ``color`` None means: grey for a model with one input channel, RGB for three.
    ``mean`` and ``std`` None means: not stated by the user; 0 and 1 are used and every
    place that shows results warns, since a wrong pair is the commonest fault.
    ``resize`` "stretch" scales a picture of another size bilinearly; "exact" refuses it.
    """

    color: Color | None = None
    mean: PerChannel | None = None
    std: PerChannel | None = None
    resize: Resize = "stretch"

    @property
    def stated(self) -> bool:
        """Whether the user stated both mean and std."""
        return self.mean is not None and self.std is not None

    @property
    def effective_mean(self) -> PerChannel:
        return 0.0 if self.mean is None else self.mean

    @property
    def effective_std(self) -> PerChannel:
        return 1.0 if self.std is None else self.std

    @property
    def effective(self) -> Preprocess:
        """With ``mean`` and ``std`` as they are used: stating a default changes no result."""
        return Preprocess(self.color, self.effective_mean, self.effective_std, self.resize)

    def misfits(self, channels: int) -> str | None:
        """Which of mean and std has not one number for each of ``channels``, in words."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, tuple) and len(value) != channels:
                return f"{name} has {len(value)} numbers, one a channel"
        return None


def as_text(value: PerChannel) -> str:
    """``0.5``, or ``[0.485, 0.456, 0.406]``, for people."""
    return f"[{', '.join(f'{v:g}' for v in value)}]" if isinstance(value, tuple) else f"{value:g}"


def numbers(value: PerChannel) -> tuple[float, ...]:
    """Every number of it."""
    return value if isinstance(value, tuple) else (value,)
