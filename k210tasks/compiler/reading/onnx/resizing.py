"""Rows and columns repeated, left out or mixed as ONNX has it, where K210 runtimes do too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import executor, ops
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.reading.onnx.building import Building, axis_of, fits
from k210tasks.compiler.reading.onnx.nodes import Node
from k210tasks.compiler.reading.onnx.windowed import is_row
from k210tasks.compiler.reading.pieces import picked
from k210tasks.compiler.shape_laws import MOST_PIECES, MOST_SPAN


def _places(node: Node, n: int, m: int, scale: float) -> NDArray[np.float64]:
    """Where each of m pixels lies on an axis of n."""
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    if node.op == "Upsample" or node.opset < 11:
        mode = "asymmetric"
    at = np.arange(m, dtype=np.float64)
    if mode == "align_corners":
        if abs(scale * n - m) > 1e-3:
            raise node.unsupported(f"align_corners with a scale of {scale:g} of {n} pixels")
        return at * (n - 1) / (m - 1) if m > 1 else at * 0
    if mode == "asymmetric":
        return at / scale
    if mode == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if mode == "pytorch_half_pixel" and m == 1:
        return at * 0
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - m / (scale * n)) + (at + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    raise node.unsupported(f"coordinate_transformation_mode is {mode!r}")


def _mixing(node: Node, n: int, m: int, scale: float, *, nearest: bool) -> NDArray[np.float64]:
    """(m, n): how much of which pixel goes where, by ONNX's definition."""
    at = _places(node, n, m, scale)
    found = np.zeros((m, n))
    if nearest:
        mode = node.text("nearest_mode", "round_prefer_floor")
        if node.op == "Upsample" or node.opset < 11:
            mode = "floor"
        rounds: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
            "round_prefer_floor": lambda x: np.ceil(x - 0.5),
            "round_prefer_ceil": lambda x: np.floor(x + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
        }
        if mode not in rounds:
            raise node.unsupported(f"nearest_mode is {mode!r}")
        found[np.arange(m), np.clip(rounds[mode](at), 0, n - 1).astype(int)] = 1
        return found
    at = np.clip(at, 0, n - 1)
    low = np.floor(at).astype(int)
    found[np.arange(m), low] += 1 - (at - low)
    found[np.arange(m), np.minimum(low + 1, n - 1)] += at - low
    return found


def _own_mixing(op: ops.Resize, n: int, m: int) -> NDArray[Any]:
    """The same of an op of the graph."""
    x = Tensor("", (1, n, n, 1))
    one = ops.Resize([x], [Tensor("", (1, n, m, 1))], mode=op.mode,
                     align_corners=op.align_corners, half_pixel=op.half_pixel)  # fmt: skip
    return executor.compute(one, np.eye(n, dtype=np.float32).reshape(1, n, n, 1))[0, :, :, 0].T


def _sizes(r: Building, node: Node, shape: Sequence[int]) -> tuple[list[int], list[float]]:
    """Size of the output and scale of every axis."""
    rank = len(shape)
    scales: list[float] | None
    sizes = None
    if node.op == "Upsample" and node.opset < 9:
        scales = node.reals("scales")
    else:
        at = 2 if node.op == "Resize" and node.opset >= 11 else 1
        given = r.floats(node, at, "scales") if node.input(at) else np.zeros(0)
        scales = [float(s) for s in given] or None
        if node.op == "Resize" and node.opset >= 11:
            sizes = r.wholes(node, 3, "sizes") or None
    axes = node.wholes("axes")
    axes = list(range(rank)) if axes is None else [axis_of(node, a, rank) for a in axes]
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("keep_aspect_ratio_policy is set", "give the size itself")
    told = sizes if sizes is not None else scales
    if told is None or len(told) != len(axes) or min(told) <= 0 or max(told) > MOST_SPAN * 4:
        raise node.unsupported(f"its sizes or scales are {told}, for a map of {rank} dimensions")
    out, factors = list(shape), [1.0] * rank
    for i, a in enumerate(axes):
        if sizes is not None:
            out[a], factors[a] = sizes[i], sizes[i] / shape[a]
        else:
            assert scales is not None
            out[a], factors[a] = math.floor(shape[a] * scales[i] + 1e-6), scales[i]
    if max(out[2:]) > 4 * MOST_SPAN:
        raise node.unsupported(f"it makes {out} of {list(shape)}: more than any K210 holds")
    if out[:2] != list(shape[:2]):
        raise node.unsupported(f"it makes {out} of {list(shape)}: only rows and columns may change")
    return list(fits(node, out)), factors


def resize(r: Building, node: Node) -> None:
    given, row = r.shape(node.input(0)), is_row(r, node)
    out, factors = _sizes(r, node, given)
    x = r.map(node)
    mode = node.text("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise node.unsupported(f"mode is {mode!r}", "use nearest or linear")
    if node.whole("antialias", 0) and any(f < 1 for f in factors):
        raise node.unsupported("antialias is set", "resize without it")
    if row:
        out, factors = [*out[:2], 1, out[2]], [*factors[:2], 1.0, factors[2]]
    nearest = mode == "nearest"
    wanted = {
        i: _mixing(node, x.shape[i], out[i], factors[i], nearest=nearest)
        for i in (2, 3)
        if (x.shape[i], factors[i]) != (out[i], 1.0)
    }
    for align, half in ((False, False), (False, True), (True, False)):
        made = ops.Resize([x], mode="nearest" if nearest else "bilinear",
                          align_corners=align, half_pixel=half)  # fmt: skip
        if all(
            np.allclose(_own_mixing(made, x.shape[i], out[i]), wanted[i], atol=1e-5) for i in wanted
        ):
            r.put(node, made, out, row=row)
            return
    if not nearest:
        mode = node.text("coordinate_transformation_mode", "half_pixel")
        raise node.unsupported(
            f"linear with coordinate_transformation_mode {mode!r} from {list(given[2:])} to "
            f"{out[2:]} is none of those that K210 runtimes compute",
            "use half_pixel, align_corners or asymmetric",
        )
    for i, mixing in wanted.items():
        places = [int(p) for p in mixing.argmax(1)]
        if len(places) > MOST_PIECES:
            raise node.unsupported(f"it picks {len(places)} rows one by one")
        shape = tuple(out[k] if k == i else n for k, n in enumerate(x.shape))
        x = r.emit(ops.Concat(picked(r, x, i, places), axis=i), shape)
    r.hold(node, x, row=row)


HANDLERS = {"Resize": resize, "Upsample": resize}
