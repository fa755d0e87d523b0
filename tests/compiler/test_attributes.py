"""Every attribute of every op, value by value: compiled, simulated and compared, or refused.

A row of :data:`CASES` builds a network around one op with one value of one attribute. The
float graph must compute what LiteRT does, the simulated kmodels too, as far as 8 bits go; an
attribute that a reader or an encoder drops computes something else. What is refused stands
in :data:`REFUSED`, by version.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tflite

from k210tasks.compiler.constraints import RULES
from k210tasks.compiler.pipeline import lowered
from k210tasks.compiler.problems import CompileError, NeedsKmodel4
from k210tasks.compiler.source import _OPTIONS
from tests.compiler.helpers import Outcome, same_after_legalise
from tests.compiler.tflite_builder import _FUSED, Net

LEAST = 22.0  # dB against the variance of the output, of at most three layers of 8 bits
Build = Callable[[Net], int]
ACTS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


def ints(net: Net, *values: int) -> int:
    return net.const(np.array(values, np.int32))


def mapped(net: Net, channels: int = 8) -> int:
    """A map that the KPU has computed, of both signs, beyond 1 and 6."""
    return net.conv(net.input, channels, gain=6.0)


def vector(net: Net, count: int = 8) -> int:
    return net.reduce("MEAN", mapped(net, count), [1, 2], False)


def convs() -> Iterator[tuple[str, Build]]:
    for kernel, stride, padding in itertools.product(
        [(1, 1), (3, 3), (2, 3), (5, 1)], [(1, 1), (2, 2), (1, 2), (3, 2)], ["SAME", "VALID"]
    ):
        for kind in ("conv", "depthwise"):
            yield (
                f"{kind}-kernel{kernel}-stride{stride}-{padding}",
                lambda n, k=kernel, s=stride, p=padding, d=kind: (
                    n.conv(n.input, 4, k, stride=s, padding=p)
                    if d == "conv"
                    else n.depthwise(mapped(n), k, stride=s, padding=p)
                ),
            )
    for dilation, padding in itertools.product([(2, 2), (1, 2), (3, 1)], ["SAME", "VALID"]):
        yield (
            f"conv-dilation{dilation}-{padding}",
            lambda n, d=dilation, p=padding: n.conv(n.input, 4, dilation=d, padding=p),
        )
        yield (
            f"depthwise-dilation{dilation}-{padding}",
            lambda n, d=dilation, p=padding: n.depthwise(mapped(n), dilation=d, padding=p),
        )
    for act in ACTS:
        yield f"conv-{act}", lambda n, a=act: n.conv(n.input, 4, act=a, gain=6.0)
        yield f"depthwise-{act}", lambda n, a=act: n.depthwise(mapped(n), act=a)
        yield f"dense-{act}", lambda n, a=act: n.dense(vector(n), 6, act=a)
        for kind in ("MAX", "AVERAGE"):
            yield (
                f"{kind}-{act}",
                lambda n, a=act, k=kind: n.pool(mapped(n), k, (2, 2), act=a),
            )
        for op in ("ADD", "SUB", "MUL"):
            yield (
                f"{op}-{act}",
                lambda n, a=act, o=op: n.binary(o, mapped(n), n.conv(n.input, 8), act=a),
            )
        yield f"DIV-{act}", lambda n, a=act: n.binary("DIV", mapped(n), positive(n), act=a)
        yield f"TRANSPOSE_CONV-{act}", lambda n, a=act: transposed(n, act=a)
    for multiplier in (1, 2, 3):
        yield (
            f"depthwise-multiplier{multiplier}",
            lambda n, m=multiplier: n.depthwise(mapped(n, 4), multiplier=m),
        )
    for groups in (1, 2, 4):
        yield f"conv-groups{groups}", lambda n, g=groups: grouped(n, g)
    for padding, stride, kernel in itertools.product(
        ["SAME", "VALID"], [(2, 2), (1, 2), (3, 3)], [(3, 3), (2, 4)]
    ):
        yield (
            f"TRANSPOSE_CONV-{padding}-stride{stride}-kernel{kernel}",
            lambda n, p=padding, s=stride, k=kernel: transposed(n, k, s, p),
        )
    yield "dense-no-bias", lambda n: n.dense(vector(n), 6, bias=False)
    yield "conv-no-bias", lambda n: n.conv(n.input, 4, bias=False)
    for keep in (False, True):
        yield f"dense-keep_num_dims-{keep}", lambda n, k=keep: kept_dims(n, keep=k)
    for adjoint in (False, True):
        yield f"BATCH_MATMUL-adj_y-{adjoint}", lambda n, a=adjoint: product(n, adj_y=a)
    yield "BATCH_MATMUL-adj_x", lambda n: product(n, adj_x=True)
    yield "FULLY_CONNECTED-shuffled", shuffled


def positive(net: Net) -> int:
    return net.binary("ADD", net.unary("RELU", net.conv(net.input, 8)), net.const(np.float32(1)))


def transposed(
    net: Net, kernel: Any = (3, 3), stride: Any = (2, 2), padding: str = "SAME", act: str = "NONE"
) -> int:
    y = net.transpose_conv(mapped(net, 4), 4, kernel, stride, padding)
    net.ops[-1][4]["FusedActivationFunction"] = _FUSED[act]
    net.ops[-1] = (*net.ops[-1][:5], 4)
    return y


def grouped(net: Net, groups: int) -> int:
    x = mapped(net)
    weights = net.rng.normal(0, 0.3, (8, 3, 3, 8 // groups)).astype(np.float32)
    bias = net.const(np.zeros(8, np.float32))
    return net.op(
        "CONV_2D", [x, net.const(weights), bias], (1, 8, 8, 8), "Conv2DOptions",
        Padding=0, StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1,
    )  # fmt: skip


def kept_dims(net: Net, *, keep: bool) -> int:
    x = net.reshape(mapped(net), (1, 64, 8)) if keep else vector(net)
    weights = net.const(net.rng.normal(0, 0.3, (5, 8)).astype(np.float32))
    shape = (1, 64, 5) if keep else (1, 5)
    options = {"KeepNumDims": keep}
    return net.op("FULLY_CONNECTED", [x, weights], shape, "FullyConnectedOptions", **options)


def shuffled(net: Net) -> int:
    weights = net.const(net.rng.normal(0, 0.3, (4, 16)).astype(np.float32))
    x = vector(net, 16)
    options = {"WeightsFormat": 1}
    return net.op("FULLY_CONNECTED", [x, weights], (1, 4), "FullyConnectedOptions", **options)


def product(net: Net, *, adj_x: bool = False, adj_y: bool = False) -> int:
    x = net.reshape(mapped(net), (1, 8, 64) if adj_x else (1, 64, 8))
    shape = (5, 8) if adj_y else (8, 5)
    weights = net.const(net.rng.normal(0, 0.3, shape).astype(np.float32))
    return net.op(
        "BATCH_MATMUL", [x, weights], (1, 64, 5), "BatchMatMulOptions", AdjX=adj_x, AdjY=adj_y
    )


def pools() -> Iterator[tuple[str, Build]]:
    for kind, kernel, stride, padding in itertools.product(
        ["MAX", "AVERAGE"], [(2, 2), (3, 2), (1, 4)], [(1, 1), (2, 2), (2, 3)], ["SAME", "VALID"]
    ):
        yield (
            f"{kind}-kernel{kernel}-stride{stride}-{padding}",
            lambda n, d=kind, k=kernel, s=stride, p=padding: n.pool(
                mapped(n), d, k, stride=s, padding=p
            ),
        )
    for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        for axes in ([1], [2], [3], [1, 2], [2, 3], [1, 2, 3], [-1], [-3, -2]):
            for keep in (True, False):
                yield (
                    f"{name}-axes{axes}-keep{keep}",
                    lambda n, o=name, a=axes, k=keep: reduced(n, mapped(n), o, a, k),
                )
        for axes in ([1], [2], [1, 2]):
            for keep in (True, False):
                yield (
                    f"{name}-rank3-axes{axes}-keep{keep}",
                    lambda n, o=name, a=axes, k=keep: reduced(
                        n, n.reshape(mapped(n), (1, 64, 8)), o, a, k
                    ),
                )


def reduced(net: Net, x: int, name: str, axes: list[int], keep: bool) -> int:
    rank = len(net.shape(x))
    y = net.reduce(name, x, [a % rank for a in axes], keep)
    net.tensors[net.ops[-1][1][1]]["value"] = np.array(axes, np.int32)
    return y


def axes() -> Iterator[tuple[str, Build]]:
    shapes: dict[str, tuple[int, ...]] = {
        "map": (1, 8, 8, 8), "pixel": (1, 1, 1, 512), "row": (1, 1, 64, 8), "rank3": (1, 64, 8),
        "rank2": (1, 512), "rows": (64, 8), "channel": (1, 16, 32, 1),
    }  # fmt: skip
    for name, shape in shapes.items():
        yield f"SOFTMAX-{name}", lambda n, s=shape: n.softmax(n.reshape(mapped(n), s))
        yield (
            f"L2_NORMALIZATION-{name}",
            lambda n, s=shape: n.unary(
                "L2_NORMALIZATION", n.reshape(mapped(n), s), "L2NormOptions"
            ),
        )
    for beta in (0.25, 1.0, 2.0):
        yield f"SOFTMAX-beta{beta}", lambda n, b=beta: n.softmax(vector(n), b)
        yield f"SOFTMAX-beta{beta}-map", lambda n, b=beta: n.softmax(mapped(n), b)
    yield "SOFTMAX-1x1-conv", lambda n: n.softmax(n.conv(n.reduce("MEAN", mapped(n), [1, 2], True),
                                                         10, (1, 1)))  # fmt: skip
    yield (
        "L2_NORMALIZATION-RELU",
        lambda n: n.unary(
            "L2_NORMALIZATION", vector(n), "L2NormOptions", FusedActivationFunction=1
        ),
    )
    for axis in (0, 1, 2, 3, -1, -2, -3):
        if axis:
            yield f"CONCATENATION-axis{axis}", lambda n, a=axis: joined(n, a)
            yield f"SPLIT-axis{axis}", lambda n, a=axis: split(n, a)
            yield f"SPLIT_V-axis{axis}", lambda n, a=axis: split(n, a, sizes=True)
        yield f"GATHER-axis{axis}", lambda n, a=axis: gathered(n, a)
        yield f"PACK-axis{axis}", lambda n, a=axis: packed(n, a)
        yield f"UNPACK-axis{axis}", lambda n, a=axis: unpacked(n, a)
    for axis in (1, 2, -1):
        yield f"CONCATENATION-rank3-axis{axis}", lambda n, a=axis: joined(n, a, (1, 64, 8))
    for perm in itertools.permutations((1, 2, 3)):
        yield (
            f"TRANSPOSE-{perm}",
            lambda n, p=perm: n.transpose(mapped(n), (0, *p)),
        )
    for perm in ((0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0)):
        yield (
            f"TRANSPOSE-rank3-{perm}",
            lambda n, p=perm: n.transpose(n.reshape(mapped(n), (4, 16, 8)), p),
        )


def joined(net: Net, axis: int, shape: Any = None) -> int:
    parts = [mapped(net), net.conv(net.input, 8, act="RELU")]
    if shape is not None:
        parts = [net.reshape(p, shape) for p in parts]
    y = net.concat(parts, axis % len(net.shape(parts[0])))
    net.ops[-1][4]["Axis"] = axis
    return y


def split(net: Net, axis: int, *, sizes: bool = False) -> int:
    x = mapped(net)
    given = net.shape(x)
    n = given[axis % 4]
    counts = [n - 2, 2] if sizes else [n // 2, n // 2]
    shapes = [[c if i == axis % 4 else m for i, m in enumerate(given)] for c in counts]
    outs = [net.tensor(s) for s in shapes]
    at = net.const(np.array(axis, np.int32))
    inputs = [x, ints(net, *counts), at] if sizes else [at, x]
    name, table = ("SPLIT_V", "SplitVOptions") if sizes else ("SPLIT", "SplitOptions")
    net.ops.append((name, inputs, outs, table, {"NumSplits": 2}, 1))
    return outs[1]


def gathered(net: Net, axis: int) -> int:
    x = mapped(net)
    places = [0] if axis % 4 == 0 else [5, 1, 1, 2]
    shape = [len(places) if i == axis % 4 else n for i, n in enumerate(net.shape(x))]
    return net.op("GATHER", [x, ints(net, *places)], shape, "GatherOptions", Axis=axis)


def packed(net: Net, axis: int) -> int:
    parts = [net.reshape(mapped(net), (64, 8)), net.reshape(net.conv(net.input, 8), (64, 8))]
    rank = 3
    if not -rank <= axis < rank:
        axis = -1
    shape = [64, 8]
    shape.insert(axis % rank, 2)
    return net.op("PACK", parts, shape, "PackOptions", ValuesCount=2, Axis=axis)


def unpacked(net: Net, axis: int) -> int:
    x = mapped(net)
    shape = list(net.shape(x))
    count = shape.pop(axis % 4)
    outs = [net.tensor(shape) for _ in range(count)]
    net.ops.append(("UNPACK", [x], outs, "UnpackOptions", {"Num": count, "Axis": axis}, 1))
    return outs[-1]


def cuts() -> Iterator[tuple[str, Build]]:
    for begin, end, strides, fields in (
        ((0, 1, 2, 0), (1, 7, 8, 8), (1, 1, 1, 1), {}),
        ((0, 0, 0, 0), (1, 8, 8, 8), (1, 2, 2, 1), {}),
        ((0, 1, 0, 0), (1, 8, 8, 8), (1, 2, 3, 1), {}),
        ((0, 0, 0, 2), (1, 8, 8, 6), (1, 1, 1, 1), {}),
        ((0, 0, 0, 1), (1, 8, 8, 8), (1, 1, 1, 2), {}),
        ((0, -3, -8, 0), (1, -1, 8, -2), (1, 1, 1, 1), {}),
        ((0, 3, 3, 3), (1, 4, 6, 6), (1, 1, 1, 1), {"BeginMask": 0b0010}),
        ((0, 3, 3, 3), (1, 4, 6, 6), (1, 1, 1, 1), {"BeginMask": 0b1100}),
        ((0, 1, 3, 3), (1, 4, 6, 6), (1, 1, 1, 1), {"EndMask": 0b0100}),
        ((0, 1, 3, 3), (1, 4, 6, 6), (1, 1, 1, 1), {"EndMask": 0b1010}),
        ((0, 2, 3, 3), (1, 3, 6, 6), (1, 1, 1, 1), {"ShrinkAxisMask": 0b0010}),
        ((0, 2, -1, 3), (1, 3, 0, 6), (1, 1, 1, 1), {"ShrinkAxisMask": 0b0100}),
        ((0, 2, 3, 5), (1, 3, 6, 6), (1, 1, 1, 1), {"ShrinkAxisMask": 0b1010}),
        ((0, 6, 0, 0), (1, 2, 8, 8), (1, -1, 1, 1), {}),
        ((0, 1, 0, 0), (1, 5, 8, 8), (1, 1, 1, 1), {"Offset": True}),
        ((0, 1, 0, 0), (1, 5, 8, 8), (1, 1, 1, 1), {"NewAxisMask": 0b0001}),
        ((0, 1, 0, 0), (1, 5, 8, 8), (1, 1, 1, 1), {"EllipsisMask": 0b0001}),
    ):
        named = "".join(f"-{k}{v:b}" for k, v in fields.items())
        yield (
            f"STRIDED_SLICE-{begin}-{end}-{strides}{named}",
            lambda n, b=begin, e=end, s=strides, f=fields: strided(n, b, e, s, f),
        )
    for begin, size in (
        ((0, 1, 2, 0), (1, 3, 4, 8)),
        ((0, 0, 0, 3), (1, 8, 8, 5)),
        ((0, 2, 0, 1), (1, -1, -1, -1)),
    ):
        yield f"SLICE-{begin}-{size}", lambda n, b=begin, s=size: sliced(n, b, s)
    for pads in itertools.product((0, 1, 2), repeat=2):
        top, left = pads
        yield (
            f"PAD-{top}-{left}",
            lambda n, t=top, le=left: n.pad(mapped(n), [(0, 0), (t, le), (le, 2 - t), (0, 0)]),
        )
        yield (
            f"PAD-{top}-{left}-conv",
            lambda n, t=top, le=left: n.conv(
                n.pad(mapped(n), [(0, 0), (t, le), (le, 2 - t), (0, 0)]), 4, padding="VALID"
            ),
        )
    yield "PAD-channels", lambda n: n.pad(mapped(n), [(0, 0), (0, 0), (0, 0), (1, 2)])
    yield "PAD-rank3", lambda n: n.pad(n.reshape(mapped(n), (1, 64, 8)), [(0, 0), (2, 1), (0, 0)])
    for value in (-3.0, 0.0, 2.5):
        yield f"PADV2-{value}", lambda n, v=value: filled(n, v)
    for mode, before in itertools.product((0, 1), (1, 2)):
        yield f"MIRROR_PAD-{mode}-{before}", lambda n, m=mode, b=before: mirrored(n, m, b)
    for kind, size, align, half in itertools.product(
        ("NEAREST_NEIGHBOR", "BILINEAR"), ((16, 16), (12, 20), (4, 4), (5, 11)),
        (False, True), (False, True),
    ):  # fmt: skip
        yield (
            f"RESIZE_{kind}-{size}-align{align}-half{half}",
            lambda n, k=kind, s=size, a=align, h=half: n.resize(mapped(n), s, k, a, h),
        )
    for block in (2, 4):
        yield (
            f"SPACE_TO_DEPTH-{block}",
            lambda n, b=block: n.op(
                "SPACE_TO_DEPTH", [mapped(n)], (1, 8 // b, 8 // b, 8 * b * b),
                "SpaceToDepthOptions", BlockSize=b,
            ),
        )  # fmt: skip
        yield (
            f"DEPTH_TO_SPACE-{block}",
            lambda n, b=block: n.op(
                "DEPTH_TO_SPACE", [mapped(n, 32)], (1, 8 * b, 8 * b, 32 // b // b),
                "DepthToSpaceOptions", BlockSize=b,
            ),
        )  # fmt: skip
    for times in ((1, 2, 1, 1), (1, 1, 3, 1), (1, 1, 1, 2), (1, 2, 2, 2)):
        yield f"TILE-{times}", lambda n, t=times: tiled(n, t)


def strided(net: Net, begin: Any, end: Any, strides: Any, fields: dict[str, Any]) -> int:
    x = mapped(net)
    spans = []
    for i, (b, e, s) in enumerate(zip(begin, end, strides, strict=True)):
        if fields.get("ShrinkAxisMask", 0) >> i & 1:
            spans.append(b)
            continue
        first = None if fields.get("BeginMask", 0) >> i & 1 else b
        last = None if fields.get("EndMask", 0) >> i & 1 else e
        spans.append(slice(first, last, s))
    shape = np.empty(net.shape(x), np.int8)[tuple(spans)].shape
    consts = [ints(net, *v) for v in (begin, end, strides)]
    return net.op("STRIDED_SLICE", [x, *consts], shape, "StridedSliceOptions", **fields)


def sliced(net: Net, begin: Any, size: Any) -> int:
    x = mapped(net)
    spans = zip(net.shape(x), begin, size, strict=True)
    shape = [n - b if s < 0 else s for n, b, s in spans]
    return net.op("SLICE", [x, ints(net, *begin), ints(net, *size)], shape, "SliceOptions")


def filled(net: Net, value: float) -> int:
    x = mapped(net)
    pads = net.const(np.array([(0, 0), (1, 2), (2, 1), (0, 0)], np.int32))
    fill = net.const(np.float32(value))
    return net.op("PADV2", [x, pads, fill], (1, 11, 11, 8), "PadV2Options")


def mirrored(net: Net, mode: int, before: int) -> int:
    pads = net.const(np.array([(0, 0), (before, 1), (2, before), (0, 0)], np.int32))
    shape = (1, 9 + before, 10 + before, 8)
    return net.op("MIRROR_PAD", [mapped(net), pads], shape, "MirrorPadOptions", Mode=mode)


def tiled(net: Net, times: Any) -> int:
    shape = [n * t for n, t in zip((1, 8, 8, 8), times, strict=True)]
    return net.op("TILE", [mapped(net), ints(net, *times)], shape, "TileOptions")


def values() -> Iterator[tuple[str, Build]]:
    for alpha in (-0.5, 0.01, 0.3, 1.5):
        yield (
            f"LEAKY_RELU-{alpha}",
            lambda n, a=alpha: n.unary("LEAKY_RELU", mapped(n), "LeakyReluOptions", Alpha=a),
        )
        yield (
            f"LEAKY_RELU-{alpha}-vector",
            lambda n, a=alpha: n.unary("LEAKY_RELU", vector(n), "LeakyReluOptions", Alpha=a),
        )
    for approximate in (False, True):
        yield (
            f"GELU-{approximate}",
            lambda n, a=approximate: n.unary("GELU", mapped(n), "GeluOptions", Approximate=a),
        )
    for name in (
        "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ELU", "HARD_SWISH", "LOGISTIC", "TANH",
        "ABS", "NEG", "SQUARE", "COS", "SIN", "FLOOR", "CEIL", "ROUND",
    ):  # fmt: skip
        yield f"{name}-map", lambda n, o=name: n.unary(o, mapped(n))
        yield f"{name}-vector", lambda n, o=name: n.unary(o, vector(n))
    for exponent in (-1.0, -0.5, 0.5, 1.0, 2.0, 3.0):
        yield (
            f"POW-{exponent}",
            lambda n, e=exponent: n.op(
                "POW", [positive(n), n.const(np.float32(e))], (1, 8, 8, 8), "PowOptions"
            ),
        )
    for op in ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"):
        for side in (0, 1):
            for shape in ((), (8,), (1, 1, 1, 8), (8, 1), (8, 8, 1), (1, 8, 8, 8)):
                yield (
                    f"{op}-constant{shape}-at{side}",
                    lambda n, o=op, i=side, s=shape: with_constant(n, o, i, s),
                )
        for shape in ((1, 1, 1, 8), (1, 8, 8, 1)):
            for side in (0, 1):
                yield (
                    f"{op}-computed{shape}-at{side}",
                    lambda n, o=op, i=side, s=shape: with_computed(n, o, i, s),
                )
    for shape in ((8,), (1, 1, 8), (8, 1, 1), (8, 8, 8)):
        yield f"PRELU-{shape}", lambda n, s=shape: prelu(n, s)
    for count in (2, 3):
        yield (
            f"ADD_N-{count}",
            lambda n, c=count: n.op(
                "ADD_N", [mapped(n) for _ in range(c)], (1, 8, 8, 8), "AddNOptions"
            ),
        )


def with_constant(net: Net, op: str, side: int, shape: Any) -> int:
    value = net.rng.uniform(0.5, 2.0, shape).astype(np.float32)
    x = positive(net) if op == "DIV" and side == 0 else mapped(net)
    pair = [net.const(value), x] if side == 0 else [x, net.const(value)]
    return net.binary(op, *pair)


def with_computed(net: Net, op: str, side: int, shape: Any) -> int:
    x = mapped(net)
    y = positive(net)
    small = net.reduce("MEAN", y, [1, 2] if shape[-1] == 8 else [3], True)
    if op == "DIV" and side == 0:
        x = positive(net)
    pair = [small, x] if side == 0 else [x, small]
    return net.binary(op, *pair)


def prelu(net: Net, shape: Any) -> int:
    slopes = net.rng.uniform(-0.3, 0.8, shape).astype(np.float32)
    return net.op("PRELU", [mapped(net), net.const(slopes)], (1, 8, 8, 8))


CASES: dict[str, Build] = dict(itertools.chain(convs(), pools(), axes(), cuts(), values()))

#: steps: half a step of the input is a whole one of the output, here and there
ROUGH = ("FLOOR", "CEIL", "ROUND", "L2_NORMALIZATION-channel")

#: what is refused for both versions, and the words that say what is in the way
REFUSED = {
    "BATCH_MATMUL-adj_x": "BATCH_MATMUL #2: the first factor is transposed",
    "FULLY_CONNECTED-shuffled": "they are SHUFFLED4x16INT8",
    "L2_NORMALIZATION-RELU": "it is RELU",
    "STRIDED_SLICE-(0, 6, 0, 0)-(1, 2, 8, 8)-(1, -1, 1, 1)": "strides are [1, -1, 1, 1]",
    "STRIDED_SLICE-(0, 1, 0, 0)-(1, 5, 8, 8)-(1, 1, 1, 1)-Offset1": "counted from its beginnings",
    "STRIDED_SLICE-(0, 1, 0, 0)-(1, 5, 8, 8)-(1, 1, 1, 1)-NewAxisMask1": "adds an axis",
    "STRIDED_SLICE-(0, 1, 0, 0)-(1, 5, 8, 8)-(1, 1, 1, 1)-EllipsisMask1": "adds an axis",
    **{
        f"RESIZE_BILINEAR-{size}-alignTrue-halfTrue": "both are set"
        for size in ((16, 16), (12, 20), (4, 4), (5, 11))
    },
    "POW-3.0": "it is 3",
}

#: the same for kmodel 4 alone
REFUSED_BY_4 = {"ROUND-vector": "ROUND #2: round of values that no KPU layer computes"}


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", [n for n in CASES if n not in REFUSED])
def test_an_attribute_means_what_it_means_to_litert(name: str, kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    model = net.build(CASES[name](net))
    if kmodel == 4 and name in REFUSED_BY_4:
        with pytest.raises(CompileError) as caught:
            same_after_legalise(model, kmodel)
        assert REFUSED_BY_4[name] in str(caught.value)
        return
    try:
        same_after_legalise(model, kmodel)
    except NeedsKmodel4:  # and there it is right
        if kmodel == 3:
            return
        raise
    outcome = Outcome(model, kmodel)
    wanted = np.stack([r[0] for r in outcome.reference]).astype(np.float64)
    got = np.stack([g[0] for g in outcome.got])
    noise = float(np.square(wanted - got).sum())
    signal = float(np.square(wanted - wanted.mean(0)).sum())
    least = 0.0 if name.startswith(ROUGH) else LEAST
    assert noise < 1e-8 or signal > noise * 10 ** (least / 10), outcome.compiled.listing


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", REFUSED)
def test_an_attribute_that_cannot_be_had_is_refused_by_name(name: str, kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    with pytest.raises(CompileError) as caught:
        lowered(net.build(CASES[name](net)), kmodel)
    assert REFUSED[name] in str(caught.value)
    assert f"{net.ops[-1][0]} #" in str(caught.value)


#: fields of the options that say nothing: what they say follows from shapes or types, or
#: speaks of how LiteRT computes
IDLE = {
    "AddOptions.PotScaleInt16", "SubOptions.PotScaleInt16",  # of int16, which is refused
    "BatchMatMulOptions.AsymmetricQuantizeInputs", "FullyConnectedOptions.AsymmetricQuantizeInputs",
    "Conv2DOptions.QuantizedBiasType", "FullyConnectedOptions.QuantizedBiasType",
    "TransposeConvOptions.QuantizedBiasType",
    "DepthwiseConv2DOptions.DepthMultiplier",
    "PackOptions.ValuesCount", "UnpackOptions.Num", "ReducerOptions.KeepDims",
    "ReshapeOptions.NewShape", "SqueezeOptions.SqueezeDims", "SplitOptions.NumSplits",
    "SplitVOptions.NumSplits",
}  # fmt: skip

#: op -> the table of its options, where that is not its name in capitals and lower case
TABLES = {
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions",
    "L2_NORMALIZATION": "L2NormOptions", "MEAN": "ReducerOptions", "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions", "REDUCE_MIN": "ReducerOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
}  # fmt: skip


class Seen:
    """Options that note which of their fields are asked for."""

    def __init__(self) -> None:
        self.fields: set[str] = set()

    def __getattr__(self, name: str) -> Callable[[], int]:
        self.fields.add(name)
        return lambda: 0


@pytest.mark.parametrize("op", RULES)
def test_every_field_of_an_ops_options_is_read_or_said_to_be_idle(op: str) -> None:
    words = "".join(word.capitalize() for word in op.split("_"))
    table = TABLES.get(op, f"{words}Options")
    fields = {
        name
        for name in vars(getattr(tflite, table, object))
        if name[0].isupper() and not name.startswith(("GetRootAs", "Init"))
        and not name.endswith(("AsNumpy", "Length", "IsNone", "BufferHasIdentifier"))
    }  # fmt: skip
    seen = Seen()
    if op in _OPTIONS:
        name, read = _OPTIONS[op]
        assert name == table
        read(seen)
    assert fields - seen.fields <= {f.split(".")[1] for f in IDLE if f.startswith(f"{table}.")}
