"""``measurement.json``: float model against kmodel, without thresholds and clock times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from k210tasks.artifacts.doubts import AnyDoubt
from k210tasks.jsondata import sparse, spelled
from k210tasks.samples.folder import Kind, noun_of
from k210tasks.samples.preprocess import PerChannel


@dataclass(frozen=True, slots=True)
class Simulated:
    """The runtime that a kmodel was run as; ``recorded``: whether outputs of it ever were."""

    name: str
    title: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class OutputFigures:
    """One output over all samples. Files are below the folder, None where there is none;
    ``top1_agreement``: share of samples on whose class both agree, None where it is no row of
    scores; ``non_finite``: samples of which it is infinite or not a number."""

    name: str
    shape: tuple[int, ...]
    cosine_mean: float
    cosine_min: float
    cosine_min_file: str | None
    snr_db: float
    max_abs_error: float
    max_abs_error_file: str | None
    top1_agreement: float | None
    non_finite: int
    non_finite_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Shares of samples whose class is named right. ``labels`` by index of the scores of
    ``output``; ``mean``, ``std``: of the pixels."""

    classes: int
    output: str
    float_model: float = spelled("float")
    kmodel: float
    labels: tuple[str, ...] = ()
    mean: PerChannel = 0.0
    std: PerChannel = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Mean average precision against boxes that people have drawn: at an overlap of 0.5, and the
    mean of 0.5 to 0.95 (COCO)."""

    ap50: float
    ap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthFigures:
    """``pictures``: those of which boxes are told; ``boxes``: how many."""

    pictures: int
    boxes: int
    float_model: Precision = spelled("float")
    kmodel: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxFigures:
    """A detector's boxes, kmodel against float model, those above ``score`` alone.

    ``found``: the kmodel's, ``wanted``: the float model's, ``matched``: of one class that overlap
    by half. ``mean_overlap``: of matched boxes; ``mean_drift``: of their scores; ``mean_points``:
    distance of landmarks as a share of the box's diagonal; None where there is none.
    ``worst_file``: the sample of the lowest F1, None where all are alike. ``truth``: None where
    no drawn boxes lie beside the pictures."""

    type: str
    score: float
    found: int
    wanted: int
    matched: int
    precision: float
    recall: float
    f1: float
    mean_overlap: float | None
    mean_drift: float | None
    mean_points: float | None
    worst_file: str | None
    worst_f1: float
    truth: TruthFigures | None = sparse()


@dataclass(frozen=True, slots=True)
class SampleFigures:
    """One sample; by output, None where it is not finite. ``top1``: the classes that float model
    and kmodel name, None also where the output is no row of scores."""

    file: str
    cosine: tuple[float | None, ...]
    max_abs_error: tuple[float | None, ...] = ()
    top1: tuple[tuple[int, int] | None, ...] = ()
    truth: str | None = sparse("class")
    f1: float | None = sparse()  # of a detector's boxes

    @property
    def differs(self) -> bool:
        """Whether the two models choose different classes by any output."""
        return any(picks is not None and picks[0] != picks[1] for picks in self.top1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFigures:
    """A layer of the kmodel against the float model's tensor; ``output``: the tensor's name."""

    index: int
    name: str
    source: tuple[str, ...] = ()
    output: str = ""
    snr_db: float
    cosine_mean: float


@dataclass(frozen=True, slots=True)
class TopScores:
    """The highest class scores: index, float model's score, kmodel's."""

    top: tuple[tuple[int, float | None, float | None], ...]


@dataclass(frozen=True, slots=True)
class ErrorMap:
    """The largest error of each cell of a map as a share of ``max``, in 0..255, row by row."""

    rows: int
    columns: int
    max: float | None
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Values of any other output: float model, kmodel; of maps also where the error is."""

    pairs: tuple[tuple[float | None, float | None], ...]
    map: ErrorMap | None = sparse()


@dataclass(frozen=True, slots=True)
class Shown:
    """A box to look at: corners in thousandths of the picture, and the class by number."""

    left: int
    top: int
    right: int
    bottom: int
    score: float
    label: int


@dataclass(frozen=True, slots=True)
class BothBoxes:
    """The best boxes of a sample by either model."""

    float_model: tuple[Shown, ...] = spelled("float")
    kmodel: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What both models answered for one sample, by output; of a detector its boxes, too."""

    file: str
    outputs: tuple[TopScores | Pairs, ...]
    boxes: BothBoxes | None = sparse()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All numbers are finite; what does not apply is None.

    ``runtime``: what was simulated, None where ``engine`` does not tell. ``shared``: samples that
    the contract names as calibration samples, None where it names none; ``copies``: those that
    are the same as another one. ``answers``: of the worst samples, the worst first.
    """

    format: Literal[2] = 2  # of the file
    engine: str
    runtime: Simulated | None = None
    kmodel: int
    folder: str
    kind: Kind = "images"
    samples: int
    held_out: bool | None = None
    shared: int | None = None
    copies: int = 0
    outputs: tuple[OutputFigures, ...]
    accuracy: Accuracy | None = None
    boxes: BoxFigures | None = sparse()
    doubts: tuple[AnyDoubt, ...] = ()
    layers: tuple[LayerFigures, ...] = ()
    answers: tuple[Answers, ...] = ()
    images: tuple[SampleFigures, ...] = ()

    @property
    def worst_output(self) -> OutputFigures:
        """The output of the lowest mean cosine; the first of equal ones."""
        return min(self.outputs, key=lambda output: output.cosine_mean)

    @property
    def noun(self) -> str:
        return noun_of(self.kind)

    def path(self, file: str | None) -> str:
        return f"{self.folder}/{file}"
