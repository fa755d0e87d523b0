"""What each step is told: declared once, for the chain that writes it and the body that reads it.

In a plan they are JSON values (:func:`k210tasks.jsondata.plain`), since they are part of the key
of a result. Thousands are made in a run in which nothing changed: neither frozen nor with slots,
they cost it a third of what others would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from k210tasks.heads.declared import Head
from k210tasks.jsondata import plain, sparse
from k210tasks.samples.preprocess import Preprocess

#: shapes of inputs whose sizes an .onnx leaves open, by name
Sizes = dict[str, tuple[int, ...]]


#: fields that only ONNX models have, and what they are for the others
_ONNX_ONLY = {"inputs": None, "channels_first": False}


def told(settings: object) -> dict[str, Any]:
    """Settings as a plan has them. What only ONNX models have is left out for the others, whose
    results it does not concern."""
    values: dict[str, Any] = plain(settings)
    if not isinstance(settings, ConvertSettings):
        for name, absent in _ONNX_ONLY.items():
            if values.get(name, ()) == absent:
                del values[name]
    return values


@dataclass(repr=False, eq=False)
class ConvertSettings:
    """``inputs``: shapes by name. None: inferred."""

    kind: str
    inputs: dict[str, tuple[int, ...]] | None = None
    outputs: tuple[str, ...] | None = None


@dataclass(repr=False, eq=False)
class CalibrateSettings:
    """``samples``: how many at most, evenly spaced."""

    family: Literal["builtin", "vendor"]
    preprocess: Preprocess = Preprocess()
    samples: int | None = None
    inputs: Sizes | None = None


@dataclass(kw_only=True, repr=False, eq=False)
class KmodelSettings:
    """``model``: the contract bears it. ``method``: in the compiler's own word. ``preprocess``:
    as stated, not as effective: the contract tells the firmware whether it was stated."""

    model: str = ""
    compiler: str
    kmodel: int
    method: str
    preprocess: Preprocess = Preprocess()
    input: Literal["uint8", "float"] | None = None
    firmware: str = ""
    labels: tuple[str, ...] | None = None
    inputs: Sizes | None = None


@dataclass(kw_only=True, repr=False, eq=False)
class BuiltinSettings(KmodelSettings):
    """Those of :class:`k210tasks.compiler.Options` besides."""

    method: Literal["minmax", "percentile", "mse", "kl"]
    effort: Literal["fast", "normal", "high"]
    weights: int
    opcodes: Literal["beta1", "beta4"]
    small_maps: Literal["padded", "kpu"]
    runtime: str | None


@dataclass(repr=False, eq=False)
class VerifySettings:
    """``samples``: how many at most, None: all."""

    kmodel: int
    preprocess: Preprocess = Preprocess()
    runtime: str | None = None
    labels: tuple[str, ...] | None = None
    samples: int | None = None
    inputs: Sizes | None = None
    head: Head | None = sparse()


@dataclass(repr=False, eq=False)
class JudgeSettings:
    """What a verdict depends on beside the measurement; changing it measures nothing."""

    verify: Literal["on", "off"]
    min_cosine: float | None
    min_top1: float | None
    firmware: str
    kmodel: int
    sram_free: int | None = None
    min_f1: float | None = sparse()
    max_map_loss: float | None = sparse()


@dataclass(repr=False, eq=False)
class VectorsSettings:
    """``address``: where the model lies in flash. ``samples``: how many at most.
    ``channels_first``: whether tensors of maps are, as those of ONNX models."""

    preprocess: Preprocess
    firmware: str
    runtime: str | None = None
    address: int = 0
    samples: int | None = None
    channels_first: bool = False


@dataclass(repr=False, eq=False)
class PartSettings:
    """``bin`` or ``model``; ``address``, ``sha256_prefix`` None: chosen when it is placed."""

    bin: str | None = None
    model: str | None = None
    address: int | None = None
    sha256_prefix: bool | None = None
    anchors: tuple[float, ...] | None = None
    limits: tuple[float, float] | None = sparse()


@dataclass(repr=False, eq=False)
class FirmwareSettings:
    profile: str
    parts: tuple[PartSettings, ...]


@dataclass(repr=False, eq=False)
class FirmwareJudgeSettings:
    """``unverified``: models with ``verify: off``. ``sram_free``: by model, where it is stated."""

    profile: str
    unverified: tuple[str, ...]
    sram_free: dict[str, int | None]
