"""Convolutions, pools, and blocks of pixels as channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building, fits
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.pieces import blocks_to_channels
from k210tasks.compiler.shape_laws import MOST_SPAN

Pair = tuple[int, int]


def _pair(node: Node, name: str, rank: int, default: int) -> Pair:
    """A setting of the axes of a map: rows and columns, those of a row being 1."""
    values = node.wholes(name)
    if values is None:
        values = [default] * rank
    if len(values) != rank:
        raise node.unsupported(f"{name} is {values}, for a map of {rank} dimensions")
    if min(values) < 1 or max(values) > MOST_SPAN:
        raise node.unsupported(f"{name} is {values}, from 1 to {MOST_SPAN} is possible")
    return (values[-2] if rank == 2 else 1, values[-1])


def is_row(r: Building, node: Node, i: int = 0) -> bool:
    return len(r.shape(node.input(i))) == 3


def _span(node: Node, kernel: Pair, dilation: Pair) -> Pair:
    """Pixels from the first to the last of a window."""
    y, x = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if max(y, x) > MOST_SPAN:
        raise node.unsupported(
            f"its window of {list(kernel)} with dilations {list(dilation)} spans {max(y, x)} "
            f"pixels, {MOST_SPAN} is the most"
        )
    return y, x


def _pads(node: Node, size: Sequence[int], span: Pair, stride: Pair, rank: int) -> ops.Pads:
    """Top, bottom, left and right."""
    auto = node.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found: list[int] = []
        for n, k, s in zip(size, span, stride, strict=True):
            total = max(0, (math.ceil(n / s) - 1) * s + k - n)
            less, more = total // 2, total - total // 2
            found += [less, more] if auto == "SAME_UPPER" else [more, less]
        return (found[0], found[1], found[2], found[3])
    if auto not in ("NOTSET", "VALID", ""):
        raise node.unsupported(f"auto_pad is {auto!r}")
    pads = node.wholes("pads")
    if pads is None or auto == "VALID":
        return (0, 0, 0, 0)
    if len(pads) != 2 * rank:
        raise node.unsupported(f"pads is {pads}, for a map of {rank} dimensions")
    if min(pads) < 0 or max(pads) > MOST_SPAN:
        raise node.unsupported(f"pads is {pads}, from 0 to {MOST_SPAN} is possible")
    if rank == 1:
        return (0, 0, pads[0], pads[1])
    return (pads[0], pads[2], pads[1], pads[3])


def _kernel(r: Building, node: Node, rank: int) -> NDArray[np.float32]:
    """Weights of four dimensions."""
    weights = r.floats(node, 1, "the kernel")
    if weights.ndim != rank + 2:
        raise node.unsupported(
            f"the kernel has shape {list(weights.shape)}, for a map of {rank} dimensions"
        )
    given = node.wholes("kernel_shape")
    if given is not None and given != list(weights.shape[2:]):
        raise node.unsupported(f"kernel_shape is {given}, the kernel {list(weights.shape)}")
    return weights if rank == 2 else weights[:, :, None]


def _bias(r: Building, node: Node, count: int) -> NDArray[np.float32]:
    if not node.input(2):
        return np.zeros(count, np.float32)
    bias = r.floats(node, 2, "the bias")
    if bias.size != count:
        raise node.unsupported(
            f"bias {node.input(2)!r} has {bias.size} values for {count} channels"
        )
    return bias.reshape(count)


def conv(r: Building, node: Node) -> None:
    x, rank = r.map(node), 1 if is_row(r, node) else 2
    weights = _kernel(r, node, rank)
    convolved(r, node, x, weights, _bias(r, node, len(weights)))


def convolved(
    r: Building, node: Node, x: Tensor, weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> Tensor:
    """The settings of a Conv, around weights and bias in reals."""
    rank = 1 if is_row(r, node) else 2
    groups = node.whole("group", 1)
    if groups < 1 or weights.shape[1] * groups != x.shape[1] or len(weights) % groups:
        raise node.unsupported(
            f"group is {groups}, for {x.shape[1]} channels and a kernel of {list(weights.shape)}"
        )
    stride, dilation = _pair(node, "strides", rank, 1), _pair(node, "dilations", rank, 1)
    span = _span(node, (weights.shape[2], weights.shape[3]), dilation)
    pads = _pads(node, x.shape[2:], span, stride, rank)
    made = ops.Conv(
        [x],
        weights=np.ascontiguousarray(weights),
        bias=bias,
        groups=groups,
        stride=stride,
        dilation=dilation,
        pads=pads,
    )
    size = _windows(node, x.shape[2:], span, stride, pads)
    r.put(node, made, fits(node, (1, len(weights), *size)), row=rank == 1)
    return made.output


def _windows(
    node: Node, size: Sequence[int], span: Pair, stride: Pair, pads: ops.Pads
) -> list[int]:
    """How many windows there are on a padded map."""
    whole = (size[0] + pads[0] + pads[1], size[1] + pads[2] + pads[3])
    found = [(n - k) // s + 1 for n, k, s in zip(whole, span, stride, strict=True)]
    if min(found) < 1:
        raise node.unsupported(f"a window of {list(span)} is larger than the map of {list(whole)}")
    return found


def deconv(r: Building, node: Node) -> None:
    x, rank = r.map(node), 1 if is_row(r, node) else 2
    weights = _kernel(r, node, rank)  # (C, O / groups, h, w)
    groups = node.whole("group", 1)
    if groups < 1 or len(weights) != x.shape[1] or x.shape[1] % groups:
        raise node.unsupported(
            f"group is {groups}, for {x.shape[1]} channels and a kernel of {list(weights.shape)}"
        )
    per, inner = weights.shape[1], x.shape[1] // groups
    stride, dilation = _pair(node, "strides", rank, 1), _pair(node, "dilations", rank, 1)
    span = _span(node, (weights.shape[2], weights.shape[3]), dilation)
    fits(node, (per * groups, x.shape[1], *span))
    whole = np.zeros((per * groups, x.shape[1], *span), np.float32)
    for g in range(groups):
        outs, ins = slice(g * per, (g + 1) * per), slice(g * inner, (g + 1) * inner)
        whole[outs, ins, :: dilation[0], :: dilation[1]] = weights[ins].transpose(1, 0, 2, 3)
    pads = _cut(node, x, span, stride, rank)
    size = [
        (n - 1) * s + k - less
        for n, s, k, less in zip(
            x.shape[2:], stride, span, (pads[0] + pads[1], pads[2] + pads[3]), strict=True
        )
    ]
    made = ops.Deconv([x], weights=whole, bias=_bias(r, node, len(whole)), stride=stride, pads=pads)
    r.put(node, made, fits(node, (1, len(whole), *size)), row=rank == 1)


def _cut(node: Node, x: Tensor, span: Pair, stride: Pair, rank: int) -> ops.Pads:
    """What is cut off a transposed convolution: top, bottom, left and right."""
    more = node.wholes("output_padding") or [0] * rank
    shape = node.wholes("output_shape")
    whole = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], stride, span, strict=True)]
    auto = node.text("auto_pad", "NOTSET")
    if shape is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        if shape is None:
            wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        else:
            wanted = [1] * (2 - rank) + shape[-rank:]
        cut: list[int] = []
        for n, out in zip(whole, wanted, strict=True):
            less, rest = (n - out) // 2, n - out - (n - out) // 2
            cut += [less, rest] if auto == "SAME_UPPER" else [rest, less]
        pads = (cut[0], cut[1], cut[2], cut[3])
    else:
        t, b, left, right = _pads(node, x.shape[2:], span, stride, rank)
        if len(more) != rank:
            raise node.unsupported(f"output_padding is {more}, for a map of {rank} dimensions")
        pads = (t, b - (more[-2] if rank == 2 else 0), left, right - more[-1])
    if min(pads) < 0:
        raise node.unsupported(
            f"output_padding is {more}: more than what its pads cut off", "use a smaller one"
        )
    return pads


def pool(r: Building, node: Node) -> None:
    x, rank = r.map(node), 1 if is_row(r, node) else 2
    how: ops.Pooling = "max" if node.op == "MaxPool" else "mean"
    kernel, stride = _pair(node, "kernel_shape", rank, 0), _pair(node, "strides", rank, 1)
    if max(_pair(node, "dilations", rank, 1)) > 1:
        raise node.unsupported(f"dilations is {node.wholes('dilations')}", "pool without dilation")
    pads = _pads(node, x.shape[2:], kernel, stride, rank)
    given = pads
    if node.whole("ceil_mode", 0):
        pads = _up(x.shape[2:], kernel, stride, pads)
    if how == "mean" and any(given) and node.whole("count_include_pad", 0):
        edges = ((0, 0), (0, 0), (given[0], given[1]), (given[2], given[3]))
        shape = tuple(n + a + b for n, (a, b) in zip(x.shape, edges, strict=True))
        x = r.emit(ops.Pad([x], pads=edges), shape)
        pads = (0, pads[1] - given[1], 0, pads[3] - given[3])
    if min(pads) < 0:  # the last window would start behind the map: without what it alone reads
        size = tuple(n + min(p, 0) for n, p in zip(x.shape[2:], pads[1::2], strict=True))
        cut = ops.Slice([x], begin=(0,) * 4, strides=(1,) * 4)
        x = r.emit(cut, (*x.shape[:2], *size))
        pads = (pads[0], max(pads[1], 0), pads[2], max(pads[3], 0))
    if any(p >= k for p, k in zip(pads, (kernel[0],) * 2 + (kernel[1],) * 2, strict=True)):
        raise node.unsupported(
            f"pads is {node.wholes('pads')}: a window of {list(kernel)} is empty"
        )
    count = _windows(node, x.shape[2:], kernel, stride, pads)
    made = ops.Pool([x], how=how, kernel=kernel, stride=stride, pads=pads)
    r.put(node, made, (*x.shape[:2], *count), row=rank == 1)


def _up(size: Sequence[int], kernel: Pair, stride: Pair, pads: ops.Pads) -> ops.Pads:
    """Pads at the far ends that make room for a last window that sticks out, if it starts on the
    map or before it."""
    far = []
    for n, k, s, before, after in zip(size, kernel, stride, pads[::2], pads[1::2], strict=True):
        count = math.ceil((n + before + after - k) / s) + 1
        if (count - 1) * s >= n + before:
            count -= 1
        far.append((count - 1) * s + k - n - before)
    return (pads[0], far[0], pads[2], far[1])


def whole_map(r: Building, node: Node) -> None:
    x = r.map(node)
    how: ops.Reduction = "max" if node.op == "GlobalMaxPool" else "mean"
    made = ops.Reduce([x], how=how, axes=(2, 3))
    r.put(node, made, (*x.shape[:2], 1, 1), row=is_row(r, node))


def depth_to_space(r: Building, node: Node) -> None:
    x, block = r.map(node), node.whole("blocksize", 0)
    if block < 1 or x.shape[1] % block**2:
        raise node.unsupported(f"blocksize is {block}, for {x.shape[1]} channels")
    mode = node.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise node.unsupported(f"mode is {mode!r}")
    _, c, h, w = x.shape
    c //= block**2
    shape = (block, block, c, h, w) if mode == "DCR" else (c, block, block, h, w)
    y = r.emit(ops.Reshape([x]), shape)
    y = r.turned(y, (2, 3, 0, 4, 1) if mode == "DCR" else (0, 3, 1, 4, 2))
    r.put(node, ops.Reshape([y]), (1, c, h * block, w * block))


def space_to_depth(r: Building, node: Node) -> None:
    x, block = r.map(node), node.whole("blocksize", 0)
    if block < 1 or any(n % block for n in x.shape[2:]) or x.shape[1] ** 2 * block**4 > 1 << 22:
        raise node.unsupported(f"blocksize is {block}, for a map of {list(x.shape)}")
    h, w = (n // block for n in x.shape[2:])
    r.put(node, blocks_to_channels(x, block), (1, x.shape[1] * block**2, h, w))


HANDLERS = {
    "Conv": conv,
    "ConvTranspose": deconv,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": whole_map,
    "GlobalMaxPool": whole_map,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
