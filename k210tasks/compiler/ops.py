"""The kinds of ops: one class each, with what it carries.

Weights and biases are float32 in reals, kernels (O, I, h, w); shapes, axes and pixels are those of
the IR's layout (rank 4: N,C,H,W). What each kind makes of its inputs is said once more, as code,
in :mod:`k210tasks.compiler.executor`; what is legal, in :mod:`k210tasks.compiler.forms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.kpu.tables import Activation, BatchNorm

Pair = tuple[int, int]  # of rows and columns
Pads = tuple[int, int, int, int]  # pixels more: top, bottom, left, right
Floats = NDArray[np.float32]

Pooling = Literal["max", "mean"]
Arithmetic = Literal["add", "sub", "mul", "div", "min", "max"]
Reduction = Literal["mean", "sum", "max", "min"]

#: the real value of what a layer sees around its map where that must lose against anything
NEVER = -1e30
#: beyond it no value of a map is meant: exporters pad with less what a max pool must not take
FAR = -1e9
#: what stands for minus infinity: numbers of ops are finite
LOWEST = float(np.finfo(np.float32).min)


class Within(NamedTuple):
    """A tensor that a layer no longer writes: its sums, clamped to ``low..high`` where its
    function clamps first, before the rest of the function."""

    tensor: Tensor
    low: float
    high: float


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Activated(Op):
    """What ends in a function of each value. ``pre`` is a tensor of the source file inside it."""

    fn: Fn = ()
    pre: Within | None = None


# -- what stands for whole TFLite ops, in float, before legalise


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Conv(Activated):
    """Weights (O, C / groups, h, w), bias (O,)."""

    weights: Floats
    bias: Floats
    groups: int = 1
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Deconv(Activated):
    """A transposed convolution: weights (O, C, h, w), bias (O,); ``pads`` are cut off the whole."""

    weights: Floats
    bias: Floats
    stride: Pair
    pads: Pads


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Dense(Activated):
    """Rows (n, I) times weights (O, I), plus bias (O,)."""

    weights: Floats
    bias: Floats


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Pool(Activated):
    """The mean counts the pixels on the map alone."""

    how: Pooling
    kernel: Pair
    stride: Pair
    pads: Pads


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Binary(Activated):
    """Two tensors value by value, broadcast as numpy does."""

    how: Arithmetic


class Map(Activated):
    """A function of each value."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Reduce(Op):
    """The axes stay, with one value."""

    how: Reduction
    axes: tuple[int, ...]


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Softmax(Op):
    """Of ``beta`` times the values along one axis."""

    beta: float
    axis: int


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class L2Norm(Op):
    """Values over the length of their vector along one axis."""

    axis: int


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Pad(Op):
    """``pads``: of each axis, values of ``value`` (in reals) more before and after."""

    pads: tuple[tuple[int, int], ...]
    value: float = 0.0


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Concat(Op):
    """Tensors one behind the other along an axis."""

    axis: int


class Reshape(Op):
    """The same values in the shape of the output."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Transpose(Op):
    """Axis i of the output is axis ``perm[i]`` of the input."""

    perm: tuple[int, ...]


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Slice(Op):
    """As many values of each axis as the output has, from ``begin`` on by ``strides``."""

    begin: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Resize(Op):
    """Rows and columns repeated, left out or mixed, as TFLite has it."""

    mode: Literal["nearest", "bilinear"]
    align_corners: bool = False
    half_pixel: bool = False


# -- what stands for the layers of a kmodel


@dataclass(frozen=True, slots=True)
class Computed:
    """Which values of the source file a KPU layer has in its map before its pool.

    Pixel (y, x) of tensor ``source`` is at ``offset + (y, x) * stride``, its channel ``first`` is
    the layer's channel 0.
    """

    source: int
    offset: Pair
    stride: Pair
    first: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """Where the values of a layer's tensor lie in its map: pixel (y, x), below ``size``, is at
    ``offset + (y, x) * step``."""

    offset: Pair
    step: Pair
    size: Pair


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """A KPU layer as the registers and blobs hold it (reference, sections 1.6 to 1.9)."""

    codes: NDArray[np.integer]  # shape of the weights, uint8 or uint16
    arg_x: int
    arg_w: int
    arg_add: int
    pad_value: int
    bn: BatchNorm
    activation: Activation


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class KpuConv(Activated):
    """A layer of the KPU: 1x1, or 3x3 padded by one, at stride 1, then ``fn``, then its pool.

    Weights (O, C, h, w), depthwise (C, 1, h, w); bias (O,). ``pool`` is a number of
    :data:`k210tasks.compiler.forms.POOLS`. ``pad_value`` is what lies around the map in reals,
    ``pad_code`` its code where that is not the input's zero point. ``spare``: channels of no
    meaning that it puts out after its own, 0 or 1. Its second output, if any, is its map in main
    memory.

    ``identity``: codes are passed on as they are. ``rescales``: such a copy may change their scale.
    ``role``: what it is of a product made of squares. ``centred``: its logits were made to
    sum to zero. ``computes`` and ``shown`` tie it to the source file. ``numbers`` is set by
    quantise.
    """

    weights: Floats
    bias: Floats
    depthwise: bool = False
    pool: int = 0
    pad_value: float = 0.0
    pad_code: int | None = None
    spare: int = 0
    identity: bool = False
    rescales: bool = False
    role: Literal["square", "product"] | None = None
    centred: bool = False
    computes: Computed | None = None
    shown: Shown | None = None
    numbers: Numbers | None = None

    @property
    def chosen(self) -> Numbers:
        """Its numbers, once quantise has chosen them."""
        assert self.numbers is not None
        return self.numbers


def copy_of(x: Tensor, out: Tensor, origin: tuple[str, ...]) -> KpuConv:
    """A layer that passes the codes of a map in KPU RAM on."""
    ones, zeros = np.ones((x.shape[1], 1, 1, 1), np.float32), np.zeros(x.shape[1], np.float32)
    return KpuConv([x], [out], origin, weights=ones, bias=zeros, depthwise=True, identity=True)


class KpuConcat(Op):
    """Maps one behind the other in KPU RAM: channels after channels."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class KpuPart(Op):
    """Channels of a map in KPU RAM, from ``first`` on: the same rows."""

    first: int


class Upload(Op):
    """Codes from main memory into KPU RAM."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Quantize(Op):
    """Floats to codes.

    ``clamp``: the bounds, in reals, of the function that the ends of the codes stand for. With
    ``part`` two codes do that together (:mod:`k210tasks.compiler.passes.clamps`): the coarse one,
    and the fine one of what the coarse one, ``of``, has left.
    """

    clamp: tuple[float, float] | None = None
    part: Literal["coarse", "fine"] | None = None
    of: Tensor | None = None


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Dequantize(Op):
    """Codes to floats; ``negated``: to their negatives; ``from_zero``: code 0 to zero;
    ``constant``: any code to this."""

    negated: bool = False
    from_zero: bool = False
    constant: float | None = None


class Requantize(Activated):
    """Codes to codes, through a table of the function."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Turn(Op):
    """Codes turned round so that zero is code 0; ``back``: and back."""

    back: bool


class AddPadding(Op):
    """A vector (1, C) as a map of 4x4 in KPU RAM, each value everywhere."""


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class RemovePadding(Op):
    """The vector at one pixel of a map of 4x4."""

    pixel: Pair


@dataclass(eq=False, repr=False, slots=True, kw_only=True)
class Unary(Op):
    """One function of each value, by its name in :mod:`k210tasks.compiler.functions`."""

    how: str
