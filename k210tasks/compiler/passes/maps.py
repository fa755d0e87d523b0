"""Values of the float graph, and which pixels of a map in KPU RAM they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from k210tasks.compiler.functions import Primitive
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import Pair

MIN_SIDE = 4  # smallest map the KPU is fed with, and writes but where smaller ones are allowed
MAX_WIDTH, MAX_HEIGHT = 512, 256
MAX_CHANNELS = 1024
MAX_LOADS = 64
LOAD_BYTES = 30 * 1024


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels of ``tensor`` in KPU RAM: logical (y, x) is at ``offset + (y, x) * stride``.

    ``clean``: every pixel outside the picked ones is zero in reals.
    """

    tensor: Tensor
    offset: Pair
    stride: Pair
    size: Pair
    clean: bool = False

    @property
    def whole(self) -> bool:
        """Whether the map is the tensor itself."""
        return self.stride == (1, 1) and self.size == self.tensor.shape[2:]

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the picked pixels lie, whatever their channels."""
        return self.tensor.shape[2:], self.offset, self.stride, self.size

    @classmethod
    def of(cls, tensor: Tensor) -> Pixels:
        h, w = tensor.shape[2:]
        return cls(tensor, (0, 0), (1, 1), (h, w), True)


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of the float graph and the forms it exists in; ``shape`` as in that graph.

    ``unclamped``: floats that the value is a clamp of, which is computed for what reads it.
    ``parts``: a map of more channels than one KPU tensor can have, in groups of channels.
    """

    shape: tuple[int, ...]
    name: str
    source: int | None = None
    range: tuple[float, float] | None = None
    floats: Tensor | None = None
    codes: Tensor | None = None
    unclamped: tuple[Tensor, Primitive] | None = None
    map: Pixels | None = None
    vector: tuple[Tensor, Pair] | None = None  # (1, C, 4, 4) in KPU RAM, and the pixel
    parts: list[Value] = field(default_factory=list)

    @property
    def on_kpu(self) -> bool:
        return self.map is not None or self.vector is not None


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a (1, C, H, W) map can be an input of the KPU."""
    _, c, h, w = shape
    return 1 <= c <= MAX_CHANNELS and MIN_SIDE <= h <= MAX_HEIGHT and MIN_SIDE <= w <= MAX_WIDTH
