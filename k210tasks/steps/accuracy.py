"""Accuracy, where samples lie in one folder per class, and the mean/std pair that was meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from k210tasks.engine.job import Folder
from k210tasks.reference.float_model import Reference
from k210tasks.reference.metrics import top1
from k210tasks.samples.folder import evenly_spaced
from k210tasks.samples.loading import Loader, normalise

#: Below this accuracy of the float model the usual mean/std pairs are tried on it.
LOW_ACCURACY = 0.9
#: Another pair is named only where it is better by this much.
CLEARLY_BETTER = 0.05
#: Samples used for trying a pair, at most.
TRIED_SAMPLES = 200
#: mean, std: what training frameworks feed, the commonest first.
USUAL = (
    (0.0, 1.0),
    (0.5, 0.5),
    (0.5, 1.0),
    (0.0, 1 / 255),
    (0.5, 1 / 255),
    (0.449, 0.226),
)


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of each file, by the output that scores them."""

    labels: tuple[str, ...]  # by index of the score
    output: int  # which output holds the scores
    index_of: dict[str, int] = field(repr=False)  # file -> index of its class


def find_classes(
    files: Sequence[str], shapes: Sequence[tuple[int, ...]], labels: Sequence[str] | None
) -> tuple[Classes | None, str | None]:
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
        why = f"no accuracy: folder {strange[0]} is none of the labels {', '.join(known)}"
        return None, None if len(strange) == len(named) else why
    scores = [i for i, shape in enumerate(shapes) if is_vector(shape) and shape[-1] == len(known)]
    if not scores:
        sizes = " or ".join(str(s[-1]) for s in shapes if is_vector(s))
        if not sizes:
            return None, None
        return None, f"no accuracy: {len(known)} classes, but the model gives {sizes} scores"
    index_of = {f: known.index(folder) for f, folder in zip(files, folders, strict=True) if folder}
    return Classes(known, scores[0], index_of), None


def class_folders(files: Sequence[str]) -> tuple[str, ...] | None:
    """The sorted names of the class folders, where every file lies in one of several."""
    folders = {name.split("/", 1)[0] for name in files if "/" in name}
    return tuple(sorted(folders)) if len(folders) > 1 and all("/" in f for f in files) else None


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether an output can be a row of class scores: one axis longer than 1, the last."""
    return len(shape) > 0 and shape[-1] > 1 and all(n == 1 for n in shape[:-1])


def better_pair(
    reference: Reference, loader: Loader, folder: Folder, classes: Classes, accuracy: float
) -> dict[str, float] | None:
    """The usual mean/std pair that makes a poor float model clearly better, if any."""
    if accuracy >= LOW_ACCURACY:
        return None
    mine = (loader.preprocess.effective_mean, loader.preprocess.effective_std)
    pairs = [p for p in USUAL if p != mine]
    right = [0] * (1 + len(pairs))
    files = evenly_spaced(folder.files, TRIED_SAMPLES)
    for name in files:
        sample = loader.load(folder.path / name, f"{folder.path.as_posix()}/{name}")
        if sample.pixels is None:  # tensors come with mean and std applied
            return None
        for i, (mean, std) in enumerate([mine, *pairs]):
            tensor = normalise(sample.pixels, mean, std).reshape(reference.shape)
            scores = reference.run(tensor)[classes.output]
            sound = bool(np.isfinite(scores).all())
            right[i] += sound and top1(scores) == classes.index_of[name]
    best = max(range(len(pairs)), key=lambda i: right[i + 1])
    if (right[best + 1] - right[0]) / len(files) < CLEARLY_BETTER:
        return None
    mean, std = pairs[best]
    return {"mean": mean, "std": std, "accuracy": right[best + 1] / len(files)}
