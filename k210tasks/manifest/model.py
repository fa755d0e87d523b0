"""What models.yaml says, checked and with every default filled in.

Plain frozen dataclasses: building the task graph from them imports neither pydantic
nor numpy. Paths are POSIX and as written in models.yaml after one normalisation
(relative to the folder of models.yaml, no ``.`` or ``..`` where avoidable).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from k210tasks.heads.declared import Head
from k210tasks.samples.preprocess import Preprocess
from k210tasks.toolchains.catalogue import ToolchainOverride

SourceKind = Literal["pb", "pbtxt", "savedmodel", "keras", "h5", "tflite", "onnx"]
#: kinds that compilers read as they are, without a conversion
IN_PLACE: tuple[SourceKind, ...] = ("tflite", "onnx")
#: what the name of an .onnx becomes for the file beside it that holds its values
EXTERNAL = ".data"
Method = Literal["minmax", "percentile", "mse", "kl"]

#: What a models.yaml that says neither means. All other defaults are those of the fields below.
DEFAULT_COMPILER, DEFAULT_PROFILE = "builtin", "maixpy"


@dataclass(frozen=True, slots=True)
class Calibrate:
    method: Method = "minmax"
    samples: int = 100  # evenly spaced over the sorted list of the folder


@dataclass(frozen=True, slots=True)
class Verify:
    images: str | None = None  # None: the calibration images, labelled "not held out"
    min_cosine: float | None = 0.98  # None: not judged, of a detector
    min_top1: float | None = None
    min_f1: float | None = None
    max_map_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of ``models:``; see docs for the meaning of each key."""

    name: str
    source: str
    source_kind: SourceKind
    compiler: str
    firmware: str  # name of the profile
    kmodel: int  # version of the file the compiler writes: 3, 4 or 5
    images: str | None = None  # None only where the compiler needs none (int8 TFLite)
    inputs: tuple[tuple[str, tuple[int, ...]], ...] | None = None  # None: inferred
    outputs: tuple[str, ...] | None = None  # None: inferred
    preprocess: Preprocess = Preprocess()
    calibrate: Calibrate = Calibrate()
    verify: Verify | None = Verify()  # None: ``verify: off``
    labels: tuple[str, ...] | None = None  # None: sorted names of the class folders
    optional: bool = False
    made_by: tuple[str, ...] = ()
    effort: Literal["fast", "normal", "high"] = "normal"
    weights: Literal[8, 16] = 8
    opcodes: Literal["beta1", "beta4"] = "beta1"
    small_maps: Literal["padded", "kpu"] = "padded"
    input: Literal["uint8", "float"] | None = None  # None: pixels uint8; tensors as kmodel allows
    sram_free: int | None = None  # bytes, where the user knows it
    anchors: tuple[float, ...] | None = None
    head: Head | None = None
    line: int = field(default=0, compare=False, repr=False)  # of the entry in models.yaml, from 1

    @property
    def limits(self) -> tuple[float, float] | None:
        """Least score and overlap of the boxes of its head."""
        return None if self.head is None else (self.head.score, self.head.nms)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a firmware image: a binary file or a model of this manifest."""

    bin: str | None = None
    model: str | None = None
    address: int | None = None  # None: the next free 64 KiB from the profile's base
    sha256_prefix: bool | None = None  # None: true at address 0 only
    made_by: tuple[str, ...] = ()
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Firmware:
    name: str
    profile: str
    parts: tuple[Part, ...]
    line: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Manifest:
    path: str  # of models.yaml, as given
    models: tuple[Model, ...] = ()
    firmware: tuple[Firmware, ...] = ()
    toolchains: tuple[ToolchainOverride, ...] = ()
    #: equal for equal text, judged by the same code in the same place; "" where not loaded
    made_from: str = field(default="", compare=False)
    kept: bool = field(default=False, compare=False)  # read from .k210, not from models.yaml

    @property
    def root(self) -> str:
        """The absolute path of the folder of models.yaml, which its paths start from."""
        return os.path.dirname(os.path.abspath(self.path))  # noqa: PTH100, PTH120
