"""``layers.json``: what a compiler told of the layers it made, and what is doubtful about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from k210tasks.artifacts.doubts import AnyDoubt
from k210tasks.compiler.options import CompiledLayer
from k210tasks.kmodel.listing import LayerRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """``layers``: the built-in compiler's own rows, or what the file tells of a vendor's; none
    where the format does not tell. ``kpu_bytes``, ``main_bytes``: memory of a run, likewise.
    ``warnings``: the ``doubts`` in the words of models.yaml.
    """

    format: Literal[2] = 2  # of the file
    compiler: str
    kmodel: int
    bytes: int
    kpu_bytes: int | None
    main_bytes: int | None
    doubts: tuple[AnyDoubt, ...] = ()
    warnings: tuple[str, ...] = ()
    layers: tuple[CompiledLayer | LayerRow, ...] = ()
