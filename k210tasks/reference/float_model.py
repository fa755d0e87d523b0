"""The float model as ``verify`` asks it: real numbers in, real numbers out."""

from __future__ import annotations

from typing import Any

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
        scale, zero = self._model.input["quantization"]
        dtype = self._model.input["dtype"]
        fed: NDArray[Any] = tensor
        if scale and np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            fed = np.clip(np.rint(tensor / scale) + zero, limits.min, limits.max)
        outputs = []
        for detail, raw in zip(self._model.outputs, self._model.run(fed), strict=True):
            scale, zero = detail["quantization"]
            real = raw.astype(np.float32)
            if scale and raw.dtype.kind in "iu":
                real = (real - zero) * scale
            outputs.append(real.astype(np.float32))
        return outputs
