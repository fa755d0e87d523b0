"""The float nodes of kmodel version 4, prepared for running (docs, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import nnil
from k210tasks.kmodel import v4_ops as n
from k210tasks.kmodel.codec import Pad, Range
from k210tasks.kmodel.shapes import window_out
from k210tasks.simulator.arrays import Axis, convolve, counts, taps
from k210tasks.simulator.float_sums import CHAIN_WORK, from_float64, multiply_add, sum_last
from k210tasks.simulator.memory import STEP_WORK, Site, elements, shaped
from k210tasks.simulator.step import Step, writes

FLOAT = "<f4"
#: What one small matrix product inside a grouped convolution costs, in multiply-accumulates.
GROUP_WORK = 30_000
#: Elements an nnil program works on at a time.
NNIL_BLOCK = 16384

_ONE = np.float32(1)

UNARY: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "exp": np.exp,
    "floor": np.floor,
    "log": np.log,
    "neg": np.negative,
    "rsqrt": lambda x: _ONE / np.sqrt(x),
    "sin": np.sin,
    "square": np.square,
}
BINARY: dict[n.BinaryOp, Callable[[Any, Any], Any]] = {
    n.BinaryOp.ADD: np.add,
    n.BinaryOp.SUB: np.subtract,
    n.BinaryOp.MUL: np.multiply,
    n.BinaryOp.DIV: np.divide,
    n.BinaryOp.MIN: np.minimum,
    n.BinaryOp.MAX: np.maximum,
}
REDUCE: dict[n.ReduceOp, Any] = {
    n.ReduceOp.MEAN: np.add,
    n.ReduceOp.SUM: np.add,
    n.ReduceOp.MIN: np.minimum,
    n.ReduceOp.MAX: np.maximum,
}


def clip(values: NDArray[Any], act: Range) -> NDArray[Any]:
    """Values limited to the fused activation's range; NaN stays."""
    return np.minimum(np.maximum(values, np.float32(act.low)), np.float32(act.high))


def enum_of(site: Site, kind: Any, value: int, field: str) -> Any:
    """``value`` as a member of ``kind``; an error naming the field otherwise."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"{m.value} {m.name.lower()}" for m in kind)
        raise site.fail(field, f"{value}; known are {known}") from None


def window(site: Site, node: Any, height: int, width: int, outer: int) -> tuple[Axis, Axis]:
    """The axes of a sliding window over height and width; ``outer`` counts outputs a pixel."""
    axes = []
    for name, size in (("h", height), ("w", width)):
        pad: Pad = getattr(node, f"pad_{name}")
        taps_, stride, dilation = (
            getattr(node, f"{what}_{name}") for what in ("filter", "stride", "dilation")
        )
        for what, value in (("filter", taps_), ("stride", stride), ("dilation", dilation)):
            site.require(value > 0, f"{what}_{name}", f"{value}; must be positive")
        out = window_out(size, pad.before, pad.after, taps_, stride, dilation)
        site.require(out > 0, f"pad_{name}, filter_{name}", f"leave {out} outputs of {size}")
        axes.append(Axis(size, pad.before, taps_, stride, dilation, out))
    h, w = axes
    elements(site, "output", (outer, h.out, w.out))
    site.spend(h.filter * w.filter * (10 * h.out * w.out * outer + STEP_WORK))
    return h, w


def binary(site: Site, node: n.Binary) -> Step:
    op = BINARY[enum_of(site, n.BinaryOp, node.op, "op")]
    x = shaped(site, "shape_a", site.range("a", node.a, FLOAT), node.shape_a)
    y = shaped(site, "shape_b", site.range("b", node.b, FLOAT), node.shape_b)
    out = shaped(site, "shape_out", site.output("out", node.out, FLOAT), node.shape_out)
    broadcast(site, node)
    site.spend(0, out.size)
    return writes(out, lambda: np.copyto(out, clip(op(x, y), node.act)))


def broadcast(site: Site, node: Any) -> None:
    """Check that the shapes of a binary node fit together."""
    for a, b, out in zip(node.shape_a, node.shape_b, node.shape_out, strict=True):
        site.require(
            out == max(a, b) and min(a, b) in (1, out),
            "shape_out",
            f"{tuple(node.shape_out)} from {tuple(node.shape_a)} and {tuple(node.shape_b)}",
        )


def conv2d(site: Site, node: n.Conv2d) -> Step:
    groups, oc = conv_groups(site, node.groups, node.out_channels, node.shape.c)
    x = shaped(site, "shape", site.range("input", node.input, FLOAT), node.shape)
    h, w = window(site, node, node.shape.h, node.shape.w, node.shape.n * oc)
    ordered = site.runtime.ordered
    macs = node.weights.size * node.shape.n * h.out * w.out
    site.spend(macs * (CHAIN_WORK if ordered else 1))
    inner = node.shape.c // groups if ordered else 1
    site.spend(h.filter * w.filter * node.shape.n * groups * inner * GROUP_WORK)
    out = shaped(
        site, "output", site.output("out", node.out, FLOAT), (node.shape.n, oc, h.out, w.out)
    )
    bias = node.bias[:, None, None]
    affine = multiply_add(site.runtime)

    def run() -> None:
        out[:] = clip(convolve(x, node.weights, groups, h, w) + bias, node.act)

    def in_order() -> None:
        """From the bias on, channel after channel, tap after tap."""
        total = np.broadcast_to(bias, out.shape).reshape(len(x), groups, -1, h.out, w.out).copy()
        kernels = node.weights.reshape(groups, -1, *node.weights.shape[1:])[..., None, None]
        grouped = x.reshape(len(x), groups, -1, 1, h.size, w.size)
        for channel in range(grouped.shape[2]):
            for ky, kx, (oy, ox), (iy, ix) in taps(h, w):
                total[..., oy, ox] = affine(
                    grouped[:, :, channel, :, iy, ix],
                    kernels[:, :, channel, ky, kx],
                    total[..., oy, ox],
                )
        out[:] = clip(total.reshape(out.shape), node.act)

    return writes(out, in_order if ordered else run)


def conv_groups(site: Site, groups: int, out_channels: int, in_channels: int) -> tuple[int, int]:
    """Checked (groups, output channels) of a convolution."""
    site.require(out_channels > 0, "out_channels", f"{out_channels}; must be positive")
    site.require(
        groups > 0 and in_channels > 0 and in_channels % groups == 0 and out_channels % groups == 0,
        "groups",
        f"{groups} do not divide {in_channels} and {out_channels} channels",
    )
    return groups, out_channels


def conv2d_transpose(site: Site, node: n.Conv2dTranspose) -> Step:
    """Scattered from zero; the bias is never added, as upstream's runtime does it."""
    oc, groups = node.shape_out.c, node.groups
    conv_groups(site, groups, oc, node.shape.c)
    inner = node.shape.c // groups
    x = shaped(site, "shape", site.range("input", node.input, FLOAT), node.shape)
    out = shaped(site, "shape_out", site.output("out", node.out, FLOAT), node.shape_out)
    site.require(node.shape.n == node.shape_out.n, "shape_out", "another batch than the input")
    # The window slides over the output; each of its positions is one input pixel.
    axes = []
    for name, size, count in (
        ("h", node.shape_out.h, node.shape.h),
        ("w", node.shape_out.w, node.shape.w),
    ):
        pad: Pad = getattr(node, f"pad_{name}")
        values = [getattr(node, f"{what}_{name}") for what in ("filter", "stride", "dilation")]
        for what, value in zip(("filter", "stride", "dilation"), values, strict=True):
            site.require(value > 0, f"{what}_{name}", f"{value}; must be positive")
        axes.append(Axis(size, pad.before, values[0], values[1], values[2], count))
    h, w = axes
    ordered = site.runtime.ordered
    each = oc // groups * (CHAIN_WORK if ordered else 1)
    site.spend(h.filter * w.filter * (x.size * each + 10 * out.size + STEP_WORK))
    site.spend(h.filter * w.filter * node.shape.n * (inner if ordered else groups) * GROUP_WORK)
    batch = node.shape.n
    kernels = node.weights.reshape(groups, oc // groups, inner, h.filter, w.filter)
    grouped = x.reshape(batch, groups, inner, h.out, w.out)

    affine = multiply_add(site.runtime)

    def in_order() -> None:
        """Every output gathers channel after channel, pixel after pixel of the input."""
        total = np.zeros((batch, groups, oc // groups, h.size, w.size), np.float32)
        for channel in range(inner):
            for ky, kx, (sy, sx), (ty, tx) in reversed(list(taps(h, w))):
                total[..., ty, tx] = affine(
                    grouped[:, :, channel, None, sy, sx],
                    kernels[:, :, channel, ky, kx, None, None],
                    total[..., ty, tx],
                )
        out[:] = clip(total.reshape(out.shape), node.act)

    def run() -> None:
        total = np.zeros((batch, groups, oc // groups, h.size, w.size), np.float32)
        for ky, kx, (sy, sx), (ty, tx) in taps(h, w):
            part = grouped[:, :, :, sy, sx]
            rows, columns = part.shape[3:]
            product = np.matmul(kernels[:, :, :, ky, kx], part.reshape(batch, groups, inner, -1))
            total[:, :, :, ty, tx] += product.reshape(batch, groups, -1, rows, columns)
        out[:] = clip(total.reshape(out.shape), node.act)

    return writes(out, in_order if ordered else run)


def matmul(site: Site, node: n.Matmul) -> Step:
    sizes = (node.a_rows, node.a_cols, node.b_cols)
    x = shaped(site, "a_rows, a_cols", site.range("a", node.a, FLOAT), sizes[:2])
    y = shaped(site, "a_cols, b_cols", site.range("b", node.b, FLOAT), sizes[1:])
    out = shaped(
        site, "a_rows, b_cols", site.output("out", node.out, FLOAT), (node.a_rows, node.b_cols)
    )
    ordered = site.runtime.ordered
    site.spend(int(np.prod(sizes, dtype=object)) * (CHAIN_WORK if ordered else 1), out.size)
    affine = multiply_add(site.runtime)

    def in_order() -> None:
        total = np.broadcast_to(node.bias, out.shape)
        for i in range(node.a_cols):
            total = affine(x[:, i, None], y[i], total)
        out[:] = clip(total, node.act)

    if ordered:
        return writes(out, in_order)
    return writes(out, lambda: np.copyto(out, clip(x @ y + node.bias, node.act)))


def reduce(site: Site, node: n.Reduce) -> Step:
    op = enum_of(site, n.ReduceOp, node.op, "op")
    x = shaped(site, "shape", site.range("input", node.input, FLOAT), node.shape)
    out = shaped(site, "shape_reduced", site.output("out", node.out, FLOAT), node.shape_reduced)
    for full, kept in zip(node.shape, node.shape_reduced, strict=True):
        site.require(
            kept in (1, full),
            "shape_reduced",
            f"{tuple(node.shape_reduced)} from {tuple(node.shape)}",
        )
    axes = tuple(i for i in range(4) if node.shape[i] != node.shape_reduced[i])
    site.spend(0, x.size)
    init, function = np.float32(node.init), REDUCE[op]
    share = np.float32(out.size) / np.float32(x.size) if op is n.ReduceOp.MEAN else None
    rows = x.transpose(*(i for i in range(4) if i not in axes), *axes)
    ordered = site.runtime.ordered and function is np.add

    def in_order() -> NDArray[np.float32]:
        """Sums from ``init`` on, value after value."""
        values = rows.reshape(out.size, -1)
        return sum_last(np.insert(values, 0, init, axis=1)).reshape(out.shape)

    def run() -> None:
        folded = (
            in_order() if ordered else function(function.reduce(x, axis=axes, keepdims=True), init)
        )
        out[:] = folded if share is None else folded * share

    return writes(out, run)


def reduce_window(site: Site, node: Any, height: int, width: int, outer: int) -> Any:
    """A function (outer, H, W) -> (outer, OH, OW) and its output size, for both layouts."""
    op = enum_of(site, n.ReduceOp, node.op, "op")
    h, w = window(site, node, height, width, outer)
    function, init = REDUCE[op], np.float32(node.init)
    number = counts(h, w).astype(np.float32) if op is n.ReduceOp.MEAN else None

    def apply(x: NDArray[np.float32]) -> NDArray[np.float32]:
        total = np.full((outer, h.out, w.out), init, np.float32)
        for _, _, (oy, ox), (iy, ix) in taps(h, w):
            total[:, oy, ox] = function(total[:, oy, ox], x[:, iy, ix])
        return clip(total if number is None else total / number, node.act)

    return apply, h.out, w.out


def reduce_window2d(site: Site, node: n.ReduceWindow2d) -> Step:
    outer = node.shape.n * node.shape.c
    x = shaped(site, "shape", site.range("input", node.input, FLOAT), node.shape)
    apply, oh, ow = reduce_window(site, node, node.shape.h, node.shape.w, outer)
    out = shaped(
        site, "output", site.output("out", node.out, FLOAT), (node.shape.n, node.shape.c, oh, ow)
    )
    planes = x.reshape(outer, node.shape.h, node.shape.w)
    return writes(out, lambda: np.copyto(out, apply(planes).reshape(out.shape)))


def softmax(site: Site, node: n.Softmax) -> Step:
    shape = (node.outer, node.inner)
    x = shaped(site, "inner, outer", site.range("input", node.input, FLOAT), shape)
    out = shaped(site, "inner, outer", site.output("out", node.out, FLOAT), shape)
    site.spend(0, 2 * x.size)
    beta = np.float32(node.beta)

    def run() -> None:
        e = np.exp((x - x.max(1, keepdims=True)) * beta)
        out[:] = e / e.sum(1, keepdims=True)

    def in_order() -> None:
        e = from_float64(np.exp, (x - x.max(1, keepdims=True)) * beta)
        out[:] = e / sum_last(e)[:, None]

    return writes(out, in_order if site.runtime.ordered else run)


def unary(site: Site, node: n.Unary) -> Step:
    function = UNARY[enum_of(site, n.UnaryOp, node.op, "op").name.lower()]
    x = site.range("input", node.input, FLOAT)
    out = site.output("out", node.out, FLOAT)
    site.require(x.size == out.size, "out.size", f"{4 * out.size} bytes from {4 * x.size}")
    site.spend(0, 2 * x.size)
    return writes(out, lambda: np.copyto(out, function(x)))


def nnil_unary(site: Site, node: n.NnilUnary) -> Step:
    x = site.range("input", node.input, FLOAT)
    out = site.output("out", node.out, FLOAT)
    site.require(x.size == out.size, "out.size", f"{4 * out.size} bytes from {4 * x.size}")
    code_at = None if node.offset is None else node.offset + 32
    program = nnil.decode(node.code, code_at, f"{site.what}: code")
    site.spend(len(program) * (STEP_WORK * (1 + x.size // NNIL_BLOCK)), len(program) * x.size)

    def run() -> None:
        for i in range(0, x.size, NNIL_BLOCK):
            out[i : i + NNIL_BLOCK] = run_nnil(program, x[i : i + NNIL_BLOCK].copy())

    return writes(out, run)


_NNIL_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    op.name.lower(): function for op, function in BINARY.items()
}


def run_nnil(program: list[nnil.Instruction], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A checked program on every element of ``x``."""
    stack: list[Any] = []
    for name, literal in program:
        if name in UNARY:
            stack.append(UNARY[name](stack.pop()))
        elif name in _NNIL_BINARY:
            b = stack.pop()
            stack.append(_NNIL_BINARY[name](stack.pop(), b))
        elif name == "clamp":
            high, low = stack.pop(), stack.pop()
            stack.append(np.minimum(np.maximum(stack.pop(), low), high))
        elif name == "push_x":
            stack.append(x)
        elif name in ("push", "push_0", "push_1"):
            stack.append(np.float32({"push": literal, "push_0": 0.0, "push_1": 1.0}[name]))
        elif name == "dup":
            stack.append(stack[-1])
        elif name == "pop":
            stack.pop()
        elif name == "ret":
            break
    return np.broadcast_to(stack.pop(), x.shape)
