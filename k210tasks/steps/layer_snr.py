"""Where the error comes from: each KPU layer of a kmodel against the float model's tensor.

The built-in compiler says in layers.json which tensor of the ``.tflite`` a layer computes
and what its codes mean. Vendors' files do not tell, so for them the table is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.engine.job import Folder
from k210tasks.firmware.contract import Contract
from k210tasks.reference.litert import FloatModel
from k210tasks.reference.metrics import Tally
from k210tasks.samples.folder import evenly_spaced
from k210tasks.samples.loading import Loader, planar
from k210tasks.steps.engines import ProjectSimulator
from k210tasks.steps.measure import feed

#: Layers are compared on that many samples at most: every tensor is kept for each.
SAMPLES = 8


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of layers.json that can be compared."""
    rows = json.loads(path.read_text("utf-8"))["layers"]
    return [r for r in rows if all(r.get(k) is not None for k in ("tensor", "at", "scale"))]


def layer_errors(
    tflite: bytes,
    engine: ProjectSimulator,
    rows: Iterable[Mapping[str, Any]],
    contract: Contract,
    loader: Loader,
    folder: Folder,
) -> list[dict[str, Any]]:
    """One entry a comparable layer: index, name, source, output, snr_db, cosine_mean.

    Of a layer whose map is larger than its tensor only the pixels that are used are compared.
    """
    rows = list(rows)
    if not rows:
        return []
    model = FloatModel(tflite, keep_all=True)
    tallies = [Tally() for _ in rows]
    for name in evenly_spaced(folder.files, SAMPLES):
        sample = loader.load(folder.path / name, f"{folder.path.as_posix()}/{name}")
        engine.simulator.run(feed(contract.input, sample), keep_layers=True)
        model.run(sample.tensor)
        for row, tally in zip(rows, tallies, strict=True):
            wanted = planar(model.tensor(row["tensor"])).astype(np.float32)
            real = _real(engine.simulator.layer_output(row["index"]), row)
            if (both := _picked(real, wanted, row["at"])) is not None:
                tally.add(both[1], both[0])
    return [
        {
            "index": row["index"],
            "name": row["name"],
            "source": row.get("source", []),
            "output": row.get("output"),
            "snr_db": tally.snr_db,
            "cosine_mean": tally.cosine_mean,
        }
        for row, tally in zip(rows, tallies, strict=True)
        if tally.count
    ]


def _real(codes: NDArray[Any], row: Mapping[str, Any]) -> NDArray[np.float32]:
    """What a layer's codes mean; ``scale`` is one number, or one a channel."""
    scale = np.asarray(row["scale"], np.float32)
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (codes.ndim - 1))
    return (codes.astype(np.float32) - np.float32(row["zero_point"])) * scale


def _picked(
    codes: NDArray[Any], wanted: NDArray[Any], at: Mapping[str, Any]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Those of a layer's values [C, H, W] that are values of ``wanted``, and these, where the
    row says they lie (:class:`Compiled`); None where they are not the same elements."""
    (y, x), (down, across), (rows, columns) = at["offset"], at["step"], at["size"]
    seen = codes[:, y::down, x::across][:, :rows, :columns]
    first = at["channel"]
    part = wanted.reshape(len(wanted), -1)[first : first + len(seen)]
    if seen.shape[1:] != (rows, columns) or seen.size != part.size:
        return None
    return seen.reshape(part.shape), part
