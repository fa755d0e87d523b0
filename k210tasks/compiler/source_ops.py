"""The tensors and ops of a model's file as they stand there, before anything is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

#: an op's fields by name, as the file has them
Attributes = dict[str, Any]


@dataclass(slots=True)
class SourceTensor:
    """A tensor of the file as it stands there: TFLite shape, index, constant or not."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    value: NDArray[Any] | None = None
    scale: NDArray[Any] | None = None
    zero_point: NDArray[Any] | None = None
    axis: int = 0
    dynamic: bool = False
    open: bool = False  # its batch, at least, was left open: ``shape`` has a 1 there
    grown: bool = False  # more than that one, from what it is made of
    sparse: bool = False


@dataclass(slots=True)
class SourceOp:
    """An op of the file: name, index, version, options read into a dictionary. ``title``: what
    the file itself calls it, where it does."""

    name: str
    index: int
    version: int
    inputs: list[SourceTensor | None]
    outputs: list[SourceTensor]
    options: Attributes = field(default_factory=dict)
    title: str = ""

    @property
    def place(self) -> str:
        """Which one of its kind it is."""
        return self.title or f"#{self.index}"

    @property
    def label(self) -> str:
        """As named in messages, e.g. ``CONV_2D #3``."""
        return f"{self.name} {self.place}"

    def shape(self, i: int = 0) -> tuple[int, ...]:
        tensor = self.inputs[i]
        return tensor.shape if tensor else ()

    def const(self, i: int) -> NDArray[Any] | None:
        """The value of a constant input; None where it is computed or absent."""
        tensor = self.inputs[i] if i < len(self.inputs) else None
        return tensor.value if tensor else None
