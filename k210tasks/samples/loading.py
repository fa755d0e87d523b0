"""Files of samples to arrays, by the preprocessing contract.

A picture becomes raw pixels, uint8 and planar as cameras and kmodels have them, and from
those the float model's input ``(pixel / 255 - mean) / std``. A tensor file is that input
already. :mod:`k210tasks.samples.folder` says which files of a folder count; here they are read,
each one checked, since any of them can be damaged, huge or of the wrong shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from k210tasks.errors import K210Error
from k210tasks.process_wide import unwarned
from k210tasks.samples.folder import Samples, evenly_spaced, kind_of, scan
from k210tasks.samples.preprocess import Color, Preprocess

__all__ = [
    "Loader",
    "Sample",
    "SampleError",
    "Samples",
    "evenly_spaced",
    "normalise",
    "planar",
    "scan",
    "stretch",
]

#: A picture of more pixels is refused before it is decoded (about 190 MB as RGB).
MAX_PIXELS = 64_000_000

#: Decoders that are let near a file; its suffix does not choose among them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF")


class SampleError(K210Error):
    """A sample that cannot be used; ``file`` is its path as shown."""

    def __init__(self, file: str, sentence: str) -> None:
        super().__init__(sentence)
        self.file = file


class PictureUnreadable(SampleError):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(
            file,
            f"{file} cannot be read as a picture: {why}; replace or remove it",
        )


class PictureTooLarge(SampleError):
    def __init__(self, file: str, size: tuple[int, int] | None) -> None:
        found = f"{size[0]}x{size[1]} = {size[0] * size[1]}" if size else "too many"
        super().__init__(
            file,
            f"{file} has {found} pixels; at most {MAX_PIXELS} are read. Scale it down",
        )


class PictureWrongSize(SampleError):
    def __init__(self, file: str, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__(
            file,
            f"{file} is {found[0]}x{found[1]} pixels, the model's input {wanted[0]}x{wanted[1]} "
            "(width x height), and preprocess.resize is exact; scale the picture, or set "
            "resize: stretch",
        )


class NotForPictures(SampleError):
    def __init__(self, file: str, shape: tuple[int, ...], why: str) -> None:
        super().__init__(
            file,
            f"{file} is a picture, but the model's input {_times(shape)} {why}; "
            "give .npy or raw float32 .bin tensors",
        )


class TensorUnreadable(SampleError):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, f"{file} cannot be read as a tensor: {why}; replace or remove it")


class TensorWrongShape(SampleError):
    def __init__(self, file: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        super().__init__(
            file,
            f"{file} holds a tensor of shape {_times(found)}; the model's input is "
            f"{_times(wanted)} (the batch of 1 may be left out)",
        )


class TensorWrongType(SampleError):
    def __init__(self, file: str, dtype: str) -> None:
        super().__init__(
            file,
            f"{file} holds {dtype} numbers; a tensor is the float model's own input, "
            "float32, with mean and std applied",
        )


class TensorWrongLength(SampleError):
    def __init__(self, file: str, found: int, shape: tuple[int, ...]) -> None:
        super().__init__(
            file,
            f"{file} has {found} bytes; the model's input {_times(shape)} takes "
            f"{4 * math.prod(shape)} bytes of float32",
        )


class TensorNotFinite(SampleError):
    def __init__(self, file: str, count: int) -> None:
        super().__init__(file, f"{file} holds {count} values that are infinite or not a number")


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

    ``shape`` is the input of the ``.tflite`` with its batch of 1: ``(1, H, W, C)`` for
    pictures, C 1 or 3 (``(1, H, W)`` counts as grey), anything for tensors.
    """

    def __init__(self, shape: tuple[int, ...], preprocess: Preprocess) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.preprocess = preprocess

    def load(self, path: Path, shown: str | None = None) -> Sample:
        """Read one file; ``shown`` is its name in errors and in the result.

        Raises:
            SampleError: one of the subclasses above, always naming the file.
        """
        shown = str(path) if shown is None else shown
        if kind_of(path.name) == "tensors":
            return Sample(shown, None, _read_tensor(path, shown, self.shape))
        pixels = self.pixels(path, shown)
        mean, std = self.preprocess.effective_mean, self.preprocess.effective_std
        return Sample(shown, pixels, normalise(pixels, mean, std).reshape(self.shape))

    def pixels(self, path: Path, shown: str | None = None) -> NDArray[np.uint8]:
        """A picture as the kmodel is fed it: uint8 (C, H, W), raw, in the contract's colours."""
        shown = str(path) if shown is None else shown
        height, width, channels = self._picture_shape(shown)
        color = self.preprocess.color or ("gray" if channels == 1 else "rgb")
        if (color == "gray") != (channels == 1):
            many = "1 channel" if channels == 1 else f"{channels} channels"
            why = f"has {many} while preprocess.color is {color}"
            raise NotForPictures(shown, self.shape, why)
        picture = _decode(path, shown, color)
        found = (picture.shape[1], picture.shape[0])
        if found != (width, height):
            if self.preprocess.resize == "exact":
                raise PictureWrongSize(shown, found, (width, height))
            picture = stretch(picture, height, width)
        return np.ascontiguousarray(picture.transpose(2, 0, 1))

    def tensor(self, path: Path, shown: str | None = None) -> NDArray[np.float32]:
        """The float model's input, float32 of :attr:`shape`, of a picture or a tensor file."""
        return self.load(path, shown).tensor

    def _picture_shape(self, shown: str) -> tuple[int, int, int]:
        shape = self.shape
        if len(shape) == 3:
            shape = (*shape, 1)
        if len(shape) != 4:
            raise NotForPictures(shown, self.shape, "has no height, width and channels")
        if shape[0] != 1:
            raise NotForPictures(shown, self.shape, f"is a batch of {shape[0]}")
        if shape[3] not in (1, 3):
            why = f"has {shape[3]} channels, neither 1 (grey) nor 3 (colour)"
            raise NotForPictures(shown, self.shape, why)
        return shape[1], shape[2], shape[3]


def normalise(pixels: NDArray[np.uint8], mean: float, std: float) -> NDArray[np.float32]:
    """``(pixel / 255 - mean) / std`` of pixels (C, H, W), as float32 (1, H, W, C)."""
    table = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    return table[pixels.transpose(1, 2, 0)][None]


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
    try:
        # Unwarned, since Pillow's own limit lies above ours.
        with unwarned, Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise PictureTooLarge(shown, opened.size)
            opened.load()
            upright = _upright(opened)
            if upright.mode.startswith("I"):  # 16-bit grey: keep the upper byte
                wide = np.asarray(upright).astype(np.int64) >> 8
                upright = Image.fromarray(np.clip(wide, 0, 255).astype(np.uint8))
            mode = "L" if color == "gray" else "RGB"
            # Only what has another mode is converted: convert and exif_transpose copy.
            pixels = np.array(upright if upright.mode == mode else upright.convert(mode))
    except SampleError:
        raise
    except Image.DecompressionBombError:
        raise PictureTooLarge(shown, None) from None
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise PictureUnreadable(shown, _reason(error)) from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels[:, :, ::-1] if color == "bgr" else pixels


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


def _read_tensor(path: Path, shown: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    read = _read_npy if path.suffix.lower() == ".npy" else _read_raw
    try:
        tensor = read(path, shown, shape)
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


def _read_npy(path: Path, shown: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    try:
        # Mapped, so that a header that lies about the size allocates nothing.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise TensorUnreadable(shown, str(error).splitlines()[0] or "damaged") from error
    if not isinstance(stored, np.ndarray):  # a renamed .npz
        stored.close()
        raise TensorUnreadable(shown, "it is an archive of arrays")
    if stored.dtype.kind != "f":
        raise TensorWrongType(shown, str(stored.dtype))
    if tuple(stored.shape) not in (shape, shape[1:]):
        raise TensorWrongShape(shown, stored.shape, shape)
    with np.errstate(over="ignore"):  # float64 beyond float32 is then reported as not finite
        return np.array(stored, dtype=np.float32).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "()"
