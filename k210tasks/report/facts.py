"""What the report shows, gathered and in plain dataclasses: no file is opened from here on.

None stands for "not known", which a page says rather than leaving out. Times are seconds
since 1970, sizes bytes unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from k210tasks.kmodel.residence import Resident
from k210tasks.store.history import Line

Status = Literal["verified", "unverified", "failed", "skipped", "missing"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a kmodel, from the file itself, the compiler, and ``verify``."""

    index: int
    name: str
    input: str  # shapes as listings print them, "?" where the file does not tell
    output: str
    runs_on: str  # "KPU" | "CPU"
    kernel: str = ""  # "3x3", "3x3 depthwise"; "" on the CPU
    pool: str = ""
    macs: int | None = None
    weight_bytes: int | None = None
    rows_in: int | None = None  # of KPU RAM, 64 bytes each
    rows_out: int | None = None
    estimated_us: float | None = None
    source: tuple[str, ...] = ()  # ops of the float model it comes from
    tensor: str = ""  # of the float model
    snr_db: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How close a kmodel comes to its float model, in the words of ``verify``."""

    cosine: float | None = None  # mean over images of the worst output
    snr_db: float | None = None
    max_abs_error: float | None = None
    top1: float | None = None  # share of images on whose class both agree
    f1: float | None = None  # of a detector's boxes
    overlap: float | None = None  # mean, of matched boxes
    float_accuracy: float | None = None
    kmodel_accuracy: float | None = None
    samples: int | None = None
    held_out: bool | None = None  # None: not known
    runtime: str = ""  # what the kmodel was simulated as


@dataclass(frozen=True, slots=True)
class Build:
    """One kmodel file and what is known of it."""

    title: str
    sha256: str
    kmodel: int | None = None
    compiler: str | None = None
    nbytes: int | None = None
    kpu_bytes: int | None = None
    main_bytes: int | None = None
    macs: int | None = None
    estimated_ms: float | None = None
    layers: tuple[Layer, ...] = ()
    residents: tuple[Resident, ...] = ()
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()
    built: float | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Values of a tensor over the calibration samples, and the range its codes cover."""

    tensor: str
    layer: int | None
    counts: tuple[int, ...]  # of equal bins from ``low`` to ``high``
    low: float
    high: float
    chosen: tuple[float, float]
    snr_db: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Class scores of one image: label, float model, kmodel; None: not a number."""

    rows: tuple[tuple[str, float | None, float | None], ...]

    def width(self, value: float | None) -> float:
        """How long a score's bar is, in percent of 0..1, or of wider scores where they are."""
        known = [v for _, *pair in self.rows for v in pair if v is not None]
        low, high = min([0.0, *known]), max([1.0, *known])
        return 0.0 if value is None else round(100 * (value - low) / (high - low), 1)


@dataclass(frozen=True, slots=True)
class Plot:
    """Values of one output of one image: pairs (float, kmodel), and where the errors are.

    ``codes``: the largest error of each cell of the map, 0..255 of ``largest``.
    """

    pairs: tuple[tuple[float, float], ...]
    rows: int = 0
    columns: int = 0
    largest: float | None = None
    codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box over a picture, in thousandths of it; ``by``: whose it is."""

    x: int
    y: int
    width: int
    height: int
    by: Literal["float", "kmodel"]
    title: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One verify image: what was measured; answers and picture for the worst ones only."""

    file: str
    truth: str | None
    cosine: float | None  # of the worst output; None: infinite or not a number
    max_abs_error: float | None
    float_class: str | None = None
    kmodel_class: str | None = None
    answers: tuple[tuple[str, Scores | Plot], ...] = ()  # output's name, what it says
    picture: str | None = None  # a data URI
    f1: float | None = None  # of a detector's boxes
    boxes: tuple[DrawnBox, ...] = ()

    @property
    def agrees(self) -> bool:
        return self.float_class == self.kmodel_class and self.f1 in (None, 1)


@dataclass(frozen=True, slots=True)
class Run:
    """One ``doit``: what ran in it, in order."""

    started: float
    events: tuple[Line, ...] = ()
    untouched: int = 0  # steps that had nothing to do, or were not asked for


@dataclass(frozen=True, slots=True)
class Log:
    step: str
    path: str
    text: str  # its end, where it is long
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a model stands: the verdict, or the step it failed in."""

    status: Status
    headline: str = ""
    step: str = ""  # that failed or was skipped
    messages: tuple[str, ...] = ()  # why it failed or was skipped
    warnings: tuple[str, ...] = ()
    #: the results shown are of an earlier kmodel, or of earlier settings
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    name: str
    source: str
    compiler: str
    profile: str
    kmodel: int
    outcome: Outcome
    build: Build | None = None
    previous: Build | None = None
    no_previous: str = ""  # why there is nothing to compare with
    sram_needed: int | None = None
    sram_limit: int | None = None
    sram_note: str = ""
    histograms: tuple[Histogram, ...] = ()
    samples: tuple[Sample, ...] = ()
    images: str | None = None  # the folder of the verify images
    contract: tuple[tuple[str, str], ...] = ()
    snippet: str | None = None
    snippet_name: str = ""
    logs: tuple[Log, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FlashPart:
    name: str
    address: int
    nbytes: int  # in flash
    is_model: bool
    kmodel: int | None = None

    @property
    def end(self) -> int:
        return self.address + self.nbytes


@dataclass(frozen=True, slots=True)
class ImageFacts:
    name: str
    profile: str
    status: Status
    messages: tuple[str, ...] = ()
    parts: tuple[FlashPart, ...] = ()
    filesystem: tuple[int, int] | None = None
    nbytes: int | None = None  # of the kfpkg
    built: float | None = None


@dataclass(frozen=True, slots=True)
class ReportFacts:
    project: str
    written: float
    version: str
    models: tuple[ModelFacts, ...] = ()
    images: tuple[ImageFacts, ...] = ()
    run: Run | None = None
