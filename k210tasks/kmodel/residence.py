"""Who lies in KPU RAM where and when, from the addresses the layers of a kmodel read and write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from k210tasks.kmodel.listing import touched
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4

#: ``Resident.born`` of what the runtime puts there before the first layer.
BEFORE = -1


@dataclass(frozen=True, slots=True)
class Resident:
    """A feature map in KPU RAM.

    ``row``, ``rows``: where, in rows of 64 bytes (docs/kpu-and-kmodel.md, section 1.3).
    ``born``: index of the layer that writes it, :data:`BEFORE` for the model's input.
    ``last``: index of the last layer that reads it; ``born`` where none does.
    """

    row: int
    rows: int
    born: int
    last: int

    def overlaps(self, row: int, rows: int) -> bool:
        return self.row < row + rows and row < self.row + self.rows


def residents(model: KmodelV3 | KmodelV4) -> list[Resident]:
    """Every feature map of ``model``, in the order of ``born``. Never fails on a parsed model."""
    living: list[Resident] = []
    ended: list[Resident] = []
    bodies: Any = model.layers
    for index, body in enumerate(bodies):
        spans = touched(body)
        for row, rows in spans[:-1]:
            found = [r for r in living if r.overlaps(row, rows)]
            if not found:
                # Nobody in the file wrote it: the runtime did.
                living.append(Resident(row, rows, BEFORE, index))
            for r in found:
                living[living.index(r)] = replace(r, last=index)
        for row, rows in spans[-1:]:
            ended += [r for r in living if r.overlaps(row, rows)]
            living = [r for r in living if not r.overlaps(row, rows)]
            living.append(Resident(row, rows, index, index))
    return sorted(ended + living, key=lambda r: (r.born, r.row))
