"""The memories a model runs in, and the checks made before anything is allocated or run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel.codec import CONST, KPU, MAIN, MemoryRange
from k210tasks.kmodel.errors import KmodelError, TooMuch
from k210tasks.kmodel.runtimes import HOST, Runtime
from k210tasks.kpu.layout import KPU_RAM_BYTES, KPU_RAM_ROWS, ROW_BYTES

#: Main memory a model may ask for; the K210 has 6 MiB.
MAX_MAIN_MEMORY = 64 << 20
#: Work one run may take, in multiply-accumulates of a matrix product: a few seconds. The
#: largest networks that fit a K210 need a tenth of it.
MAX_WORK = 64_000_000_000
#: What a few numpy calls cost in the same unit, however small their arrays.
STEP_WORK = 300_000
#: What one element costs in an elementwise operation.
ELEMENT_WORK = 200

MEMORY_NAMES = {CONST: "the constants", MAIN: "main memory", KPU: "KPU RAM"}


class Memory:
    """Main memory, KPU RAM and constants as uint8 arrays, and the work counted so far.

    Raises :class:`TooMuch` before allocating where ``main_mem`` exceeds 64 MiB.
    """

    def __init__(self, main_mem: int, offset: int, constants: Any = b"", runtime: Runtime = HOST):
        if main_mem > MAX_MAIN_MEMORY:
            raise TooMuch(offset, "main_mem", main_mem, MAX_MAIN_MEMORY, "bytes of main memory")
        self.main = np.full(main_mem, runtime.unwritten, np.uint8)
        self.kpu = np.zeros(KPU_RAM_BYTES, np.uint8)
        self.const = np.frombuffer(constants, np.uint8)
        self.work = 0
        self._keeps = runtime.keeps_memory

    def begin(self) -> None:
        """Before a run: forget what the last one has left, unless the runtime keeps it."""
        if not self._keeps:
            self.main.fill(0)
            self.kpu.fill(0)


class Site:
    """One layer being prepared: its place for messages, and checked access to the memories.

    ``runtime`` is what will run it.
    """

    def __init__(self, memory: Memory, offset: int | None, what: str, runtime: Runtime = HOST):
        self.memory, self.offset, self.what = memory, offset, what
        self.runtime = runtime

    def fail(self, field: str, problem: str) -> KmodelError:
        """An error about ``field`` of this layer, to be raised by the caller."""
        return KmodelError(self.offset, f"{self.what}: {field}", problem)

    def require(self, condition: bool, field: str, problem: str) -> None:
        """Raise :class:`KmodelError` unless ``condition`` holds."""
        if not condition:
            raise self.fail(field, problem)

    def spend(self, work: int, elements: int = 0) -> None:
        """Count work of this layer; raises :class:`TooMuch` beyond :data:`MAX_WORK`."""
        self.memory.work += work + elements * ELEMENT_WORK + STEP_WORK
        if self.memory.work > MAX_WORK:
            raise TooMuch(
                self.offset,
                f"{self.what}: work up to here",
                self.memory.work,
                MAX_WORK,
                "multiply-accumulates",
            )

    def main(self, field: str, start: int, size: int, dtype: str = "u1") -> NDArray[Any]:
        """``size`` bytes of main memory from ``start``, as a flat view of ``dtype``."""
        return self._view(self.memory.main, MAIN, field, start, size, dtype)

    def rows(self, field: str, row: int, count: int) -> None:
        """Check that ``count`` rows of KPU RAM from ``row`` exist."""
        if row < 0 or row + count > KPU_RAM_ROWS:
            raise self.fail(
                field, f"rows {row}..{row + count - 1} of KPU RAM, which has {KPU_RAM_ROWS}"
            )

    def row(self, field: str, start: int) -> int:
        """The row of a byte address in KPU RAM."""
        if start % ROW_BYTES:
            raise self.fail(field, f"byte {start} of KPU RAM is not the start of a 64-byte row")
        return start // ROW_BYTES

    def range(self, field: str, memory: MemoryRange, dtype: str) -> NDArray[Any]:
        """A v4 memory range as a flat view of ``dtype``."""
        arrays = {CONST: self.memory.const, MAIN: self.memory.main}
        array = arrays.get(memory.memory_type)
        if array is None:
            raise self.fail(
                f"{field}.memory_type", f"{memory.memory_type}; constants (0) or main (1) is needed"
            )
        return self._view(array, memory.memory_type, field, memory.start, memory.size, dtype)

    def output(self, field: str, memory: MemoryRange, dtype: str) -> NDArray[Any]:
        """A v4 memory range that is written: main memory only."""
        if memory.memory_type != MAIN:
            raise self.fail(
                f"{field}.memory_type", f"{memory.memory_type}; results go to main memory (1)"
            )
        return self.range(field, memory, dtype)

    def _view(
        self, array: NDArray[np.uint8], kind: int, field: str, start: int, size: int, dtype: str
    ) -> NDArray[Any]:
        if start + size > len(array):
            raise self.fail(
                field,
                f"bytes {start}..{start + size} of {MEMORY_NAMES[kind]}, which has {len(array)}",
            )
        item = np.dtype(dtype).itemsize
        if size % item:
            raise self.fail(field, f"{size} bytes are no whole number of {item}-byte values")
        return array[start : start + size].view(dtype)


def elements(site: Site, field: str, shape: tuple[int, ...]) -> int:
    """The element count of ``shape``, whose dimensions must be positive and sensible."""
    count = 1
    for n in shape:
        if n < 1:
            raise site.fail(field, f"{tuple(shape)} has a dimension below 1")
        count *= n
    site.require(
        count <= MAX_MAIN_MEMORY,
        field,
        f"{tuple(shape)} has {count} elements, more than any memory",
    )
    return count


def shaped(site: Site, field: str, flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """``flat`` as ``shape``, whose element count must be its own."""
    count = elements(site, field, shape)
    if count != flat.size:
        raise site.fail(field, f"{tuple(shape)} has {count} elements, the memory holds {flat.size}")
    return flat.reshape(shape)
