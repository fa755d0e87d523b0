"""The histograms of the worst tensors, from the built-in compiler's calibration data.

Only the small members of the ``.npz`` are read; the kept samples, which may be large, are not.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from k210tasks.report import lenient
from k210tasks.report.facts import Histogram, Layer
from k210tasks.report.lenient import Json

#: Tensors drawn, the worst ones.
TENSORS = 8
#: Bins a drawing has, about.
BINS = 96


def histograms(path: Path, rows: Sequence[Json], layers: Sequence[Layer]) -> tuple[Histogram, ...]:
    """Those of the layers whose error is known, the worst first; of the first layers where no
    error is known. ``rows``: of layers.json. Nothing for data of other compilers."""
    snr = {layer.index: layer.snr_db for layer in layers}
    chosen: list[tuple[float, int, int, tuple[float, float]]] = []
    for row in rows:
        tensor, index = lenient.whole(row.get("tensor")), lenient.whole(row.get("index"))
        covered = _chosen(row)
        if tensor is not None and covered is not None and index is not None:
            error = snr.get(index)
            chosen.append((math.inf if error is None else error, index, tensor, covered))
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


def _chosen(row: Json) -> tuple[float, float] | None:
    """The range a layer's 256 codes cover; of its widest channel where each has its own."""
    scale, zero = row.get("scale"), lenient.number(row.get("zero_point"))
    steps = [lenient.number(s) for s in (scale if isinstance(scale, list) else [scale])]
    if not steps or zero is None or any(s is None for s in steps):
        return None
    step = max(s for s in steps if s is not None)
    return -zero * step, (255 - zero) * step


def _read(path: Path, wanted: Mapping[int, Any]) -> dict[int, Histogram]:
    """Tensor -> what was counted of it."""
    import numpy as np

    from k210tasks.compiler.numerics.calibration import FORMAT

    drawn: dict[int, Histogram] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            if "meta" not in file.files or "counts" not in file.files:
                return {}
            meta = json.loads(file["meta"].tobytes())
            if meta["format"] != FORMAT:
                return {}
            counts = file["counts"]
        for i, tensor in enumerate(meta["tensors"]):
            if tensor["index"] in wanted:
                drawn[tensor["index"]] = _drawn(str(tensor["name"]), counts[i], tensor["exponent"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile):
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
