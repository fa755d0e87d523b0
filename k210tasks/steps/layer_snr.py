"""Where the error comes from: each KPU layer of a kmodel against the float model's tensor.

The built-in compiler says in layers.json which tensor of the float model a layer computes
and what its codes mean. Vendors' files do not tell, so for them the table is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import LayerFigures
from k210tasks.compiler.options import CompiledLayer, Place
from k210tasks.engine.job import Folder
from k210tasks.firmware.contract import Contract
from k210tasks.reference.float_model import Given, Reference
from k210tasks.reference.metrics import Tally
from k210tasks.samples.folder import evenly_spaced
from k210tasks.samples.loading import Loader, planar
from k210tasks.steps.engines import ProjectSimulator
from k210tasks.steps.measure import feed

#: Layers are compared on that many samples at most: every tensor is kept for each.
SAMPLES = 8


def comparable(table: LayerTable) -> list[CompiledLayer]:
    """The rows that name a tensor of the float model, where it is and what its codes mean."""
    rows = [row for row in table.layers if isinstance(row, CompiledLayer)]
    return [row for row in rows if None not in (row.tensor, row.at, row.scale)]


def layer_errors(
    model: Given,
    engine: ProjectSimulator,
    rows: Sequence[CompiledLayer],
    contract: Contract,
    loader: Loader,
    folder: Folder,
) -> tuple[LayerFigures, ...]:
    """One entry for each of the :func:`comparable` ``rows``.

    Of a layer whose map is larger than its tensor only the pixels that are used are compared.
    """
    if not rows:
        return ()
    reference = Reference(model, keep_all=True)
    indices = [row.tensor for row in rows if row.tensor is not None]
    tallies = [Tally() for _ in rows]
    for name in evenly_spaced(folder.files, SAMPLES):
        sample = loader.load(folder.path / name, f"{folder.path.as_posix()}/{name}")
        engine.simulator.run(feed(contract.input, sample), keep_layers=True)
        tensors = reference.tensors(sample.tensor, indices)
        for row, tally, tensor in zip(rows, tallies, tensors, strict=True):
            assert row.at is not None
            wanted = planar(tensor)
            real = _real(engine.simulator.layer_output(row.index), row)
            if (both := _picked(real, wanted, row.at)) is not None:
                tally.add(both[1], both[0])
    return tuple(
        LayerFigures(
            index=row.index,
            name=row.name,
            source=row.source,
            output=row.output,
            snr_db=tally.snr_db,
            cosine_mean=tally.cosine_mean,
        )
        for row, tally in zip(rows, tallies, strict=True)
        if tally.count
    )


def _real(codes: NDArray[Any], row: CompiledLayer) -> NDArray[np.float32]:
    """What a layer's codes mean; ``scale`` is one number, or one a channel."""
    scale = np.asarray(row.scale, np.float32)
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (codes.ndim - 1))
    return (codes.astype(np.float32) - np.float32(row.zero_point)) * scale


def _picked(
    codes: NDArray[Any], wanted: NDArray[Any], at: Place
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Those of a layer's values [C, H, W] that are values of ``wanted``, and these, where the
    row says they lie; None where they are not the same elements."""
    (y, x), (down, across), (rows, columns) = at.offset, at.step, at.size
    seen = codes[:, y::down, x::across][:, :rows, :columns]
    part = wanted.reshape(len(wanted), -1)[at.channel : at.channel + len(seen)]
    if seen.shape[1:] != (rows, columns) or seen.size != part.size:
        return None
    return seen.reshape(part.shape), part
