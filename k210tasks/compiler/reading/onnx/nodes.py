"""A node of an ONNX graph as it stands in the file, and its attributes, read with their types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from k210tasks.compiler.problems import Unsupported
from k210tasks.errors import visible


@dataclass(frozen=True, slots=True)
class Node:
    """``inputs`` and ``outputs`` are names of tensors, "" where one is left out. ``attributes``:
    int, float, str, lists of these, or an array. ``opset`` is that of the op's domain."""

    op: str
    name: str
    index: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    domain: str = ""

    @property
    def title(self) -> str:
        """As the file calls it: its name, or where it has none, what it puts out."""
        name = self.name or next(filter(None, self.outputs), "")
        return visible(name).replace(", ", " ")

    @property
    def label(self) -> str:
        """As named in messages and listings: ``Conv /stem/conv/Conv``."""
        return f"{visible(self.op)} {self.title or f'#{self.index}'}"

    def unsupported(self, reason: str, remedy: str = "") -> Unsupported:
        """The refusal of this node."""
        return Unsupported(self.label, reason, remedy)

    def input(self, i: int) -> str:
        """The name of an input; "" where it is left out."""
        return self.inputs[i] if i < len(self.inputs) else ""

    def whole(self, name: str, default: int) -> int:
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.unsupported(f"{name} is {value!r}, a whole number is expected")
        return value

    def wholes(self, name: str) -> list[int] | None:
        """A list of whole numbers; None where it is left out."""
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(n, int) for n in value):
            raise self.unsupported(f"{name} is {value!r}, whole numbers are expected")
        return value

    def real(self, name: str, default: float) -> float:
        value = self.attributes.get(name, default)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.unsupported(f"{name} is {value!r}, a finite number is expected")
        return float(value)

    def reals(self, name: str) -> list[float] | None:
        value = self.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(n, (int, float)) and math.isfinite(n) for n in value
        ):
            raise self.unsupported(f"{name} is {value!r}, finite numbers are expected")
        return [float(n) for n in value]

    def text(self, name: str, default: str) -> str:
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise self.unsupported(f"{name} is {value!r}, a word is expected")
        return value
