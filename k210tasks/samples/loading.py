"""Files of samples to arrays, by the preprocessing contract.

A picture becomes raw pixels, uint8 and planar as cameras and kmodels have them, and from
those the float model's input ``(pixel / 255 - mean) / std``. A tensor file is that input
already. :mod:`k210tasks.samples.folder` says which files of a folder count; here they are read,
each one checked, since any of them can be damaged, huge or of the wrong shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from k210tasks.process_wide import unwarned
from k210tasks.samples.folder import Samples, evenly_spaced, kind_of_sample, scan
from k210tasks.samples.preprocess import Color, PerChannel, Preprocess
from k210tasks.samples.refusals import (
    MAX_PIXELS,
    NotForPictures,
    PictureImplausible,
    PictureNotThatRow,
    PictureTooLarge,
    PictureUnreadable,
    PictureWrongSize,
    SampleError,
    WrongColor,
    WrongNumbers,
)
from k210tasks.samples.tensor_files import read_tensor, samples_in

__all__ = [
    "Loader",
    "Sample",
    "SampleError",
    "Samples",
    "evenly_spaced",
    "normalise",
    "picture_shape",
    "planar",
    "scan",
    "stretch",
]

#: Decoders that are let near a file; its suffix does not choose among them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF")
#: Pixels for each byte of a file, of which photographs have some ten and flat drawings some
#: hundred; a damaged or hostile file, which claims any size, has more. Files count as
#: :data:`_SMALL` bytes at least.
_PLAUSIBLE, _SMALL = 250, 16_000
_STRIP = 1 << 20  # pixels that are converted at a time


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample in both forms.

    ``pixels``: uint8 (C, H, W), None for a tensor file. ``tensor``: float32, the float
    model's input with its batch of 1, channels last.
    """

    file: str
    pixels: NDArray[np.uint8] | None
    tensor: NDArray[np.float32]


class Loader:
    """Reads samples for one model.

    ``shape`` is the input of the model with its batch of 1: ``(1, H, W, C)`` for
    pictures, C 1 or 3 (grey also :func:`as <picture_shape>` ``(1, H, W)`` and ``(1, N * N)``),
    anything for tensors. ``planar``: the shape of tensor files, ``(1, C, …)``, where they have
    channels first.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        preprocess: Preprocess,
        planar: tuple[int, ...] | None = None,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.preprocess = preprocess
        self._stored = self.shape if planar is None else planar

    def names(self, folder: Path, files: Sequence[str]) -> tuple[str, ...]:
        """The samples in ``files`` of ``folder``: an ``.npy`` that holds N of them becomes the
        N names ``FILE.npy[0000]``, ``FILE.npy[0001]``, …, which :meth:`load` takes as paths.

        Reads no more than the heads of the files. One that cannot be read keeps its name:
        loading it will say what is wrong.
        """
        return tuple(name for file in files for name in samples_in(folder, file, self._stored))

    def load(self, path: Path, shown: str | None = None) -> Sample:
        """Read one sample; ``shown`` is its name in errors and in the result.

        Raises:
            SampleError: one of the subclasses above, always naming the file.
        """
        shown = str(path) if shown is None else shown
        if kind_of_sample(path.name) == "tensors":
            tensor = read_tensor(path, shown, self._stored)
            if self._stored != self.shape:
                tensor = np.ascontiguousarray(np.moveaxis(tensor, 1, -1)).reshape(self.shape)
            return Sample(shown, None, tensor)
        pixels = self.pixels(path, shown)
        mean, std = self.preprocess.effective_mean, self.preprocess.effective_std
        return Sample(shown, pixels, normalise(pixels, mean, std).reshape(self.shape))

    def pixels(self, path: Path, shown: str | None = None) -> NDArray[np.uint8]:
        """A picture as the kmodel is fed it: uint8 (C, H, W), raw, in the contract's colours."""
        shown = str(path) if shown is None else shown
        height, width, channels = self._picture_shape(shown)
        color = self.preprocess.color or ("gray" if channels == 1 else "rgb")
        if (color == "gray") != (channels == 1):
            raise WrongColor(shown, self.shape, color)
        misfit = self.preprocess.misfits(channels)
        if misfit is not None:
            raise WrongNumbers(shown, self.shape, channels, misfit)
        picture = _decode(path, shown, color)
        found = (picture.shape[1], picture.shape[0])
        if found != (width, height):
            if len(self.shape) == 2:
                raise PictureNotThatRow(shown, found, width)
            if self.preprocess.resize == "exact":
                raise PictureWrongSize(shown, found, (width, height))
            picture = stretch(picture, height, width)
        return np.ascontiguousarray(picture.transpose(2, 0, 1))

    def tensor(self, path: Path, shown: str | None = None) -> NDArray[np.float32]:
        """The float model's input, float32 of :attr:`shape`, of a picture or a tensor file."""
        return self.load(path, shown).tensor

    def _picture_shape(self, shown: str) -> tuple[int, int, int]:
        found = picture_shape(self.shape)
        if isinstance(found, str):
            raise NotForPictures(shown, self.shape, found)
        return found


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | str:
    """Height, width and channels of the pictures that a model of that input takes, or why none.

    ``shape`` with its batch of 1: ``(1, H, W, C)``, C 1 or 3; grey without an axis for it,
    ``(1, H, W)``; and ``(1, N * N)``, a grey picture row by row, whose rows can only be N
    pixels long (:class:`Loader` scales none to that).
    """
    if len(shape) == 2 and (side := math.isqrt(shape[1])) ** 2 == shape[1] and side > 1:
        shape = (shape[0], side, side)
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4:
        return "has no height, width and channels"
    if shape[0] != 1:
        return f"is a batch of {shape[0]}"
    if shape[3] not in (1, 3):
        return f"has {shape[3]} channels, neither 1 (grey) nor 3 (colour)"
    return shape[1], shape[2], shape[3]


def normalise(pixels: NDArray[np.uint8], mean: PerChannel, std: PerChannel) -> NDArray[np.float32]:
    """``(pixel / 255 - mean) / std`` of pixels (..., C, H, W), as float32 (1, ..., H, W, C)."""
    last = np.moveaxis(pixels, -3, -1)
    if not isinstance(mean, tuple) and not isinstance(std, tuple):
        table = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
        return table[last][None]
    means, stds = np.broadcast_arrays(mean, std)
    tables = ((np.arange(256) / 255 - means[:, None]) / stds[:, None]).astype(np.float32)
    return np.ascontiguousarray(tables[np.arange(len(tables)), last])[None]


def planar(tensor: NDArray[Any]) -> NDArray[Any]:
    """A model input or output without its batch, channels first where it is a feature map.

    (1, H, W, C) becomes (C, H, W); any other rank keeps its order, as kmodels do.
    """
    if tensor.ndim == 4:
        return np.ascontiguousarray(tensor[0].transpose(2, 0, 1))
    return tensor.reshape(tensor.shape[1:]) if tensor.ndim > 1 else tensor


def stretch(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Scale (H, W, C) to another size as nncase does it: bilinear between the four nearest
    pixels, pixel centres at halves, without smoothing when shrinking.
    """
    top, bottom, down = _neighbours(picture.shape[0], height)
    left, right, across = _neighbours(picture.shape[1], width)
    across = across[None, :, None]
    down = down[:, None, None]

    def line(rows: NDArray[np.intp]) -> NDArray[np.float64]:
        taken = picture[rows]
        return taken[:, left] * (1 - across) + taken[:, right] * across

    mixed = line(top) * (1 - down) + line(bottom) * down
    return np.floor(mixed + 0.5).astype(np.uint8)


def _neighbours(
    source: int, target: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """For each target pixel: its lower and upper source pixel and the weight of the upper."""
    at = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    lower = np.floor(at).astype(np.intp)
    return lower, np.minimum(lower + 1, source - 1), at - lower


def _decode(path: Path, shown: str, color: Color) -> NDArray[np.uint8]:
    """A picture upright, uint8 (H, W, C); of an animation the first frame.

    Transparency is ignored: neither cameras nor nncase know it.
    """
    Image.preinit()  # else Pillow, not finding all of FORMATS, imports every decoder it has
    try:
        # Unwarned, since Pillow's own limit lies above ours.
        with unwarned, Image.open(path, formats=FORMATS) as opened:
            refuse_large(opened, path, shown)
            opened.load()
            upright, mode = _upright(opened), "L" if color == "gray" else "RGB"
            height, width = upright.height, upright.width
            pixels = np.empty((height, width) if mode == "L" else (height, width, 3), np.uint8)
            rows = max(1, _STRIP // max(width, 1))
            for top in range(0, height, rows):  # whole, each step of Pillow's would be a copy
                box = (0, top, width, min(top + rows, height))
                strip = upright if box == (0, 0, width, height) else upright.crop(box)
                pixels[top : box[3]] = _bytes(strip, mode)
    except SampleError:
        raise
    except Image.DecompressionBombError:
        raise PictureTooLarge(shown, None) from None
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise PictureUnreadable(shown, _reason(error)) from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels[:, :, ::-1] if color == "bgr" else pixels


def refuse_large(picture: Image.Image, path: Path, shown: str) -> None:
    """Raise :class:`SampleError` for a picture, not yet decoded, that claims too many pixels."""
    pixels, size = picture.width * picture.height, path.stat().st_size
    if pixels > MAX_PIXELS:
        raise PictureTooLarge(shown, picture.size)
    if pixels > _PLAUSIBLE * max(size, _SMALL):
        raise PictureImplausible(shown, picture.size, size, _PLAUSIBLE)


def _bytes(picture: Image.Image, mode: str) -> NDArray[np.uint8]:
    """Pixels of mode L or RGB."""
    if picture.mode.startswith("I"):  # 16-bit grey: keep the upper byte
        wide = np.asarray(picture).astype(np.int64) >> 8
        picture = Image.fromarray(np.clip(wide, 0, 255).astype(np.uint8))
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; as it lies where the EXIF block is damaged."""
    try:
        ImageOps.exif_transpose(picture, in_place=True)
        return picture
    except Exception:  # pixels were read; a camera's odd metadata is no reason to refuse them
        return picture


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its content is no JPEG, PNG, BMP or GIF"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
