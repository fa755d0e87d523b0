"""Parts that random networks are put together from: one function a structure people use.

A part takes the network under way and a map (1, rows, columns, channels) and returns the map
it makes of it, or None where the map has no room for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from tests.compiler.tflite_builder import Net

T = TypeVar("T")

CURVES = ["LOGISTIC", "TANH", "ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "SWISH", "PRELU"]
KERNELS = [
    (1, 1), (1, 1), (3, 3), (3, 3), (3, 3), (2, 2), (1, 3), (3, 1), (5, 5), (3, 5), (4, 4), (7, 7),
    (1, 6),
]  # fmt: skip


class Drawing:
    """A network under way and the generator it is drawn with.

    ``maps`` are the maps made so far, for who reads one again; ``used`` names the structures.
    """

    def __init__(self, net: Net, rng: np.random.Generator):
        self.net, self.rng = net, rng
        self.maps: list[int] = []
        self.used: list[str] = []

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def count(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def act(self) -> str:
        return self.pick(["NONE", "RELU", "RELU6"])

    def padding(self) -> str:
        return self.pick(["SAME", "VALID"])

    def fits(self, x: int, kernel: Any, dilation: Any, padding: str) -> bool:
        size = self.net.shape(x)[1:3]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        return padding == "SAME" or all(n >= s for n, s in zip(size, spans, strict=True))

    def add(self, name: str, part: Part, x: int) -> int:
        """``x`` with one more part behind it, or ``x`` where there is no room for it."""
        before = len(self.net.tensors), len(self.net.ops)
        y = part(self, x)
        if y is None:
            del self.net.tensors[before[0] :], self.net.ops[before[1] :]
            return x
        self.used.append(name)
        self.maps.append(y)
        return y


Part = Callable[[Drawing, int], "int | None"]


# -- one layer


def conv(d: Drawing, x: int) -> int | None:
    kernel, padding = d.pick(KERNELS), d.padding()
    stride = d.pick([(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (4, 4), (1, 2), (2, 1)])
    if not d.fits(x, kernel, (1, 1), padding):
        return None
    channels = d.pick([1, 2, 3, 4, 8, 12, 16])
    return d.net.conv(x, channels, kernel, stride=stride, padding=padding, act=d.act(),
                      bias=d.chance(0.8))  # fmt: skip


def dilated(d: Drawing, x: int) -> int | None:
    kernel, padding = d.pick([(3, 3), (2, 2), (1, 3), (3, 1)]), d.padding()
    dilation = d.pick([(2, 2), (3, 3), (1, 2), (2, 1)])
    if not d.fits(x, kernel, dilation, padding):
        return None
    if d.chance(0.3):
        return d.net.depthwise(x, kernel, padding=padding, act=d.act(), dilation=dilation)
    return d.net.conv(x, d.pick([2, 4, 8]), kernel, padding=padding, act=d.act(), dilation=dilation)


def depthwise(d: Drawing, x: int) -> int | None:
    kernel, padding = d.pick([(3, 3), (3, 3), (1, 1), (2, 2), (5, 5), (1, 3)]), d.padding()
    if not d.fits(x, kernel, (1, 1), padding):
        return None
    stride = d.pick([(1, 1), (2, 2), (2, 2)])
    return d.net.depthwise(x, kernel, multiplier=d.pick([1, 1, 1, 2]), stride=stride,
                           padding=padding, act=d.act())  # fmt: skip


def pool(d: Drawing, x: int) -> int | None:
    kernel, padding = d.pick([(2, 2), (2, 2), (3, 3), (4, 4), (2, 1), (1, 3), (5, 5)]), d.padding()
    if not d.fits(x, kernel, (1, 1), padding):
        return None
    stride = d.pick([kernel, (1, 1), (2, 2)])
    return d.net.pool(x, d.pick(["MAX", "AVERAGE"]), kernel, stride=stride, padding=padding,
                      act=d.pick(["NONE", "NONE", "RELU", "RELU6"]))  # fmt: skip


def pad(d: Drawing, x: int) -> int | None:
    y = d.net.pad(x, [(0, 0), *((d.count(0, 4), d.count(0, 4)) for _ in range(2)), (0, 0)])
    if d.chance(0.4) or not d.fits(y, (3, 3), (1, 1), "VALID"):
        return y
    stride = d.pick([(1, 1), (2, 2)])
    return d.net.conv(y, 4, (3, 3), stride=stride, padding="VALID", act=d.act())


def mirrored(d: Drawing, x: int) -> int | None:
    _, h, w, c = d.net.shape(x)
    pads = [[0, 0], *([d.count(0, 2), d.count(0, 2)] for _ in range(2)), [0, 0]]
    if min(h, w) < 4:
        return None
    shape = (1, h + sum(pads[1]), w + sum(pads[2]), c)
    const = d.net.const(np.array(pads, np.int32))
    return d.net.op("MIRROR_PAD", [x, const], shape, "MirrorPadOptions", Mode=d.count(0, 1))


def curve(d: Drawing, x: int) -> int | None:
    """A function that is no straight line, as often of values of several units as of one."""
    if d.chance(0.7):
        kernel = d.pick([(1, 1), (3, 3)])
        x = d.net.conv(x, d.pick([2, 4, 8]), kernel, gain=d.pick([1.0, 3.0]))
    return curved(d, x)


def curved(d: Drawing, x: int) -> int:
    name = d.pick(CURVES)
    if name == "LEAKY_RELU":
        return d.net.unary(name, x, "LeakyReluOptions", Alpha=d.pick([0.1, 0.01, 0.3]))
    if name == "GELU":
        return d.net.unary(name, x, "GeluOptions", Approximate=d.chance(0.5))
    if name == "SWISH":
        return d.net.binary("MUL", x, d.net.unary("LOGISTIC", x))
    if name == "PRELU":
        slopes = d.rng.uniform(0, 0.5, (1, 1, d.net.shape(x)[-1])).astype(np.float32)
        return d.net.op("PRELU", [x, d.net.const(slopes)], d.net.shape(x))
    return d.net.unary(name, x)


def clamped(d: Drawing, x: int) -> int | None:
    return d.net.unary(d.pick(["RELU", "RELU6", "RELU_N1_TO_1"]), x)


def scaled(d: Drawing, x: int) -> int | None:
    """A map and constants: one number, or one a channel."""
    c = d.net.shape(x)[-1]
    each = d.chance(0.5)
    values = d.rng.uniform(0.5, 3, (1, 1, 1, c) if each else ()) * d.pick([-1.0, 1.0])
    if d.chance(0.3):
        values = values * 0.1
    const = d.net.const(np.asarray(values, np.float32))
    name = d.pick(["ADD", "SUB", "MUL", "MUL"])
    pair = (const, x) if d.chance(0.3) else (x, const)
    return d.net.binary(name, *pair, act=d.pick(["NONE", "NONE", "RELU"]))


# -- branches that meet


def residual(d: Drawing, x: int) -> int | None:
    c = d.net.shape(x)[-1]
    y = d.net.conv(x, c, d.pick([(1, 1), (3, 3)]), act=d.act())
    if d.chance(0.4):
        y = d.net.conv(y, c)
    return d.net.binary(d.pick(["ADD", "ADD", "ADD", "SUB", "MUL"]), x, y, act=d.act())


def shared(d: Drawing, x: int) -> int | None:
    """A map made earlier is read once more, beside those who read it already."""
    again = [t for t in d.maps if t != x and d.net.shape(t)[:3] == d.net.shape(x)[:3]]
    old = d.pick(again) if again else d.net.conv(x, 4)
    if not again:
        x = d.net.conv(old, 4, act=d.act())
    if d.net.shape(old) == d.net.shape(x) and d.chance(0.5):
        return d.net.binary("ADD", x, old, act=d.act())
    y = d.net.conv(old, d.pick([2, 4]), d.pick([(1, 1), (3, 3)]), act=d.act())
    return d.net.concat(d.pick([[x, y], [y, x], [x, old], [old, y, x]]), 3)


def inception(d: Drawing, x: int) -> int | None:
    net = d.net
    parts = [
        net.conv(x, d.pick([2, 4]), (1, 1), act=d.act()),
        net.conv(net.conv(x, 3, (1, 1), act=d.act()), d.pick([2, 4]), (3, 3), act=d.act()),
        net.conv(net.pool(x, d.pick(["MAX", "AVERAGE"]), (3, 3), stride=(1, 1), padding="SAME"),
                 2, (1, 1), act=d.act()),
    ]  # fmt: skip
    if d.chance(0.3):
        parts.append(net.conv(x, 4, (5, 5), act=d.act()))
    order = d.rng.permutation(len(parts))[: d.count(2, len(parts))]
    return net.concat([parts[i] for i in order], 3)


def unlike(d: Drawing, x: int) -> int | None:
    """Maps of unlike ranges joined: clamped, of both signs, larger, curved."""
    net = d.net
    large = net.const(np.float32(d.pick([0.1, 4.0, 9.0])))
    parts = [
        net.conv(x, 4, (3, 3), act="RELU6", gain=d.pick([1.0, 4.0])),
        net.conv(x, 4, (3, 3)),
        net.binary("MUL", net.conv(x, 2, (1, 1), act=d.act()), large),
        net.unary(d.pick(["LOGISTIC", "TANH"]), net.conv(x, 2, (1, 1))),
        x,
    ]
    order = d.rng.permutation(len(parts))[: d.count(2, 3)]
    y = net.concat([parts[i] for i in order], 3)
    return net.conv(y, 4, d.pick([(1, 1), (3, 3)]), act=d.act()) if d.chance(0.8) else y


def dense_block(d: Drawing, x: int) -> int | None:
    for _ in range(d.count(1, 3)):
        x = d.net.concat([x, d.net.conv(x, 4, act=d.act())], 3)
    return x


def bottleneck(d: Drawing, x: int) -> int | None:
    """MobileNet's: widened, filtered, narrowed, added where shapes allow it."""
    net, c = d.net, d.net.shape(x)[-1]
    stride = d.pick([(1, 1), (1, 1), (2, 2)])
    y = net.conv(x, 2 * c, (1, 1), act="RELU6")
    y = net.depthwise(y, stride=stride, act="RELU6")
    y = net.conv(y, c, (1, 1))
    return net.binary("ADD", x, y) if stride == (1, 1) else y


def excited(d: Drawing, x: int) -> int | None:
    """Squeeze and excite: each channel times what the means make of it."""
    net, c = d.net, d.net.shape(x)[-1]
    x = net.conv(x, c, act=d.act())
    if d.chance(0.5):
        y = net.reduce("MEAN", x, [1, 2], True)
        y = net.conv(net.conv(y, 4, (1, 1), act="RELU"), c, (1, 1))
    else:
        y = net.reduce("MEAN", x, [1, 2], False)
        y = net.reshape(net.dense(net.dense(y, 4, act="RELU"), c), (1, 1, 1, c))
    return net.binary("MUL", x, net.unary("LOGISTIC", y))


def attended(d: Drawing, x: int) -> int | None:
    return d.net.binary("MUL", x, d.net.unary("LOGISTIC", d.net.conv(x, 1)))


# -- channels apart


def _even(d: Drawing, x: int) -> tuple[int, int]:
    c = d.net.shape(x)[-1]
    return (x, c) if c % 2 == 0 else (d.net.conv(x, 8, act=d.act()), 8)


def parted(d: Drawing, x: int) -> list[int]:
    """The halves of the channels, cut in one of the ways a file may do it."""
    net = d.net
    x, c = _even(d, x)
    _, h, w, _ = net.shape(x)
    how = d.pick(["SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE"])
    half = c // 2
    if how == "SLICE":
        size = net.const(np.array([1, h, w, half], np.int32))
        begins = [net.const(np.array([0, 0, 0, b], np.int32)) for b in (0, half)]
        return [net.op("SLICE", [x, b, size], (1, h, w, half)) for b in begins]
    if how == "STRIDED_SLICE":
        return [net.strided_slice(x, [0, 0, 0, b], [1, h, w, b + half], [1] * 4)
                for b in (0, half)]  # fmt: skip
    outs = [net.tensor((1, h, w, half)) for _ in range(2)]
    axis = net.const(np.array(3, np.int32))
    if how == "SPLIT":
        net.ops.append((how, [axis, x], outs, "SplitOptions", {"NumSplits": 2}, 1))
    else:
        sizes = net.const(np.array([half, half], np.int32))
        net.ops.append((how, [x, sizes, axis], outs, "SplitVOptions", {"NumSplits": 2}, 1))
    return outs


def cross_stage(d: Drawing, x: int) -> int | None:
    """CSP: one half is convolved, the other passed by, both joined and read by a layer."""
    net = d.net
    a, b = parted(d, net.conv(x, 8, act=d.act()) if d.chance(0.7) else x)
    c = net.shape(a)[-1]
    y = net.conv(a, c, d.pick([(1, 1), (3, 3)]), act=d.act())
    if d.chance(0.3):
        y = net.binary("ADD", a, y)
    if d.chance(0.3):
        b = d.net.conv(b, c, (1, 1), act=d.act())
    joined = net.concat([y, b] if d.chance(0.5) else [b, y], 3)
    return net.conv(joined, 4, d.pick([(1, 1), (3, 3)]), act=d.act()) if d.chance(0.8) else joined


def split_paths(d: Drawing, x: int) -> int | None:
    """Both halves go through functions of their own before they meet."""
    a, b = parted(d, x)
    a = curved(d, a) if d.chance(0.5) else d.net.unary("RELU", a)
    return d.net.concat([a, b], 3) if d.chance(0.5) else d.net.binary("ADD", a, b)


def shuffled(d: Drawing, x: int) -> int | None:
    """ShuffleNet: channels of two groups taken turn by turn."""
    net = d.net
    x, c = _even(d, x)
    _, h, w, _ = net.shape(x)
    y = net.reshape(x, (1, h, w, 2, c // 2))
    y = net.reshape(net.transpose(y, (0, 1, 2, 4, 3)), (1, h, w, c))
    if d.chance(0.5):
        a, b = parted(d, y)
        return net.concat([a, net.conv(b, net.shape(b)[-1], (1, 1), act=d.act())], 3)
    return net.conv(y, 4, d.pick([(1, 1), (3, 3)])) if d.chance(0.7) else y


def picked(d: Drawing, x: int) -> int | None:
    """Channels picked one by one."""
    net = d.net
    _, h, w, c = net.shape(x)
    if c < 2:
        return None
    at = d.rng.integers(0, c, d.count(1, 4)).astype(np.int32)
    shape = (1, h, w, len(at))
    return net.op("GATHER", [x, net.const(at)], shape, "GatherOptions", Axis=3)


# -- places


def cropped(d: Drawing, x: int) -> int | None:
    _, h, w, c = d.net.shape(x)
    begin = [0, d.count(0, h // 3), d.count(0, w // 3), 0]
    end = [1, h - d.count(0, h // 4), w - d.count(0, w // 4), c]
    step = d.count(1, 2)
    return d.net.strided_slice(x, begin, end, [1, step, step, 1])


def resized(d: Drawing, x: int) -> int | None:
    _, h, w, _ = d.net.shape(x)
    if h * w > 300:
        return None
    kind = d.pick(["NEAREST_NEIGHBOR", "NEAREST_NEIGHBOR", "BILINEAR"])
    align, half = d.pick([(False, False), (False, True), (True, False)])
    size = d.pick([(2 * h, 2 * w), (2 * h, 2 * w), (h + 3, w + 2)])
    return d.net.resize(x, size, kind, align, half)


def upconv(d: Drawing, x: int) -> int | None:
    _, h, w, _ = d.net.shape(x)
    if h * w > 200:
        return None
    return d.net.transpose_conv(x, d.pick([2, 4]), d.pick([(3, 3), (2, 2)]), (2, 2), d.padding())


def turned(d: Drawing, x: int) -> int | None:
    return d.net.transpose(x, (0, 2, 1, 3))


def folded(d: Drawing, x: int) -> int | None:
    """Two rows become one."""
    _, h, w, c = d.net.shape(x)
    if h % 2:
        return None
    return d.net.reshape(x, d.pick([(1, h // 2, 2 * w, c), (1, h // 2, w, 2 * c)]))


def blocks(d: Drawing, x: int) -> int | None:
    _, h, w, c = d.net.shape(x)
    if h % 2 == 0 and w % 2 == 0 and d.chance(0.7):
        shape = (1, h // 2, w // 2, 4 * c)
        return d.net.op("SPACE_TO_DEPTH", [x], shape, "SpaceToDepthOptions", BlockSize=2)
    if c % 4:
        return None
    shape = (1, 2 * h, 2 * w, c // 4)
    return d.net.op("DEPTH_TO_SPACE", [x], shape, "DepthToSpaceOptions", BlockSize=2)


#: name -> the part and how often it is drawn
PARTS: dict[str, tuple[Part, int]] = {
    "conv": (conv, 10),
    "depthwise": (depthwise, 6),
    "dilated": (dilated, 2),
    "pool": (pool, 6),
    "pad": (pad, 5),
    "mirror pad": (mirrored, 1),
    "curve": (curve, 6),
    "clamp": (clamped, 2),
    "constants": (scaled, 3),
    "residual": (residual, 5),
    "shared producer": (shared, 6),
    "inception": (inception, 4),
    "unlike ranges": (unlike, 5),
    "dense block": (dense_block, 3),
    "bottleneck": (bottleneck, 3),
    "squeeze and excite": (excited, 3),
    "attention": (attended, 2),
    "csp": (cross_stage, 6),
    "split": (split_paths, 3),
    "shuffle": (shuffled, 3),
    "gather": (picked, 1),
    "slice": (cropped, 4),
    "resize": (resized, 3),
    "transposed conv": (upconv, 2),
    "transpose": (turned, 1),
    "reshape": (folded, 1),
    "blocks": (blocks, 1),
}
