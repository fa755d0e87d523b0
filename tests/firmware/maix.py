"""The modules of a board's MicroPython, as far as the check script uses them.

Images keep colours as RGB565 does; models are run by whatever function the test gives, from
the raw bytes a board would hand to its runtime.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

#: raw input bytes -> each output as a list of numbers
Run = Callable[[bytes], list[list[float]]]


class Image:
    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self.gray = False
        self.pixels: dict[tuple[int, int], Any] = {}
        self.pix_ai: bytes | None = None

    def to_grayscale(self) -> Image:
        self.gray = True
        return self

    def set_pixel(self, x: int, y: int, value: Any) -> None:
        assert isinstance(value, int if self.gray else tuple)
        if self.gray:
            self.pixels[x, y] = (value,)
        else:
            steps = zip(value, (31, 63, 31), strict=True)
            self.pixels[x, y] = tuple((math.floor(v * s / 255 + 0.5), s) for v, s in steps)

    def pix_to_ai(self) -> None:
        spots = [(x, y) for y in range(self.height) for x in range(self.width)]
        if self.gray:
            self.pix_ai = bytes(self.pixels[at][0] for at in spots)
        else:
            self.pix_ai = bytes(
                math.floor(self.pixels[at][plane][0] * 255 / self.pixels[at][plane][1] + 0.5)
                for plane in range(3)
                for at in spots
            )


def maixpy(run: Run, address: int, sizes: dict[int, int] | None = None) -> dict[str, ModuleType]:
    """``image`` and ``KPU``; ``sizes``: elements of each output of a kmodel 4."""
    kpu = ModuleType("KPU")
    found: list[list[float]] = []
    shaped: dict[int, int] = {}

    def load(where: int) -> str:
        assert where == address
        return "task"

    def set_outputs(task: str, index: int, w: int, h: int, c: int) -> bool:
        shaped[index] = w * h * c
        return sizes is not None and sizes[index] == w * h * c

    def forward(task: str, given: Any) -> list[float]:
        assert task == "task"
        if sizes is not None:
            assert shaped == sizes
        raw = struct.pack(f"<{len(given)}f", *given) if isinstance(given, list) else given.pix_ai
        assert raw is not None
        found[:] = run(raw)
        return found[0]

    kpu.load, kpu.set_outputs, kpu.forward = load, set_outputs, forward  # type: ignore[attr-defined]
    kpu.get_output = lambda task, index: found[index]  # type: ignore[attr-defined]
    kpu.deinit = lambda task: True  # type: ignore[attr-defined]
    return {"KPU": kpu, "image": _image()}


def canmv(run: Run, address: int, nbytes: int) -> dict[str, ModuleType]:
    """``maix`` of CanMV's main branch, which reads raw inputs from a file."""

    class KPU:
        def load_kmodel(self, where: int, size: int) -> None:
            assert (where, size) == (address, nbytes)

        def run_with_output(self, path: str, getlist: bool = False) -> list[float]:
            assert getlist
            return run(Path(path).read_bytes())[0]

        def deinit(self) -> None: ...

    return {"maix": _module("maix", KPU=KPU)}


def canmv_kpu5(run: Run, address: int, nbytes: int) -> dict[str, ModuleType]:
    """``maix`` and ``image`` of CanMV's branch feat/kpu."""

    class KPU:
        def load(self, where: int, *, size: int) -> None:
            assert (where, size) == (address, nbytes)

        def run(self, given: Image) -> None:
            assert given.pix_ai is not None
            self.found = run(given.pix_ai)

        def get_outputs(self) -> list[float]:
            return self.found[0]

        def deinit(self) -> None: ...

    return {"maix": _module("maix", KPU=KPU), "image": _image()}


def _image() -> ModuleType:
    return _module("image", Image=Image)


def _module(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    return module
