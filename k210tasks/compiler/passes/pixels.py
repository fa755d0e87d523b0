"""Raw pixels whose mean and std differ from channel to channel.

The board feeds pixels, and the KPU takes one scale and one zero point for all of them. So the
input is given one meaning for all channels, ``u = (code - zero point) * scale``, and each
channel's own factor and offset, ``x = factor * u + offset``, become part of the model: of its
first convolution where that is exact, else of a layer of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Graph, Quant, Tensor
from k210tasks.compiler.passes.maps import fits


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What the codes 0..255 of the input mean: ``quant`` for all channels, and then ``factor``
    and ``offset``, float64 [C], where these differ. The zero point is a whole code then."""

    quant: Quant
    factor: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None

    def common(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's own numbers [..., C] as the ``u`` that all channels have alike."""
        if self.factor is None or self.offset is None:
            return samples
        return ((samples - self.offset) / self.factor).astype(np.float32)


def alike(value: float | Sequence[float]) -> float | tuple[float, ...]:
    """One number where all channels have the same."""
    if not isinstance(value, Sequence):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)


def meaning(mean: float | Sequence[float], std: float | Sequence[float]) -> Pixels:
    """Of a pixel that enters the model as ``(pixel / 255 - mean) / std``: numbers, or one a
    channel."""
    mean, std = alike(mean), alike(std)
    if not isinstance(mean, tuple) and not isinstance(std, tuple):
        return Pixels(Quant(1 / (255 * std), 255 * mean))
    means, stds = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (mean, std)))
    zero = int(np.clip(np.rint(255 * means.mean()), 0, 255))
    middle = float(stds.mean())
    return Pixels(Quant(1 / (255 * middle), zero), middle / stds, (zero / 255 - means) / stds)


def scale_channels(graph: Graph, pixels: Pixels) -> None:
    """Let the graph be fed with ``u``: a depthwise 1x1 convolution makes the model's numbers of
    it, which the rules of simplify then bring into what follows. Edits ``graph``."""
    assert pixels.factor is not None
    assert pixels.offset is not None
    given = graph.input
    fed = Tensor(given.name, given.shape, range=(pixels.quant.low, pixels.quant.high))
    ends = np.outer((pixels.quant.low, pixels.quant.high), pixels.factor) + pixels.offset
    # Not measured: pixels that no sample showed are as possible as with one scale for all.
    inside = Tensor(
        f"{given.name}/normalised", given.shape, range=(float(ends.min()), float(ends.max()))
    )
    channels = len(pixels.factor)
    graph.replace(given, inside)
    graph.inputs = [fed]
    graph.ops.insert(
        0,
        ops.Conv(
            [fed],
            [inside],
            ("the input",),
            weights=pixels.factor.astype(np.float32).reshape(channels, 1, 1, 1),
            bias=pixels.offset.astype(np.float32),
            groups=channels,
        ),
    )


def pad_each_channel(graph: Graph, pixels: Pixels) -> None:
    """Let the first convolution's padding be zero in every channel, which is another pixel in
    each, although the KPU pads all of them with one. Edits ``graph``.

    The layer before it passes the pixels on as they are and adds a channel that is constant on
    the map. Around the map that one is padded like the others, so its weights are the offsets
    there are on the map and nowhere else. They are about as large as the other weights, so that
    they are rounded as finely.
    """
    first = graph.consumers().get(graph.input, [])
    scaling = first[0] if len(first) == 1 else None
    if not isinstance(scaling, ops.Conv) or scaling.groups != graph.input.shape[1] or scaling.fn:
        return
    if scaling.weights.shape[2:] != (1, 1) or any(scaling.pads) or scaling.stride != (1, 1):
        return
    readers = graph.consumers().get(scaling.output, [])
    conv = readers[0] if len(readers) == 1 and scaling.output not in graph.outputs else None
    if not isinstance(conv, ops.Conv) or conv.groups != 1 or not any(conv.pads):
        return
    _, channels, height, width = graph.input.shape
    if not fits((1, channels + 1, height, width)) or scaling.weights.shape[0] != channels:
        return
    factor = scaling.weights.reshape(1, channels, 1, 1).astype(np.float64)
    weights = conv.weights * factor
    offsets = np.einsum("oihw,i->ohw", conv.weights.astype(np.float64), scaling.bias)
    constant = _constant(weights, offsets, pixels.quant)
    if constant is None:
        return
    passed = Tensor(
        f"{graph.input.name}/and a constant",
        (1, channels + 1, height, width),
        range=graph.input.range,
    )
    bias = np.append(np.zeros(channels), constant).astype(np.float32)
    eye = np.eye(channels + 1, channels, dtype=np.float32)[:, :, None, None]
    added = (offsets / constant)[:, None]
    conv.weights = np.concatenate([weights, added], axis=1).astype(np.float32)
    conv.inputs = [passed]
    graph.ops[graph.ops.index(scaling)] = ops.Conv(
        [graph.input], [passed], scaling.origin, weights=eye, bias=bias
    )


def _constant(
    weights: NDArray[np.float64], offsets: NDArray[np.float64], quant: Quant
) -> float | None:
    """The value of the constant channel, a whole number of codes from zero and as near to it as
    keeps the weights of ``offsets`` no larger than the others, if there are such."""
    largest = np.abs(weights).max((1, 2, 3))
    wanted = np.abs(offsets).max((1, 2))
    used = largest > 0
    if not used.any():
        return None
    codes = float((wanted[used] / largest[used]).max()) / quant.scale
    sign, room = max((1, 255 - quant.zero_point), (-1, quant.zero_point), key=lambda r: r[1])
    return sign * float(np.clip(np.ceil(codes), 1, room)) * quant.scale
