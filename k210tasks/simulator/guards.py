"""Whether the layers of a kmodel keep to their buffers when a runtime executes them.

What a layer reads and writes is declared by its body (:mod:`k210tasks.kmodel.accesses`). Here
every layer is run as the simulator runs it, and looked at from outside: a byte that changes
and is not the layer's was written outside; an output that changes when only bytes are altered
that are not the layer's was read from outside. So nothing needs to be known of how a layer is
computed. Bytes that no layer has written yet are followed to the outputs by running the model
on memories that held different things before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.accesses import Span, accesses, outputs
from k210tasks.kmodel.codec import KPU, MAIN
from k210tasks.kmodel.v3_layers import K210Conv, QuantizedAdd
from k210tasks.kpu.blas import one_thread
from k210tasks.kpu.layout import map_rows, map_view
from k210tasks.simulator.memory import MEMORY_NAMES, Memory
from k210tasks.simulator.simulator import Simulator

#: Layers that write whole words of eight bytes: up to seven more, which are nobody's as a rule.
_IN_WORDS = (K210Conv, QuantizedAdd)

Kind = Literal["reads outside", "writes outside", "reads unwritten", "reads damaged"]


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes that a layer touches and that are not its own, or that nobody has written."""

    layer: str  # as messages call it, or "outputs[i]"
    kind: Kind
    memory: int  # MAIN or KPU
    first: int  # byte
    count: int  # bytes

    def __str__(self) -> str:
        return (
            f"{self.layer} {self.kind}: {self.count} bytes of {MEMORY_NAMES[self.memory]} "
            f"from {self.first}"
        )


class _Masks:
    """One boolean a byte of main memory and of KPU RAM."""

    def __init__(self, memory: Memory) -> None:
        self.of = {MAIN: np.zeros(len(memory.main), bool), KPU: np.zeros(len(memory.kpu), bool)}

    def mark(self, span: Span, value: bool = True) -> None:
        """Set the bytes of a span; constants are nobody's."""
        if span.memory == MAIN:
            self.of[MAIN][span.start : span.start + span.size] = value
        elif span.memory == KPU:
            batches, channels, height, width = span.shape
            rows, ram = map_rows(channels, height, width), self.of[KPU].view(np.uint8)
            for i in range(batches):
                view = map_view(ram, span.start + i * rows, channels, height, width)
                group = view.shape[1]
                for c in range(channels):
                    view[c // group, c % group, : span.pixels, : span.pixels] = value


def _bytes(memory: Memory) -> dict[int, NDArray[np.uint8]]:
    return {MAIN: memory.main, KPU: memory.kpu}


def _found(layer: str, kind: Kind, masks: dict[int, NDArray[Any]]) -> list[Access]:
    found = []
    for memory, mask in masks.items():
        places = np.flatnonzero(mask)
        if len(places):
            found.append(Access(layer, kind, memory, int(places[0]), len(places)))
    return found


def audit(simulator: Simulator, x: NDArray[Any], seed: int = 0) -> list[Access]:
    """Every access of one run on ``x`` that is not the layer's own, in the order of layers.

    "reads unwritten" and "reads damaged" (written by a layer that had no business there) name
    only what reaches the outputs, and the outputs it reaches: a 1x1 convolution may well
    compute pixels nobody asks for from bytes nobody wrote (docs, section 2.4, ADD_PADDING).
    """
    random = np.random.default_rng(seed)
    values, memory = simulator._accept(x), simulator._memory
    found: list[Access] = []
    results = []
    for trial in range(2):
        for array in _bytes(memory).values():
            array[:] = random.integers(0, 256, len(array), np.uint8)
        simulator._store(values)
        with np.errstate(all="ignore"), one_thread():
            if not trial:
                found += _guarded_run(simulator, random)
            else:
                for step in simulator._steps:
                    step.run()
        results.append(
            [memory.main[s.start : s.start + s.size].copy() for s in _outputs(simulator)]
        )
    for i, (span, a, b) in enumerate(zip(_outputs(simulator), *results, strict=True)):
        mask = np.zeros(len(memory.main), bool)
        mask[span.start : span.start + span.size] = a != b
        found += _found(f"outputs[{i}]", "reads unwritten", {MAIN: mask})
    return found


def _outputs(simulator: Simulator) -> tuple[Span, ...]:
    return tuple(span for span in outputs(simulator.model) if span.memory == MAIN)


def _guarded_run(simulator: Simulator, random: np.random.Generator) -> list[Access]:
    memory, found = simulator._memory, list[Access]()
    damaged = _Masks(memory)
    noise = {k: random.integers(0, 256, len(a), np.uint8) for k, a in _bytes(memory).items()}
    bodies: Any = simulator.model.layers
    for name, body, step in zip(simulator.names, bodies, simulator._steps, strict=True):
        reads, writes, words = _Masks(memory), _Masks(memory), _Masks(memory)
        for span in accesses(body).reads:
            reads.mark(span)
        for span in accesses(body).writes:
            writes.mark(span)
            if isinstance(body, _IN_WORDS) and span.memory == MAIN:
                words.mark(span._replace(size=-(-span.size // 8) * 8))
        before = {kind: array.copy() for kind, array in _bytes(memory).items()}
        # Once with everything altered that the layer does not declare to read …
        for kind, array in _bytes(memory).items():
            np.copyto(array, noise[kind], where=~reads.of[kind])
        altered = {kind: array.copy() for kind, array in _bytes(memory).items()}
        step.run()
        other = {kind: array.copy() for kind, array in _bytes(memory).items()}
        # … and once as it is.
        for kind, array in _bytes(memory).items():
            array[:] = before[kind]
        step.run()
        differs, outside = {}, {}
        for kind, array in _bytes(memory).items():
            # A byte that neither run wrote still holds what it held before.
            kept = (other[kind] == altered[kind]) & (array == before[kind])
            differs[kind] = writes.of[kind] & (array != other[kind]) & ~kept
            outside[kind] = ~(writes.of[kind] | words.of[kind]) & (array != before[kind])
        found += _found(name, "reads outside", differs)
        used = {kind: damaged.of[kind] & reads.of[kind] for kind in damaged.of}
        found += _found(name, "reads damaged", used)
        found += _found(name, "writes outside", outside)
        for kind, mask in outside.items():
            damaged.of[kind] |= mask | words.of[kind]
            damaged.of[kind] &= ~writes.of[kind]
    return found
