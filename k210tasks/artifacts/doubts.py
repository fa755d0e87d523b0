"""What was not checked, or looks wrong, though nothing failed: findings as data, their sentences.

Every finding is a small dataclass of facts. Its sentence is made last, in the words of the
place where it is read: keys of models.yaml or options of a command line. The chain,
``k210 convert``, ``k210 compare`` and the report say the same of the same facts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from k210tasks.samples.preprocess import PerChannel, numbers
from k210tasks.wording import share as percent

#: Fewer samples prove little, and calibrate badly.
FEW = 10


@dataclass(frozen=True, slots=True)
class Words:
    """What settings are called where a sentence is read."""

    mean: str
    std: str
    calibration: str  # the folder of calibration samples
    verification: str  # what to do for other verify samples
    options: bool = False

    def pair(self, mean: PerChannel, std: PerChannel) -> str:
        """A mean and a std as they are written."""
        dash = "--" if self.options else ""
        return f"{dash}mean {self._each(mean)} {dash}std {self._each(std)}"

    def _each(self, value: PerChannel) -> str:
        texts = [number(v) for v in numbers(value)]
        if not isinstance(value, tuple):
            return texts[0]
        return ",".join(texts) if self.options else f"[{', '.join(texts)}]"

    def color(self, color: str) -> str:
        return f"--color {color}" if self.options else f"color {color}"

    def labels(self, labels: Iterable[str]) -> str:
        """Labels in the order in which they are to be written."""
        return f"--labels {','.join(labels)}" if self.options else f"labels [{', '.join(labels)}]"


MODELS_YAML = Words(
    "preprocess.mean", "preprocess.std", "images", "name others under verify.images"
)
OPTIONS = Words("--mean", "--std", "--images", "give others with --images", options=True)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A finding. ``kind`` is its name in JSON: "few_calibrated"."""

    kind: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.kind = re.sub(r"\B[A-Z]", r"_\g<0>", cls.__name__).lower()

    def sentence(self, words: Words) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Told(Doubt):
    """What another part of the project, or a vendor's compiler, has put into words."""

    text: str

    def sentence(self, words: Words) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Unstated(Doubt):
    def sentence(self, words: Words) -> str:
        return (
            "mean and std are not stated, 0 and 1 are used: the commonest fault is a wrong pair; "
            f"state {words.mean} and {words.std}"
        )


@dataclass(frozen=True, slots=True)
class StrangeMean(Doubt):
    """Pixels are divided by 255 first, so no mean of them lies outside 0..1."""

    mean: float

    def sentence(self, words: Words) -> str:
        remedy = f"state {words.mean} between 0 and 1"
        if 1 < self.mean <= 255:
            remedy = f"{self.mean:g} of 255 is {words.mean} {number(self.mean / 255)}"
        return (
            f"mean {self.mean:g} cannot be meant: a pixel enters as (pixel/255 - mean)/std, so a "
            f"mean lies between 0 and 1; {remedy}"
        )


@dataclass(frozen=True, slots=True)
class StrangeStd(Doubt):
    std: float

    def sentence(self, words: Words) -> str:
        remedy = f"state {words.std} between 1/255, for raw pixels, and {MAX_STD:g}"
        if MAX_STD < self.std <= 255:
            remedy = f"{self.std:g} of 255 is {words.std} {number(self.std / 255)}"
        return (
            f"std {self.std:g} cannot be meant: a pixel enters as (pixel/255 - mean)/std, so "
            f"pixels would span {1 / abs(self.std):.2g}; {remedy}"
            if self.std
            else f"std 0 cannot be meant: it divides; {remedy}"
        )


@dataclass(frozen=True, slots=True)
class FewCalibrated(Doubt):
    """``distinct``: samples that are no copies of others."""

    noun: str
    samples: int
    distinct: int

    def sentence(self, words: Words) -> str:
        what = f"calibrated on only {counted(self.samples, self.noun)}"
        if self.distinct < self.samples:
            what = (
                f"calibrated on {counted(self.samples, self.noun)} of which only "
                f"{self.distinct} differ{'s'[: self.distinct == 1]}"
            )
        return (
            f"{what}: values that do not occur in them are cut off; {FEW} are the least, about "
            f"100 that look like what the board will see are good: {words.calibration}"
        )


@dataclass(frozen=True, slots=True)
class FlatCalibration(Doubt):
    """``flat`` of the samples hold (nearly) one value only, as black pictures do."""

    noun: str
    flat: int
    samples: int

    def sentence(self, words: Words) -> str:
        which = "the only" if self.samples == 1 else f"all {self.samples}"
        if self.flat < self.samples:
            which = f"{self.flat} of {self.samples}"
        nouns = self.noun if self.samples == 1 else f"{self.noun}s"
        what = "of one colour" if self.noun == "image" else "of one value"
        return (
            f"{which} calibration {nouns} {'is' if self.flat == 1 else 'are'} (nearly) {what}, as "
            "black ones are: the ranges chosen on them fit nothing else; give such as the board "
            f"will see: {words.calibration}"
        )


@dataclass(frozen=True, slots=True)
class NoKpu(Doubt):
    """No layer of the file runs on the accelerator."""

    layers: int

    def sentence(self, words: Words) -> str:
        which = (
            "the only layer does not run"
            if self.layers == 1
            else f"none of {self.layers} layers runs"
        )
        return (
            f"{which} on the KPU: the CPU computes everything, many times slower; the KPU takes "
            "1x1 and 3x3 convolutions (SUPPORTED_OPS.md)"
        )


@dataclass(frozen=True, slots=True)
class LabelsMisfit(Doubt):
    """``labels`` are other in number than the ``scores`` of ``output``."""

    labels: tuple[str, ...]
    output: str
    scores: int

    def sentence(self, words: Words) -> str:
        n = len(self.labels)
        if n < self.scores:
            why = f"too few: in load.py, score {n} has no label"
            if n + 1 < self.scores:
                why = f"too few: in load.py, scores {n} to {self.scores - 1} have no label"
        else:
            more = self.labels[self.scores :]
            names = ", ".join(more[:3]) + (", …" if len(more) > 3 else "")
            why = f"too many: load.py gets all of them, and {names} can never be named"
        return (
            f"{counted(n, 'label')} for the {self.scores} scores of output {self.output}, {why}; "
            f"give labels one a score, in the order of the scores"
        )


@dataclass(frozen=True, slots=True)
class StrangeFolder(Doubt):
    """No accuracy, because a folder of samples is no label."""

    folder: str
    labels: tuple[str, ...]

    def sentence(self, words: Words) -> str:
        return f"no accuracy: folder {self.folder} is none of the labels {', '.join(self.labels)}"


@dataclass(frozen=True, slots=True)
class ClassesMisfit(Doubt):
    """No accuracy, because there are other classes in number than scores."""

    classes: int
    scores: tuple[int, ...]

    def sentence(self, words: Words) -> str:
        sizes = " or ".join(map(str, self.scores))
        return f"no accuracy: {self.classes} classes, but the model gives {sizes} scores"


@dataclass(frozen=True, slots=True)
class NoClassFolders(Doubt):
    """No accuracy, because samples do not lie in folders named as the labels."""

    labels: tuple[str, ...]
    folder: str

    def sentence(self, words: Words) -> str:
        return (
            "no accuracy: images must lie in one folder a class, named as in "
            f"{words.labels(self.labels)}, below {self.folder}"
        )


@dataclass(frozen=True, slots=True)
class FewMeasured(Doubt):
    noun: str
    samples: int

    def sentence(self, words: Words) -> str:
        many = counted(self.samples, self.noun)
        return f"only {many}: too few to prove much, {FEW} are the least"


@dataclass(frozen=True, slots=True)
class NoBoxes(Doubt):
    """A detector whose float model finds nothing."""

    noun: str
    samples: int
    score: float

    def sentence(self, words: Words) -> str:
        return (
            f"the float model finds no box above score {self.score:g} in "
            f"{counted(self.samples, self.noun)}, so nothing is proved of the boxes: "
            "look at mean, std, color and head, or verify with pictures that show something"
        )


@dataclass(frozen=True, slots=True)
class Copies(Doubt):
    """Samples that are the same as another one measured."""

    noun: str
    copies: int
    samples: int

    def sentence(self, words: Words) -> str:
        return (
            f"{self.copies} of {counted(self.samples, self.noun)} "
            f"{'is a copy' if self.copies == 1 else 'are copies'} of others among them: "
            f"{self.samples - self.copies} differ{'s'[: self.samples - self.copies == 1]}, the "
            "figures count the others twice"
        )


@dataclass(frozen=True, slots=True)
class NotHeldOut(Doubt):
    """``shared`` of the measured samples served for calibration too."""

    noun: str
    shared: int
    samples: int

    def sentence(self, words: Words) -> str:
        if self.shared == self.samples:
            return f"not held out: measured on the calibration {self.noun}s; {words.verification}"
        return (
            f"not held out: {self.shared} of {counted(self.samples, self.noun)} "
            f"{'is a calibration' if self.shared == 1 else 'are calibration'} "
            f"{self.noun}{'s'[: self.shared != 1]} too, the same in content; {words.verification}"
        )


@dataclass(frozen=True, slots=True)
class ChanceLevel(Doubt):
    """The float model is right no more often than answers that do not look at the samples."""

    noun: str
    right: int
    samples: int
    classes: int

    def sentence(self, words: Words) -> str:
        return (
            f"the float model is right on {self.right} of {counted(self.samples, self.noun)} in "
            f"{self.classes} classes, not clearly more than by chance: that the kmodel agrees "
            "proves nothing; look at the labels, the preprocessing and the model's training"
        )


@dataclass(frozen=True, slots=True)
class Hint(Doubt):
    """What would make the float model right more often (steps/explain.py). None: as it is."""

    stated: float  # accuracy as it is, on the samples tried
    accuracy: float
    mean: PerChannel | None = None
    std: PerChannel | None = None
    color: str | None = None
    labels: tuple[str, ...] | None = None

    def sentence(self, words: Words) -> str:
        parts = []
        if self.mean is not None and self.std is not None:
            parts.append(words.pair(self.mean, self.std))
        if self.color is not None:
            grey = "grey pictures (three equal planes)"
            parts.append(grey if self.color == "gray" else words.color(self.color))
        if self.labels is not None:
            parts.append(words.labels(self.labels))
        text = (
            f"accuracy {percent(self.stated)}; with {' and '.join(parts)}: {percent(self.accuracy)}"
        )
        if self.labels is not None:
            text += "; labels are in the order of the model's scores"
        return text


AnyDoubt = (
    Told | Unstated | StrangeMean | StrangeStd | FewCalibrated | FlatCalibration | NoKpu
    | LabelsMisfit | StrangeFolder | ClassesMisfit | NoClassFolders | FewMeasured | NoBoxes
    | Copies | NotHeldOut | ChanceLevel | Hint
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Doubts:
    """What any file with doubts in it tells of them."""

    doubts: tuple[AnyDoubt, ...] = ()


#: pixels/255 spread over less than half of the numbers -1..1 suit no model.
MAX_STD = 2.0
#: Raw pixels have a std of 1/255; what is much smaller was divided twice.
MIN_STD = 1 / 512


def of_pair(mean: PerChannel | None, std: PerChannel | None) -> list[AnyDoubt]:
    """What is to be said of a mean and a std that pictures are fed with; None: not stated.
    Of one number a channel the first strange one is named."""
    found: list[AnyDoubt] = [] if mean is not None and std is not None else [Unstated()]
    means = () if mean is None else numbers(mean)
    stds = () if std is None else numbers(std)
    found += [StrangeMean(m) for m in means if not 0 <= m <= 1][:1]
    found += [StrangeStd(s) for s in stds if not MIN_STD <= abs(s) <= MAX_STD][:1]
    return found


def of_labels(
    labels: Iterable[str], outputs: Iterable[tuple[str, tuple[int, ...]]]
) -> list[AnyDoubt]:
    """Whether labels fit the outputs (name, shape without batch) that are rows of scores."""
    names = tuple(labels)
    rows = [(name, max(shape)) for name, shape in outputs if _is_row(shape)]
    if not names or not rows or any(scores == len(names) for _, scores in rows):
        return []
    return [LabelsMisfit(names, *rows[0])]


def _is_row(shape: tuple[int, ...]) -> bool:
    return sum(n > 1 for n in shape) == 1 and (len(shape) < 3 or shape[0] > 1)


def sentences(doubts: Iterable[Doubt], words: Words) -> list[str]:
    return [d.sentence(words) for d in doubts]


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'s'[: n != 1]}"


def number(value: float) -> str:
    """As one writes it: 1/255 is no decimal."""
    return "1/255" if abs(value - 1 / 255) < 1e-9 else f"{value:.4g}"
