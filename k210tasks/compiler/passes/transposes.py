"""Transposes in the forms that the layers of each kmodel version have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import Reshape, Transpose
from k210tasks.compiler.passes.device import Device
from k210tasks.compiler.problems import NeedsKmodel4

Axes = tuple[int, ...]


def rotation(shape: Axes, perm: Axes) -> tuple[int, int] | None:
    """(rows, columns) where a transpose is that of a matrix, dimensions of one left out."""
    order = [p for p in perm if shape[p] != 1]
    if not order:
        return None
    start = order.index(min(order))
    if order[start:] + order[:start] != sorted(order):
        return None
    columns = math.prod(shape[p] for p in order[:start])
    return math.prod(shape) // columns, columns


def with_kmodel_3(dev: Device, x: Tensor, out_shape: Axes, perm: Axes) -> Tensor:
    """Floats transposed by the layer that brings a map from C,H,W to H,W,C."""
    if perm == (0, 2, 3, 1):
        return dev.emit(Transpose([x], perm=perm), out_shape, dtype="float32")
    matrix = rotation(x.shape, perm)
    if matrix is None:
        raise NeedsKmodel4(dev.label, f"a transpose by {list(perm)}")
    rows, columns = matrix
    flat = dev.emit(Reshape([x]), (1, rows, 1, columns), dtype="float32")
    turn = Transpose([flat], perm=(0, 2, 3, 1))
    turned = dev.emit(turn, (1, 1, columns, rows), dtype="float32")
    return dev.emit(Reshape([turned]), out_shape, dtype="float32")


def _swaps(order: Axes) -> Iterator[tuple[tuple[int, int, int], Axes]]:
    """Every exchange of two neighbouring runs of axes, and what it leads to."""
    n = len(order)
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n + 1):
                yield (i, j, k), order[:i] + order[j:k] + order[i:j] + order[k:]


def _fewest_swaps(perm: Axes) -> list[tuple[int, int, int]]:
    """The exchanges of neighbouring runs that lead from axes in order to ``perm``."""
    start = tuple(range(len(perm)))
    paths: dict[Axes, list[tuple[int, int, int]]] = {start: []}
    queue = [start]
    for order in queue:
        if order == perm:
            break
        for swap, reached in _swaps(order):
            if reached not in paths:
                paths[reached] = [*paths[order], swap]
                queue.append(reached)
    return paths[perm]


def in_four_dimensions(dev: Device, x: Tensor, perm: Axes) -> Tensor:
    """A transpose of any number of dimensions in as few of four dimensions as can be."""
    size = x.shape
    for i, j, k in _fewest_swaps(perm):
        runs = (size[:i], size[i:j], size[j:k], size[k:])
        a, b, c, d = (math.prod(run) for run in runs)
        flat = dev.emit(Reshape([x]), (a, b, c, d), dtype=x.dtype)
        x = dev.emit(Transpose([flat], perm=(0, 2, 1, 3)), (a, c, b, d), dtype=x.dtype)
        size = runs[0] + runs[2] + runs[1] + runs[3]
    return dev.emit(Reshape([x]), size, dtype=x.dtype)
