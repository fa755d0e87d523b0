"""Accuracy, where samples lie in one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k210tasks.artifacts.doubts import AnyDoubt, ClassesMisfit, StrangeFolder


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each file, by the output that scores them."""

    labels: tuple[str, ...]  # by index of the score
    output: int  # which output holds the scores
    index_of: dict[str, int] = field(repr=False)  # file -> index of its class


def find_classes(
    files: Sequence[str], shapes: Sequence[tuple[int, ...]], labels: Sequence[str] | None
) -> tuple[Classes | None, AnyDoubt | None]:
    """How accuracy can be told, or None and, where somebody may expect it, why not.

    Files lie in one folder per class. ``labels`` are by index of the score; without them
    the sorted names of the folders are. ``shapes`` are those of the outputs.
    """
    folders = [name.split("/", 1)[0] if "/" in name else None for name in files]
    if None in folders or (len(set(folders)) < 2 and not labels):
        return None, None
    named = sorted({f for f in folders if f is not None})
    known = tuple(labels) if labels else tuple(named)
    strange = [name for name in named if name not in known]
    if strange:
        # Folders that are no classes at all: nothing was promised.
        return None, None if len(strange) == len(named) else StrangeFolder(strange[0], known)
    scores = [i for i, shape in enumerate(shapes) if is_vector(shape) and shape[-1] == len(known)]
    if not scores:
        sizes = tuple(s[-1] for s in shapes if is_vector(s))
        return None, ClassesMisfit(len(known), sizes) if sizes else None
    index_of = {f: known.index(folder) for f, folder in zip(files, folders, strict=True) if folder}
    return Classes(known, scores[0], index_of), None


def class_folders(files: Sequence[str]) -> tuple[str, ...] | None:
    """The sorted names of the class folders, where every file lies in one of several."""
    folders = {name.split("/", 1)[0] for name in files if "/" in name}
    return tuple(sorted(folders)) if len(folders) > 1 and all("/" in f for f in files) else None


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether an output can be a row of class scores: one axis longer than 1, the last."""
    return len(shape) > 0 and shape[-1] > 1 and all(n == 1 for n in shape[:-1])
