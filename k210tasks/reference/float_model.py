"""The float model as ``verify`` asks it: real numbers in, real numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from k210tasks.reference.litert import FloatModel


class Reference:
    """The float model; a quantised ``.tflite`` is fed and read in real numbers too."""

    def __init__(self, tflite: bytes) -> None:
        self._model = FloatModel(tflite)
        self.shape = self._model.input_shape
        self.names = self._model.output_names

    def run(self, tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.asarray(y, np.float32) for y in self._model.run(tensor)]
