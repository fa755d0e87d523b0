"""The histograms of the worst tensors, from the built-in compiler's calibration data.

Only the small members of the ``.npz`` are read; the kept samples, which may be large, are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.compiler.options import CompiledLayer
from k210tasks.report.facts import Histogram, Layer

#: Tensors drawn, the worst ones.
TENSORS = 8
#: Bins a drawing has, about.
BINS = 96


def histograms(
    path: Path, table: LayerTable | None, layers: Sequence[Layer]
) -> tuple[Histogram, ...]:
    """Those of the layers whose error is known, the worst first; of the first layers where no
    error is known. Nothing for data of other compilers."""
    snr = {layer.index: layer.snr_db for layer in layers}
    chosen: list[tuple[float, int, int, tuple[float, float]]] = []
    for row in () if table is None else table.layers:
        covered = _chosen(row) if isinstance(row, CompiledLayer) else None
        if isinstance(row, CompiledLayer) and row.tensor is not None and covered is not None:
            error = snr.get(row.index)
            chosen.append((math.inf if error is None else error, row.index, row.tensor, covered))
    taken: dict[int, tuple[int, tuple[float, float]]] = {}
    for _, index, tensor, covered in sorted(chosen):
        taken.setdefault(tensor, (index, covered))
    worst = dict(list(taken.items())[:TENSORS])
    found = _read(path, worst) if worst else {}
    return tuple(
        replace(found[tensor], layer=index, chosen=covered, snr_db=snr.get(index))
        for tensor, (index, covered) in worst.items()
        if tensor in found
    )


def _chosen(row: CompiledLayer) -> tuple[float, float] | None:
    """The range a layer's 256 codes cover; of its widest channel where each has its own."""
    if row.scale is None or row.zero_point is None:
        return None
    step = max(row.scale) if isinstance(row.scale, tuple) else row.scale
    return -row.zero_point * step, (255 - row.zero_point) * step


def _read(path: Path, wanted: Mapping[int, Any]) -> dict[int, Histogram]:
    """Tensor -> what was counted of it."""
    from k210tasks.compiler.numerics.calibration import CalibrationError, header_of
    from k210tasks.npz import read

    drawn: dict[int, Histogram] = {}
    try:
        arrays = read(path, ("meta", "counts"))
        header, counts = header_of(arrays["meta"]), arrays["counts"]
        for i, tensor in enumerate(header.tensors):
            if tensor.index in wanted:
                drawn[tensor.index] = _drawn(tensor.name, counts[i], tensor.exponent)
    except (CalibrationError, OSError, ValueError, IndexError, TypeError, OverflowError):
        return {}
    return drawn


def _drawn(name: str, counts: Any, exponent: int) -> Histogram:
    """As few bins as :data:`BINS`, from the first used one to the last."""
    import numpy as np

    width = 2.0**exponent
    half = len(counts) // 2
    used = np.flatnonzero(counts)
    if not len(used):
        return Histogram(name, None, (0,), 0.0, width, (0.0, 0.0))
    first, last = int(used[0]), int(used[-1]) + 1
    step = max(1, -(-(last - first) // BINS))
    first = first // step * step
    last = -(-last // step) * step
    padded = np.zeros(last - first, np.int64)
    inside = counts[first:last]
    padded[: len(inside)] = inside
    sums = padded.reshape(-1, step).sum(axis=1)
    return Histogram(
        name,
        None,
        tuple(int(n) for n in sums),
        (first - half) * width,
        (last - half) * width,
        (0.0, 0.0),
    )
