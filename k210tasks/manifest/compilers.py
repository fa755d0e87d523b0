"""The compilers a model may name: what each writes, needs and can be told.

Data only. ``family`` decides the form of the calibration result: two compilers of one
family share ``calibrate:MODEL``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Compiler:
    name: str
    family: Literal["builtin", "vendor"]
    kmodels: tuple[int, ...]  # versions it can write, the preferred one first
    toolchain: str | None  # name in toolchains.catalogue; None: nothing to fetch
    methods: dict[str, str]  # calibrate.method -> the compiler's own name for it
    in_place: tuple[str, ...] = ("tflite",)  # kinds of sources that it reads as they are

    @property
    def reads(self) -> tuple[str, ...]:
        """Kinds of sources: those that need a conversion too, as every compiler reads .tflite."""
        return (*self.in_place, "pb", "pbtxt", "savedmodel", "keras", "h5")


COMPILERS: dict[str, Compiler] = {
    c.name: c
    for c in (
        Compiler(
            "builtin",
            "builtin",
            (3, 4),
            None,
            {"minmax": "minmax", "percentile": "percentile", "mse": "mse", "kl": "kl"},
            ("tflite", "onnx"),
        ),
        Compiler(
            "nncase-1.9.0",
            "vendor",
            (5,),
            "nncase-1.9.0",
            {"minmax": "no_clip", "mse": "l2", "kl": "kld_m2", "percentile": "cdf"},
            ("tflite", "onnx"),
        ),
        Compiler(
            "ncc-0.2.0-beta4",
            "vendor",
            (4,),
            "ncc-0.2.0-beta4",
            {"minmax": "no_clip", "mse": "l2"},
        ),
        Compiler("ncc-0.1.0-rc5", "vendor", (3,), "ncc-0.1.0-rc5", {"minmax": "minmax"}),
    )
}
