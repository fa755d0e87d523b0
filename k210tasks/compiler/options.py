"""What the compiler is told and what it gives back; nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

SmallMaps = Literal["padded", "kpu"]
Progress = Callable[[int, int, str], None]

#: What a model is fed with: raw pixels under the preprocessing contract, or numbers of its own.
Fed = Literal["pixels", "tensors"]


@dataclass(frozen=True, slots=True)
class Options:
    """Everything besides model and calibration that shapes the bytes of a kmodel.

    ``mean``, ``std``: the board's raw pixel 0..255 means ``(pixel / 255 - mean) / std``, one
    number or one a channel; None: 0 and 1. ``fed``: what the model is fed with; None: what the
    calibration samples were, and where that is not told either, pixels if ``mean`` or ``std``
    are given. ``input``: "uint8" or "float"; None: uint8 for pixels and for kmodel 3, else
    float32. ``weights``: bits, 16 with kmodel 3 only. ``opcodes``: "beta4" also allows what only
    the last runtimes of kmodel 4 know, tables for functions beside the KPU. ``small_maps``:
    "padded" computes maps below 4x4 as part of larger ones; "kpu" lets KPU layers put them out.
    ``runtime``: what is to run the file, a name of ``kmodel.runtimes.RUNTIMES``; None: any that
    has all layers. It changes the bytes only where a form that all of them run would cost
    something.
    """

    kmodel: int = 4
    method: Literal["minmax", "percentile", "mse", "kl"] = "minmax"
    effort: Literal["fast", "normal", "high"] = "normal"
    weights: int = 8
    opcodes: Literal["beta1", "beta4"] = "beta1"
    input: Literal["uint8", "float"] | None = None
    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None
    fed: Fed | None = None
    small_maps: SmallMaps = "padded"
    runtime: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a layer's map a tensor of the source is: the layer's channels are those from
    ``channel`` on, pixel (y, x) is at ``offset`` + (y, x) * ``step``, for (y, x) below ``size``."""

    offset: tuple[int, int]
    step: tuple[int, int]
    size: tuple[int, int]
    channel: int


@dataclass(frozen=True, slots=True)
class CompiledLayer:
    """One layer of the file. ``source``: ops it comes from. ``output``: name of what it puts out.
    Shapes with the batch. ``tensor``: index of the source's tensor that it computes, ``at`` the
    given place; None where it computes none as it is. ``scale``: what a step of its codes is
    worth, one number, or one a channel.
    """

    index: int
    name: str
    source: tuple[str, ...]
    output: str
    runs_on: Literal["KPU", "CPU"]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    estimated_us: float | None = None
    tensor: int | None = None
    at: Place | None = None
    scale: float | tuple[float, ...] | None = None
    zero_point: float | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: ``shape`` without the batch, maps C, H, W; scale and zero point of
    codes, of pixels also one a channel."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"] = "float32"
    scale: float | tuple[float, ...] | None = None
    zero_point: float | tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kmodel and what is known of it.

    ``fed``: what ``input`` takes, raw pixels or (codes of) the tensor's own numbers.
    ``listing``: one line a layer, for people. ``outputs``: in the order of the file, which is
    the source's.
    """

    kmodel: bytes
    layers: tuple[CompiledLayer, ...]
    listing: str
    input: Port
    fed: Fed
    outputs: tuple[Port, ...]
    kpu_bytes: int
    main_bytes: int
