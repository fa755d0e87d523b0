"""Random networks by number: :func:`draw` makes the same one of the same seed, everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.compiler.structures import PARTS, Drawing
from tests.compiler.tflite_builder import Net

Source = Literal["float", "int8", "int8 io"]
Effort = Literal["fast", "normal", "high"]

SAMPLES = 24  # to calibrate with, and to measure on

_NAMES = list(PARTS)
_SHARES = np.array([share for _, share in PARTS.values()], float)
_SHARES /= _SHARES.sum()


@dataclass(frozen=True, slots=True)
class Drawn:
    """A network as drawn.

    ``structures`` name its family and parts. ``pictures`` uint8 (N, H, W, C) where it is fed
    with pixels, else None; ``inputs`` float32, a batch of one each. ``source``: the form the
    file is given in; ``sampled``: whether the compiler is given samples (of int8 files it
    need not be). ``effort``: how much the compiler is to do about accuracy.
    """

    net: Net
    structures: tuple[str, ...]
    pictures: NDArray[np.uint8] | None
    inputs: list[NDArray[np.float32]]
    source: Source
    sampled: bool
    effort: Effort


def draw(seed: int, attempt: int = 0) -> Drawn:
    """Network number ``seed``; ``attempt`` makes another one where the first is of no use."""
    rng = np.random.default_rng([seed, attempt])
    family = _pick(rng, FAMILIES)
    d = family(rng)
    pruned(d.net)
    source: Source = d.pick(["float"] * 6 + ["int8", "int8", "int8 io"])  # type: ignore[list-item]
    shape = d.net.shape(d.net.input)
    pixels = len(shape) == 4 and shape[3] in (1, 3)
    pictures = _pictures(rng, shape) if pixels else None
    inputs = _as_inputs(pictures) if pictures is not None else _signals(rng, shape)
    sampled = source == "float" or d.chance(0.5)
    effort: Effort = d.pick(["fast", "fast", "normal", "high"])  # type: ignore[list-item]
    form = source if sampled else f"{source} unsampled"
    structures = tuple(dict.fromkeys([*d.used, form, f"effort {effort}"]))
    return Drawn(d.net, structures, pictures, inputs, source, sampled, effort)


def pruned(net: Net) -> Net:
    """``net`` without the ops nobody reads, which no converter leaves in."""
    read = set(net.outputs)
    kept = []
    for op in reversed(net.ops):
        if read.intersection(op[2]):
            read.update(op[1])
            kept.append(op)
    net.ops = kept[::-1]
    return net


def _pick(
    rng: np.random.Generator, table: dict[Callable[[np.random.Generator], Drawing], int]
) -> Callable[[np.random.Generator], Drawing]:
    shares = np.array(list(table.values()), float)
    return list(table)[int(rng.choice(len(table), p=shares / shares.sum()))]


# -- what they are fed with


def _field(rng: np.random.Generator, shape: list[int]) -> NDArray[np.float64]:
    """Values near 0 that are smooth here and rough there, and differ from sample to sample in
    size and level too: what is averaged over a map must tell samples apart."""
    rough = rng.normal(0, 1, shape)
    smooth = rough
    for axis in range(1, max(2, len(shape) - 1)):
        width = max(
            1, min(5, shape[axis] // 2)
        )  # of the whole axis the mean is the same everywhere
        total = np.cumsum(np.concatenate([smooth, np.take(smooth, range(width), axis)], axis), axis)
        n = shape[axis]
        smooth = np.take(total, range(width, n + width), axis) - np.take(total, range(n), axis)
        smooth = smooth / max(float(smooth.std()), 1e-6)
    values = rng.uniform(0.3, 1) * rough + rng.uniform(0.3, 1) * smooth
    return rng.uniform(0.4, 1.2) * values + rng.normal(0, 0.7, shape[-1])


def _pictures(rng: np.random.Generator, shape: list[int]) -> NDArray[np.uint8]:
    fields = np.concatenate([_field(rng, shape) for _ in range(SAMPLES)])
    return np.clip(np.rint(127.5 + 50 * fields), 0, 255).astype(np.uint8)


def _as_inputs(pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return [((p / 255 - 0.5) / 0.5).astype(np.float32)[None] for p in pictures]


def _signals(rng: np.random.Generator, shape: list[int]) -> list[NDArray[np.float32]]:
    """Values of a sensor, of whatever unit."""
    unit, level = rng.choice([0.2, 1.0, 9.81]), rng.choice([0.0, 0.0, 2.0])
    return [((_field(rng, shape) + level) * unit).astype(np.float32) for _ in range(SAMPLES)]


# -- families


def _start(rng: np.random.Generator, shape: tuple[int, ...], family: str) -> Drawing:
    d = Drawing(Net(shape, seed=int(rng.integers(1 << 30))), rng)
    d.used.append(family)
    return d


def _finish(d: Drawing, x: int) -> Drawing:
    """``x`` is an output, and now and then a map on the way to it is one too."""
    if x == d.net.input:
        x = d.net.conv(x, 4) if len(d.net.shape(x)) == 4 else d.net.dense(x, 4)
    d.net.outputs = [x]
    others = [t for t in d.maps if t not in (d.net.input, x)]
    for _ in range(d.pick([0, 0, 0, 1, 2])):
        also = d.pick(others) if others else x
        if also not in d.net.outputs:
            d.net.outputs.insert(d.count(0, 1), also)
            d.used.append("several outputs")
    return d


def _head(d: Drawing, x: int) -> int:
    """What follows the maps: nothing, a mean, or dense layers."""
    kind = d.pick(["map", "mean", "global pool", "dense", "dense"])
    net, shape = d.net, d.net.shape(x)
    d.used.append(f"{kind} head")
    if kind == "map":
        return x
    if kind == "mean":
        x = net.reduce("MEAN", x, [1, 2], d.chance(0.5))
    elif kind == "global pool":
        x = net.pool(x, d.pick(["MAX", "AVERAGE"]), (shape[1], shape[2]))
    count = int(np.prod(net.shape(x)))
    if kind != "dense" and d.chance(0.4):
        return x
    x = net.reshape(x, (1, count))
    return _dense_layers(d, x, d.count(1, 2))


def _dense_layers(d: Drawing, x: int, count: int) -> int:
    for left in reversed(range(count)):
        act = "NONE" if not left and d.chance(0.6) else d.act()
        x = d.net.dense(x, d.pick([3, 5, 8, 16, 24]), act=act, bias=d.chance(0.8))
        if left and d.chance(0.25):
            x = d.net.unary(d.pick(["LOGISTIC", "TANH", "ELU", "HARD_SWISH", "RELU"]), x)
    return d.net.softmax(x, d.pick([1.0, 1.0, 0.5])) if d.chance(0.25) else x


def chain(rng: np.random.Generator) -> Drawing:
    """Parts one after the other, and a head."""
    shape = (1, int(rng.integers(4, 21)), int(rng.integers(4, 21)), int(rng.choice([1, 3, 3, 4])))
    d = _start(rng, shape, "chain")
    x = d.net.input
    for _ in range(d.count(1, 6)):
        name = _NAMES[int(rng.choice(len(_NAMES), p=_SHARES))]
        if d.net.shape(x)[1] * d.net.shape(x)[2] * d.net.shape(x)[3] > 8000:
            x = d.net.conv(x, 4, stride=(2, 2), act=d.act())
        x = d.add(name, PARTS[name][0], x)
    return _finish(d, _head(d, x))


def classifier(rng: np.random.Generator) -> Drawing:
    """Strided stages as in MobileNets, ResNets and the like, ending in scores."""
    d = _start(rng, (1, *d_size(rng, (16, 24, 32)), 3), "classifier")
    x = d.net.conv(d.net.input, d.pick([4, 8]), stride=d.pick([(1, 1), (2, 2)]), act=d.act())
    stages = ["residual", "bottleneck", "csp", "shuffle", "depthwise", "squeeze and excite"]
    for _ in range(d.count(2, 4)):
        name = d.pick(stages)
        x = d.add(name, PARTS[name][0], x)
        if min(d.net.shape(x)[1:3]) >= 8 and d.chance(0.4):
            x = d.net.pool(x, d.pick(["MAX", "AVERAGE"]), (2, 2))
    return _finish(d, _head(d, x))


def d_size(rng: np.random.Generator, sides: tuple[int, ...]) -> tuple[int, int]:
    return int(rng.choice(sides)), int(rng.choice(sides))


def unet(rng: np.random.Generator) -> Drawing:
    """Down and up again, each level joined with the one it came from."""
    width = int(rng.choice([8, 16, 16, 24, 64, 128]))
    height = int(rng.choice([8, 16])) if width < 64 else 8
    d = _start(rng, (1, height, width, int(rng.choice([1, 3]))), "U-Net")
    net, x, levels = d.net, d.net.input, []
    for depth in range(d.count(1, 2)):
        x = net.conv(x, d.pick([4, 6]) * (depth + 1), act=d.act())
        levels.append(x)
        x = net.pool(x, "MAX", (2, 2)) if d.chance(0.6) else net.conv(x, 6, stride=(2, 2))
    x = net.conv(x, 8, act=d.act())
    d.maps += levels
    for level in reversed(levels):
        size = (net.shape(level)[1], net.shape(level)[2])
        if d.chance(0.3):
            x = net.transpose_conv(x, 4, (2, 2), (2, 2))
        else:
            x = net.resize(x, size, d.pick(["NEAREST_NEIGHBOR", "NEAREST_NEIGHBOR", "BILINEAR"]))
        joined = net.concat([x, level] if d.chance(0.5) else [level, x], 3)
        x = net.conv(joined, 4, act=d.act())
    x = net.conv(x, d.pick([1, 2]), (1, 1))
    return _finish(d, net.unary("LOGISTIC", x) if d.chance(0.5) else x)


def perceptron(rng: np.random.Generator) -> Drawing:
    """Dense layers on a vector, with branches, constants and clamps."""
    d = _start(rng, (1, int(rng.choice([3, 4, 6, 16, 32, 64]))), "MLP")
    net, x = d.net, d.net.input
    for _ in range(d.count(1, 4)):
        y = net.dense(x, d.pick([4, 8, 16, 24, 64]), act=d.act(), bias=d.chance(0.8))
        kind = d.pick(["plain", "plain", "curve", "sum", "joined", "constants"])
        if kind == "curve":
            y = net.unary(d.pick(["LOGISTIC", "TANH", "ELU", "HARD_SWISH", "RELU", "RELU6"]), y)
        elif kind == "sum":
            y = net.binary("ADD", y, net.dense(x, net.shape(y)[1], act=d.act()), act=d.act())
        elif kind == "joined":
            y = net.concat([y, net.dense(x, 4, act=d.act())], 1)
        elif kind == "constants":
            y = net.binary(d.pick(["ADD", "MUL"]), y, net.const(np.float32(d.rng.uniform(0.2, 2))))
        d.used.append(f"dense {kind}")
        x = y
        d.maps.append(x)
    if d.chance(0.3):  # one number made of a sum
        d.used.append("sum of scalars")
        a, b = (net.dense(x, 1, act=d.act()) for _ in range(2))
        return _finish(d, net.binary("ADD", a, b))
    x = net.dense(x, d.pick([1, 3, 10]))
    return _finish(d, net.softmax(x) if d.chance(0.3) else x)


def one_dimensional(rng: np.random.Generator) -> Drawing:
    """Convolutions along time, as Keras' Conv1D writes them."""
    length, channels = int(rng.choice([16, 32, 40, 64])), int(rng.choice([1, 3, 6]))
    d = _start(rng, (1, length, channels), "1-D")
    net, x = d.net, d.net.input
    for _ in range(d.count(1, 3)):
        _, n, c = net.shape(x)
        kernel, stride = d.pick([1, 3, 3, 5, 7]), d.pick([1, 1, 2])
        padding = d.padding() if n >= kernel else "SAME"
        row = net.reshape(x, (1, 1, n, c))
        dilation = (1, d.pick([1, 1, 2])) if stride == 1 and padding == "SAME" else (1, 1)
        y = net.conv(row, d.pick([4, 8]), (1, kernel), stride=(1, stride), padding=padding,
                     act=d.act(), dilation=dilation)  # fmt: skip
        if net.shape(y)[2] >= 4 and d.chance(0.3):
            y = net.pool(y, d.pick(["MAX", "AVERAGE"]), (1, 2))
        x = net.reshape(y, (1, *net.shape(y)[2:]))
        if net.shape(x) == [1, n, c] and d.chance(0.5):
            x = net.binary("ADD", x, net.reshape(row, (1, n, c)))
    if d.chance(0.5):
        x = net.reduce("MEAN", x, [1], False)
    else:
        x = net.reshape(x, (1, int(np.prod(net.shape(x)))))
    return _finish(d, _dense_layers(d, x, d.count(1, 2)))


FAMILIES: dict[Callable[[np.random.Generator], Drawing], int] = {
    chain: 12,
    classifier: 3,
    unet: 2,
    perceptron: 4,
    one_dimensional: 2,
}
