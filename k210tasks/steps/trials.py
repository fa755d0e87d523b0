"""Running the float model under other settings, so that steps/explain.py can choose among them.

Bounded in cost: a bounded number of samples, nothing where nothing could be proven, and all
but the most promising settings are left after a few samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.doubts import Hint
from k210tasks.engine.job import Folder
from k210tasks.reference.float_model import Reference
from k210tasks.samples.folder import evenly_spaced
from k210tasks.samples.loading import Loader, Sample, normalise
from k210tasks.steps.accuracy import Classes
from k210tasks.steps.explain import (
    Explanation,
    Setting,
    could_mend,
    explain,
    promising,
    settings_to_try,
)

#: Samples on which settings are tried, at most.
SAMPLES = 200
#: Samples on which all of them are tried; …
FIRST = 40
#: … so many, the best as they are and the best in some order of labels, on the others too.
KEPT = 3


def find_hint(
    reference: Reference, loader: Loader, folder: Folder, classes: Classes, wrong: int
) -> Hint | None:
    """What would make the float model right clearly more often, if that is evident.

    ``wrong``: on how many samples of the folder it is wrong now.
    """
    if not could_mend(wrong):
        return None
    files = evenly_spaced(folder.files, SAMPLES)
    first = evenly_spaced(range(len(files)), FIRST)
    truth = np.array([classes.index_of[file] for file in files], np.intp)
    samples = _Samples(loader, folder)
    trial = _Trial(reference, samples, classes.output)
    asked = loader.preprocess
    stated = Setting(asked.effective_mean, asked.effective_std, _color(loader))
    settings = [stated]
    if samples.load(files[0]).pixels is not None:  # tensors come with mean and std applied
        tried = trial.run([files[i] for i in first], [stated, *settings_to_try(stated)])
        if stated in tried:
            settings = promising(truth[list(first)], tried, stated, KEPT)
    scores = trial.run(files, settings)
    found = explain(truth, scores, stated) if stated in scores else None
    return None if found is None else _hint(found, stated, classes.labels)


class _Samples:
    def __init__(self, loader: Loader, folder: Folder) -> None:
        self._loader, self._folder = loader, folder

    def load(self, file: str) -> Sample:
        path = self._folder.path
        return self._loader.load(path / file, f"{path.as_posix()}/{file}")


class _Trial:
    """Scores by setting and file; what was run once is not run again."""

    def __init__(self, reference: Reference, samples: _Samples, output: int) -> None:
        self._scores: dict[Setting, dict[str, NDArray[np.float32]]] = {}
        self._reference, self._samples, self._output = reference, samples, output

    def run(
        self, files: Sequence[str], settings: Sequence[Setting]
    ) -> dict[Setting, NDArray[np.float32]]:
        """Scores [files, classes] of those settings whose scores are finite; the first setting
        is the stated one."""
        for file in files:
            todo = [s for s in settings if file not in self._scores.setdefault(s, {})]
            if not todo:
                continue
            sample = self._samples.load(file)
            for setting in todo:
                tensor = refed(sample, settings[0], setting)
                outputs = self._reference.run(tensor.reshape(sample.tensor.shape))
                self._scores[setting][file] = outputs[self._output].reshape(-1)
        found = {s: np.stack([self._scores[s][file] for file in files]) for s in settings}
        return {s: scores for s, scores in found.items() if np.isfinite(scores).all()}


def refed(sample: Sample, stated: Setting, setting: Setting) -> NDArray[np.float32]:
    """The sample as the float model would be fed it by another setting."""
    if sample.pixels is None or setting == stated:
        return sample.tensor
    pixels = recolored(sample.pixels, stated.color, setting.color)
    return normalise(pixels, setting.mean, setting.std)


def recolored(pixels: NDArray[np.uint8], now: str | None, wanted: str | None) -> NDArray[np.uint8]:
    """Pixels (…, 3, H, W) in another order of the planes, or three equal grey ones."""
    if wanted == now:
        return pixels
    if wanted != "gray":
        return pixels[..., ::-1, :, :]
    rgb = pixels if now == "rgb" else pixels[..., ::-1, :, :]
    # ITU-R 601, the weights of every picture library
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), np.moveaxis(rgb, -3, 0), 1)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None, :, :], 3, axis=-3)


def _color(loader: Loader) -> Literal["rgb", "bgr"] | None:
    """Of models with three channels; those with one know but grey."""
    if len(loader.shape) != 4 or loader.shape[3] != 3:
        return None
    return "bgr" if loader.preprocess.color == "bgr" else "rgb"


def _hint(found: Explanation, stated: Setting, labels: Sequence[str]) -> Hint:
    setting = found.setting
    pair = (setting.mean, setting.std) != (stated.mean, stated.std)
    return Hint(
        stated=found.stated / found.of,
        accuracy=found.right / found.of,
        mean=setting.mean if pair else None,
        std=setting.std if pair else None,
        color=setting.color if setting.color != stated.color else None,
        labels=None if found.order is None else tuple(labels[i] for i in found.order),
    )
