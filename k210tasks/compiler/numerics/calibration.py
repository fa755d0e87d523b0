"""What one run of the float model over the samples left behind, in memory and as a file.

Everything any calibration method and the weight rounding need is in here, so neither a
change of the method nor of any compiler setting runs the model again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.numerics.histogram import HALF, Histogram
from k210tasks.compiler.options import Fed
from k210tasks.errors import K210Error
from k210tasks.jsondata import loads, plain
from k210tasks.npz import NpzWriter, read

FORMAT = 3
_PIECE = 1 << 15  # values looked at together


class CalibrationError(K210Error):
    """Calibration data that cannot be used, or cannot be made."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor in the file; ``values``: whether sampled pixels of it are there."""

    index: int
    name: str
    shape: tuple[int, ...]
    exponent: int
    values: bool


@dataclass(frozen=True, slots=True)
class _Form:
    format: int = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(_Form):
    """What the file says of its arrays; ``pixels``: (pixels of a tensor, kept of them)."""

    model: str
    samples: int
    fed: Fed | None
    kept_at: tuple[int, ...]
    pixels: tuple[tuple[int, int], ...]
    tensors: tuple[TensorHeader, ...]


def header_of(meta: NDArray[np.uint8]) -> Header:
    """Raises :class:`CalibrationError` for another format, ValueError for what is no header."""
    form = loads(_Form, meta.tobytes()).format
    if form != FORMAT:
        raise CalibrationError(
            f"the calibration data has format {form}, this version reads {FORMAT}: calibrate again"
        )
    return loads(Header, meta.tobytes())


@dataclass(slots=True)
class TensorStats:
    """One float tensor of the source file over all samples; ``shape`` as the file has it.

    ``channel_low`` and ``channel_high`` [C] are extremes per index of the last axis.
    ``values`` float32 [K, P, C]: sampled pixels of the K kept samples, the flat pixel
    numbers (over the axes between batch and channels) in ``Calibration.pixels``; None for
    tensors that only move values.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    channel_low: NDArray[np.float32]
    channel_high: NDArray[np.float32]
    histogram: Histogram
    values: NDArray[np.float32] | None = None

    @property
    def low(self) -> float:
        return float(self.channel_low.min())

    @property
    def high(self) -> float:
        return float(self.channel_high.max())

    @property
    def pixel_count(self) -> int:
        return pixel_count(self.shape)


def pixel_count(shape: tuple[int, ...]) -> int:
    """Elements of a tensor divided by its channels."""
    return int(np.prod(shape[:-1], dtype=np.int64)) if shape else 1


@dataclass(slots=True)
class Calibration:
    """Statistics per tensor index of the ``.tflite``, and a few whole samples.

    ``kept`` float32 [K, ...] are evenly spaced samples as the model was fed them (without
    the batch axis), ``kept_at`` their positions among the ``samples`` seen. ``pixels``
    maps a number of pixels to int32 [K, P]: which pixels of a tensor with that many were
    kept per sample, the same for all such tensors. ``fed`` is what the samples were: pixels
    under the preprocessing contract, or tensors; None where nobody said.
    """

    model_sha256: str
    samples: int
    tensors: dict[int, TensorStats]
    kept: NDArray[np.float32]
    kept_at: tuple[int, ...]
    pixels: dict[int, NDArray[np.int32]]
    fed: Fed | None = None

    def to_npz(self, target: Path | IO[bytes]) -> None:
        """Write the file; equal data gives equal bytes."""
        stats = list(self.tensors.values())
        counts = sorted(self.pixels)
        header = Header(
            model=self.model_sha256,
            samples=self.samples,
            fed=self.fed,
            kept_at=self.kept_at,
            pixels=tuple((n, self.pixels[n].shape[1]) for n in counts),
            tensors=tuple(
                TensorHeader(t.index, t.name, t.shape, t.histogram.exponent, t.values is not None)
                for t in stats
            ),
        )
        text = json.dumps(plain(header), sort_keys=True)
        arrays: dict[str, NDArray[Any]] = {
            "meta": np.frombuffer(text.encode(), np.uint8),
            "low": _flat([t.channel_low for t in stats]),
            "high": _flat([t.channel_high for t in stats]),
            "counts": np.array([t.histogram.counts for t in stats], np.int64).reshape(-1, 2 * HALF),
            **_palette(self.kept),
            "pixels": np.concatenate(
                [np.zeros((len(self.kept), 0), np.int32), *(self.pixels[n] for n in counts)], axis=1
            ),
        }
        values = [t.values for t in stats if t.values is not None]
        with NpzWriter(target) as writer:
            for name, array in arrays.items():
                writer.array(name, array)
            # One array for all tensors, as each costs a tenth of a millisecond to read, but
            # written part by part: they are most of the file.
            writer.stack("values", (sum(v.size for v in values),), np.float32, values)

    @classmethod
    def from_npz(cls, source: Path | IO[bytes]) -> Calibration:
        """Read the file; raises :class:`CalibrationError` for anything else."""
        try:
            data = read(source)
            return cls._build(header_of(data["meta"]), data)
        except (OSError, KeyError, ValueError, IndexError, OverflowError, TypeError) as error:
            raise CalibrationError(
                f"not calibration data of the built-in compiler ({error}): calibrate again"
            ) from error

    @classmethod
    def _build(cls, header: Header, data: dict[str, NDArray[Any]]) -> Calibration:
        kept = data["kept_codes"]
        if "kept_palette" in data:
            kept = data["kept_palette"][kept]
        each = dict(header.pixels)
        bounds = np.cumsum(list(each.values()), dtype=np.int64)
        pixels = dict(zip(each, np.split(data["pixels"], bounds, axis=1)[:-1], strict=True))
        tensors: dict[int, TensorStats] = {}
        at_channel = at_value = 0
        for i, t in enumerate(header.tensors):
            channels = t.shape[-1] if t.shape else 1
            span = slice(at_channel, at_channel + channels)
            at_channel += channels
            values = None
            if t.values:
                dims = (len(kept), each[pixel_count(t.shape)], channels)
                end = at_value + int(np.prod(dims))
                values = data["values"][at_value:end].reshape(dims)
                at_value = end
            tensors[t.index] = TensorStats(
                t.index,
                t.name,
                t.shape,
                data["low"][span],
                data["high"][span],
                Histogram(t.exponent, data["counts"][i]),
                values,
            )
        return cls(
            header.model,
            header.samples,
            tensors,
            kept,
            header.kept_at,
            pixels,
            header.fed,
        )


def _flat(arrays: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate([a.ravel() for a in arrays]) if arrays else np.zeros(0, np.float32)


def _palette(kept: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Samples made of pixels hold at most 256 equidistant values: a byte each and the values."""
    plain: dict[str, NDArray[Any]] = {"kept_codes": kept}
    if not kept.size:
        return plain
    # Few pixels tell already whether values are pixels; only then all are looked at.
    gaps = np.diff(np.sort(kept.reshape(-1)[:4096]))
    gaps = gaps[gaps > 0]
    if not 1 <= len(gaps) <= 255:
        return plain
    step = float(gaps.min())
    low, high = float(kept.min()), float(kept.max())
    if not step > 0 or high - low > 255.25 * step:
        return plain
    palette = np.zeros(256, np.float32)
    codes = np.empty(kept.shape, np.uint8)
    flat, into = kept.reshape(-1), codes.reshape(-1)
    pieces = [slice(at, at + _PIECE) for at in range(0, kept.size, _PIECE)]
    for piece in pieces:  # which stays in the processor's cache
        scaled = flat[piece] - np.float32(low)
        scaled *= np.float32(1 / step)
        into[piece] = np.rint(scaled, out=scaled)
        palette[into[piece]] = flat[piece]
    if not all(np.array_equal(palette[into[piece]], flat[piece]) for piece in pieces):
        return plain
    return {"kept_codes": codes, "kept_palette": palette}
