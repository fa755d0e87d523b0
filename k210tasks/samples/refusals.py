"""What can be wrong with a sample, said with the file, the value and the way out."""

from __future__ import annotations

import math

from k210tasks.errors import K210Error

#: A picture of more pixels is refused before it is decoded (about 190 MB as RGB).
MAX_PIXELS = 64_000_000


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


class PictureImplausible(SampleError):
    def __init__(self, file: str, size: tuple[int, int], nbytes: int, limit: int) -> None:
        super().__init__(
            file,
            f"{file} claims {size[0]}x{size[1]} = {size[0] * size[1]} pixels in {nbytes} bytes; a "
            f"large picture has at most {limit} for each byte. It is damaged, or made to fill the "
            "memory: replace or remove it, or save it smaller",
        )


class PictureWrongSize(SampleError):
    def __init__(self, file: str, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__(
            file,
            f"{file} is {found[0]}x{found[1]} pixels, the model's input {wanted[0]}x{wanted[1]} "
            "(width x height), and preprocess.resize is exact; scale the picture, or set "
            "resize: stretch",
        )


class PictureNotThatRow(SampleError):
    def __init__(self, file: str, found: tuple[int, int], side: int) -> None:
        super().__init__(
            file,
            f"{file} is {found[0]}x{found[1]} pixels; a model whose input is one row of "
            f"{side * side} values is fed with grey pictures of {side}x{side} only, since it does "
            "not say how its pictures were scaled; scale the picture",
        )


class NotForPictures(SampleError):
    def __init__(self, file: str, shape: tuple[int, ...], why: str) -> None:
        super().__init__(
            file,
            f"{file} is a picture, but the model's input {times(shape)} {why}; "
            "give .npy or raw float32 .bin tensors",
        )


class WrongColor(SampleError):
    def __init__(self, file: str, shape: tuple[int, ...], color: str) -> None:
        remedy = "set it to rgb or bgr" if color == "gray" else "set it to gray"
        super().__init__(
            file,
            f"{file} is a picture, and preprocess.color is {color}, but the model's input "
            f"{times(shape)} has {'3 channels' if color == 'gray' else '1 channel'}; {remedy}, "
            "or leave it out",
        )


class WrongNumbers(SampleError):
    """mean or std one a channel, of other channels than there are."""

    def __init__(self, file: str, shape: tuple[int, ...], channels: int, misfit: str) -> None:
        plural, each = ("s", f", or {channels}") if channels > 1 else ("", "")
        super().__init__(
            file,
            f"{file} is a picture, and preprocess.{misfit}, but the model's input {times(shape)} "
            f"has {channels} channel{plural}; write one number{each}",
        )


class TensorUnreadable(SampleError):
    def __init__(self, file: str, why: str) -> None:
        super().__init__(file, f"{file} cannot be read as a tensor: {why}; replace or remove it")


class TensorWrongShape(SampleError):
    def __init__(self, file: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        super().__init__(
            file,
            f"{file} holds a tensor of shape {times(found)}; the model's input is "
            f"{times(wanted)} (the batch of 1 may be left out, and N samples in one .npy have "
            "N in its place)",
        )


class TensorMissing(SampleError):
    def __init__(self, file: str, count: int) -> None:
        super().__init__(file, f"{file} is not there: the file holds {count} samples")


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
            f"{file} has {found} bytes; the model's input {times(shape)} takes "
            f"{4 * math.prod(shape)} bytes of float32",
        )


class TensorNotFinite(SampleError):
    def __init__(self, file: str, count: int) -> None:
        super().__init__(file, f"{file} holds {count} values that are infinite or not a number")


def times(shape: tuple[int, ...]) -> str:
    """``28x28``; ``()`` of a scalar."""
    return "x".join(map(str, shape)) or "()"
