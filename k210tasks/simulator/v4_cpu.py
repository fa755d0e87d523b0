"""The NHWC nodes of kmodel version 4's CPU target (docs, section 3.4, 0x1001 to 0x1005)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import v4_ops as n
from k210tasks.simulator.arrays import Axis, convolve
from k210tasks.simulator.memory import Site, shaped
from k210tasks.simulator.step import Step, writes
from k210tasks.simulator.v4_float import FLOAT, GROUP_WORK, clip, reduce_window, window
from k210tasks.simulator.v4_quantized import BYTE, requantised, shift_of


def _geometry(site: Site, node: Any, dtype: str, out_channels: int) -> tuple[Any, Any, Axis, Axis]:
    """Input (N, C, H, W) and output (N, H, W, C) views and the window's axes."""
    batch, height, width, channels = node.shape
    x = shaped(site, "shape", site.range("input", node.input, dtype), node.shape)
    site.require(out_channels > 0, "out_channels", f"{out_channels}; must be positive")
    h, w = window(site, node, height, width, batch * out_channels)
    site.spend(4 * node.weights.size * batch * h.out * w.out)
    site.spend(h.filter * w.filter * batch * channels * GROUP_WORK)
    out = shaped(
        site,
        "output",
        site.output("out", node.out, dtype),
        (batch, h.out, w.out, out_channels),
    )
    return x.transpose(0, 3, 1, 2), out, h, w


def _weights(node: Any) -> tuple[NDArray[Any], int]:
    """OIHW weights and the number of groups."""
    if isinstance(node, (n.CpuDepthwiseConv2d, n.CpuQuantizedDepthwiseConv2d)):
        return node.weights.transpose(2, 0, 1)[:, None], node.shape.w
    return node.weights.transpose(0, 3, 1, 2), 1


def conv2d(site: Site, node: n.CpuConv2d | n.CpuDepthwiseConv2d) -> Step:
    weights, groups = _weights(node)
    x, out, h, w = _geometry(site, node, FLOAT, len(weights))

    def run() -> None:
        y = convolve(np.ascontiguousarray(x), weights, groups, h, w).transpose(0, 2, 3, 1)
        out[:] = clip(y + node.bias, node.act)

    return writes(out, run)


def quantized_conv2d(
    site: Site, node: n.CpuQuantizedConv2d | n.CpuQuantizedDepthwiseConv2d
) -> Step:
    weights, groups = _weights(node)
    x, out, h, w = _geometry(site, node, BYTE, len(weights))
    shift = shift_of(site, node, "out_shift")
    shifted = weights.astype(np.float64) + node.filter_offset

    def run() -> None:
        acc = convolve(x.astype(np.float64) + node.in_offset, shifted, groups, h, w)
        total = acc.transpose(0, 2, 3, 1).astype(np.int64) + node.bias
        out[:] = requantised(total, node.out_mul, shift, node.out_offset)

    return writes(out, run)


def reduce_window2d(site: Site, node: n.CpuReduceWindow2d) -> Step:
    batch, height, width, channels = node.shape
    x = shaped(site, "shape", site.range("input", node.input, FLOAT), node.shape)
    apply, oh, ow = reduce_window(site, node, height, width, batch * channels)
    out = shaped(site, "output", site.output("out", node.out, FLOAT), (batch, oh, ow, channels))

    def run() -> None:
        planes = x.transpose(0, 3, 1, 2).reshape(-1, height, width)
        out[:] = apply(planes).reshape(batch, channels, oh, ow).transpose(0, 2, 3, 1)

    return writes(out, run)
