"""What the compiler asks of a float model, whoever runs it, and in which process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FloatTensor:
    """A float32 tensor that depends on the input. ``shape`` with the batch, in the layout of the
    file. ``moved``: it holds values of other tensors in other places, and none of its own."""

    name: str
    shape: tuple[int, ...]
    moved: bool


class FloatModel(Protocol):
    """A model with one input, which shows what an input makes of its tensors."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch, in the layout of the file."""

    @property
    def tensors(self) -> Mapping[int, FloatTensor]:
        """What can be looked at, by the numbers that the compiler's reader gives tensors."""

    def values(
        self, inputs: Sequence[NDArray[np.float32]], wanted: Collection[int]
    ) -> Iterator[Mapping[int, NDArray[np.float32]]]:
        """For each of ``inputs``, of the input's shape and in their order, the tensors
        ``wanted``: each of its shape, and good until the next mapping is asked for."""


#: Makes a model of the bytes of its file; a model is used by one thread at a time.
OpenModel = Callable[[bytes], FloatModel]
