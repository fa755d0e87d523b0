"""Whether a model will fit the board's SRAM beside its firmware.

A runtime holds the whole model file and allocates the working memory its header asks for
(docs/kpu-and-kmodel.md, section 5). How much a firmware leaves is known for few of them;
where it is not, the 6 MiB of the chip less the firmware itself are an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from k210tasks.profiles import SRAM_BYTES, Profile


@dataclass(frozen=True, slots=True)
class Fit:
    """A model's demand against what is there; all sizes in bytes.

    ``main_memory`` None: the format does not say (kmodel 5). ``known``: who says what is free;
    "no": nobody, and ``available`` is only what cannot be exceeded. ``note``: where the number
    of a profile comes from.
    """

    model: str
    file: int
    main_memory: int | None
    available: int
    known: Literal["user", "profile", "no"]
    profile: str
    note: str = ""

    @property
    def needed(self) -> int:
        return self.file + (self.main_memory or 0)

    @property
    def fits(self) -> bool:
        """False: it cannot be loaded. True where nothing speaks against it."""
        return self.needed <= self.available

    @property
    def sentence(self) -> str:
        """Both numbers and their difference, for the user; a remedy where it does not fit."""
        memory = (
            "working memory not known"
            if self.main_memory is None
            else f"working memory {self.main_memory}"
        )
        told = {
            "user": f"sram_free is {self.available}",
            "profile": f"profile {self.profile} leaves {self.available}",
            "no": f"at most {self.available} are free",
        }[self.known]
        text = (
            f"model {self.model} needs {self.needed} bytes of SRAM (file {self.file}, {memory});"
            f" {told}"
        )
        if not self.fits:
            text += (
                f", {self.needed - self.available} too few: shrink the model or its input, or"
                " choose a firmware that leaves more (sram_free: says how much yours does)"
            )
            if self.known == "profile" and self.note:
                text += f". {self.available}: {self.note}"
        return text

    @property
    def warning(self) -> str | None:
        """What to say of a model that may fit and may not; None where it is known to."""
        if not self.fits:
            return self.sentence
        if self.known != "no":
            return None
        return (
            f"{self.sentence}; what profile {self.profile} really leaves is not known: set"
            " sram_free: on the model where you know it"
        )


def fit(
    model: str,
    file: int,
    main_memory: int | None,
    profile: Profile,
    sram_free: int | None = None,
    program: int = 0,
) -> Fit:
    """Weigh a model of ``file`` bytes against the SRAM.

    ``sram_free``: what the user says is free, which comes first. ``program``: bytes of the
    firmware's binary where it is known; it lies in SRAM as a whole.
    """
    if sram_free is not None:
        return Fit(model, file, main_memory, sram_free, "user", profile.name)
    if profile.sram_free is not None:
        return Fit(
            model, file, main_memory, profile.sram_free, "profile", profile.name, profile.note
        )
    return Fit(model, file, main_memory, max(SRAM_BYTES - program, 0), "no", profile.name)
