"""Tensor files: ``.npy`` of one sample or of many, raw float32 in ``.bin``.

Which of the two an ``.npy`` is, its shape tells: that of the model's input, with or without
its batch of 1, is one sample; one more axis in front, or N in place of the batch of 1, is N.
Both at once it cannot be, since what is left of the input's shape must match exactly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.npz import BadArrays, mapped
from k210tasks.samples.folder import index_of, indexed
from k210tasks.samples.refusals import (
    SampleError,
    TensorMissing,
    TensorNotFinite,
    TensorUnreadable,
    TensorWrongLength,
    TensorWrongShape,
    TensorWrongType,
)


def samples_in(folder: Path, file: str, shape: tuple[int, ...]) -> list[str]:
    """The names of the samples in ``file`` of ``folder``, for a model's input of ``shape``."""
    if file.lower().endswith(".npy"):
        try:
            count = _count(_map(folder / file, file), shape)
        except (SampleError, OSError):
            count = None
        if count is not None:
            return [indexed(file, i) for i in range(count)]
    return [file]


def read_tensor(path: Path, shown: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One sample, float32 of ``shape``; ``path`` may end in the index of one among many.

    Raises :class:`SampleError`, naming ``shown``.
    """
    name, index = index_of(path.name)
    file = path.with_name(name)
    try:
        if name.lower().endswith(".npy"):
            tensor = _read_npy(file, shown, shape, index)
        else:
            tensor = _read_raw(file, shown, shape)
    except OSError as error:
        raise TensorUnreadable(shown, error.strerror or str(error)) from error
    if bad := int(tensor.size - np.isfinite(tensor).sum()):
        raise TensorNotFinite(shown, bad)
    return tensor


def _read_raw(path: Path, shown: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = path.stat().st_size
    if size != 4 * math.prod(shape):
        raise TensorWrongLength(shown, size, shape)
    return np.fromfile(path, "<f4").astype(np.float32, copy=False).reshape(shape)


def _read_npy(
    path: Path, shown: str, shape: tuple[int, ...], index: int | None
) -> NDArray[np.float32]:
    stored = _map(path, shown)
    if stored.dtype.kind != "f":
        raise TensorWrongType(shown, str(stored.dtype))
    count = _count(stored, shape)
    if index is not None and count is not None:
        if index >= count:
            raise TensorMissing(shown, count)
        stored = stored[index]
    elif index is not None or tuple(stored.shape) not in _one(shape):
        raise TensorWrongShape(shown, tuple(stored.shape), shape)
    with np.errstate(over="ignore"):  # float64 beyond float32 is then reported as not finite
        return np.array(stored, dtype=np.float32).reshape(shape)


def _map(path: Path, shown: str) -> NDArray[Any]:
    try:
        return mapped(path)
    except BadArrays as error:
        raise TensorUnreadable(shown, str(error)) from error


def _one(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes of one sample; a model's input of one axis has no batch to leave out."""
    return (shape, shape[1:]) if len(shape) > 1 else (shape,)


def _count(stored: NDArray[Any], shape: tuple[int, ...]) -> int | None:
    """How many samples an array holds; None for one sample, and for anything else."""
    found = tuple(stored.shape)
    if found in _one(shape) or not found or found[0] == 0 or found[1:] not in _one(shape):
        return None
    return int(found[0])
