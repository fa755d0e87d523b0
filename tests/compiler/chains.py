"""Random small networks: chains of ops drawn by hypothesis, for whole-compiler tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.compiler.tflite_builder import Net

Draw = Callable[[Any], Any]
ACTS = st.sampled_from(["NONE", "RELU", "RELU6"])
KERNELS = [
    (1, 1), (3, 3), (3, 3), (3, 3), (2, 2), (1, 3), (3, 1), (5, 5), (3, 5), (4, 4), (7, 7), (1, 6),
]  # fmt: skip
PADDING = st.sampled_from(["SAME", "VALID"])


def _conv(draw: Draw, net: Net, x: int) -> int | None:
    kernel = draw(st.sampled_from(KERNELS))
    stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (4, 4), (1, 2)]))
    dilation = (
        draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 2)])) if stride == (1, 1) else (1, 1)
    )
    padding = draw(PADDING)
    if not _room(net, x, kernel, dilation, padding):
        return None
    channels = draw(st.sampled_from([1, 2, 3, 4, 8, 12]))
    return net.conv(x, channels, kernel, stride=stride, padding=padding, act=draw(ACTS),
                    dilation=dilation)  # fmt: skip


def _room(net: Net, x: int, kernel: Any, dilation: Any, padding: str) -> bool:
    size = net.shape(x)[1:3]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return padding == "SAME" or all(n >= s for n, s in zip(size, spans, strict=True))


def _depthwise(draw: Draw, net: Net, x: int) -> int | None:
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (2, 2), (5, 5)]))
    padding = draw(PADDING)
    if not _room(net, x, kernel, (1, 1), padding):
        return None
    stride = draw(st.sampled_from([(1, 1), (2, 2), (2, 2)]))
    return net.depthwise(
        x, kernel, multiplier=draw(st.sampled_from([1, 1, 1, 2])), stride=stride, padding=padding,
        act=draw(ACTS),
    )  # fmt: skip


def _pool(draw: Draw, net: Net, x: int) -> int | None:
    kind = draw(st.sampled_from(["MAX", "AVERAGE"]))
    kernel = draw(st.sampled_from([(2, 2), (2, 2), (3, 3), (4, 4), (2, 1)]))
    stride = draw(st.sampled_from([kernel, (1, 1), (2, 2)]))
    padding = draw(PADDING)
    if not _room(net, x, kernel, (1, 1), padding):
        return None
    return net.pool(x, kind, kernel, stride=stride, padding=padding, act=draw(ACTS))


def _pad(draw: Draw, net: Net, x: int) -> int | None:
    pads = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2)]
    return net.pad(x, [(0, 0), *pads, (0, 0)])


def _activation(draw: Draw, net: Net, x: int) -> int | None:
    name = draw(
        st.sampled_from(["LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH", "ELU", "RELU", "RELU6"])
    )
    if name == "LEAKY_RELU":
        return net.unary(name, x, "LeakyReluOptions", Alpha=0.1)
    return net.unary(name, x)


def _residual(draw: Draw, net: Net, x: int) -> int | None:
    _, _, _, c = net.shape(x)
    y = net.conv(x, c, (3, 3), act=draw(ACTS))
    return net.binary(draw(st.sampled_from(["ADD", "ADD", "SUB", "MUL"])), x, y, act=draw(ACTS))


def _branches(draw: Draw, net: Net, x: int) -> int | None:
    a = net.conv(x, draw(st.sampled_from([2, 4, 8])), (1, 1), act=draw(ACTS))
    b = net.conv(x, draw(st.sampled_from([2, 4, 8])), (3, 3), act=draw(ACTS))
    joined = net.concat([a, b], 3)
    return net.unary("RELU", joined) if draw(st.booleans()) else joined


def _resize(draw: Draw, net: Net, x: int) -> int | None:
    _, h, w, _ = net.shape(x)
    if h * w > 400:
        return None
    kind = draw(st.sampled_from(["NEAREST_NEIGHBOR", "BILINEAR"]))
    return net.resize(x, (h * 2, w * 2), kind, half=draw(st.booleans()))


def _slice(draw: Draw, net: Net, x: int) -> int | None:
    _, h, w, c = net.shape(x)
    begin = [0, draw(st.integers(0, h // 3)), draw(st.integers(0, w // 3)), 0]
    step = draw(st.integers(1, 2))
    return net.strided_slice(x, begin, [1, h, w, c], [1, step, step, 1])


def _transposed(draw: Draw, net: Net, x: int) -> int | None:
    _, h, w, _ = net.shape(x)
    if h * w > 200:
        return None
    return net.transpose_conv(x, draw(st.sampled_from([2, 4])), (3, 3), (2, 2),
                              draw(PADDING))  # fmt: skip


LAYERS = [
    _conv, _conv, _conv, _depthwise, _depthwise, _pool, _pool, _pad, _activation, _residual,
    _branches, _resize, _slice, _transposed,
]  # fmt: skip


def _head(draw: Draw, net: Net, x: int) -> int:
    """What follows the maps: nothing, a mean, or dense layers."""
    kind = draw(st.sampled_from(["map", "mean", "dense", "dense2"]))
    if kind == "map":
        return x
    if kind == "mean":
        return net.reduce("MEAN", x, [1, 2], draw(st.booleans()))
    count = 1
    for n in net.shape(x):
        count *= n
    x = net.reshape(x, (1, count))
    x = net.dense(x, draw(st.sampled_from([5, 16])), act="RELU", bias=draw(st.booleans()))
    if kind == "dense2":
        x = net.dense(x, 4)
        x = net.softmax(x) if draw(st.booleans()) else x
    return x


@st.composite
def networks(draw: Draw) -> Net:
    """A network of up to five layers on a map of 4 to 20 pixels a side."""
    shape = (
        1,
        draw(st.integers(4, 20)),
        draw(st.integers(4, 20)),
        draw(st.sampled_from([1, 3, 4])),
    )
    net = Net(shape, seed=draw(st.integers(0, 1000)))
    x = net.input
    seen = []
    for _ in range(draw(st.integers(1, 5))):
        layer = draw(st.sampled_from(LAYERS))
        y = layer(draw, net, x)
        x = x if y is None else y
        seen.append(x)
        if min(net.shape(x)[1:3]) < 1:
            break
    x = _head(draw, net, x)
    if x == net.input:
        x = net.conv(x, 4)
    net.outputs = [x]
    if draw(st.integers(0, 3)) == 0:  # a map on the way is an output too
        also = draw(st.sampled_from(seen))
        if also not in (net.input, x):
            net.outputs.append(also)
    return net
