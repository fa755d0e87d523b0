"""Addresses: every tensor gets a place in KPU RAM (rows) or main memory (bytes).

What only changes its shape shares its input's bytes; the parts of a joined map lie behind
each other in the joined map's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from k210tasks.compiler.ir import Graph, Tensor
from k210tasks.compiler.numerics.allocator import Buffer, busiest_step, place
from k210tasks.compiler.ops import KpuConcat, KpuConv, KpuPart, Reshape
from k210tasks.compiler.problems import TooLarge
from k210tasks.kpu.layout import KPU_RAM_ROWS, ROW_BYTES, map_rows

ALIGN_MAIN = 8  # v3 moves whole 64-bit words into main memory


@dataclass(slots=True)
class Memory:
    """Where tensors are: ``rows`` of KPU RAM, ``bytes`` of main memory, and how much of each."""

    rows: dict[Tensor, int] = field(default_factory=dict)
    bytes: dict[Tensor, int] = field(default_factory=dict)
    kpu_bytes: int = 0
    main_bytes: int = 0


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor in main memory."""
    return tensor.size * (1 if tensor.dtype == "uint8" else 4)


def kpu_rows(tensor: Tensor) -> int:
    """Rows of a map in KPU RAM."""
    _, c, h, w = tensor.shape
    return map_rows(c, h, w)


@dataclass(slots=True)
class _Area:
    size: int
    first: int
    last: int
    members: list[tuple[Tensor, int]]


def lifetimes(graph: Graph) -> dict[Tensor, tuple[int, int]]:
    """First and last step at which each computed tensor must exist; steps are op numbers."""
    end = len(graph.ops)
    live = {graph.input: (-1, -1)}
    for step, op in enumerate(graph.ops):
        for tensor in op.inputs:
            if tensor.value is None:
                live[tensor] = (live[tensor][0], step)
        for tensor in op.outputs:
            live[tensor] = (step, step)
    for tensor in graph.outputs:
        live[tensor] = (live[tensor][0], end)
    return live


def _areas(graph: Graph, where: str) -> list[_Area]:
    """Tensors of one memory, those that share bytes in one area."""
    live = lifetimes(graph)
    areas: dict[Tensor, _Area] = {}
    order: list[_Area] = []

    def add(tensor: Tensor) -> None:
        size = kpu_rows(tensor) if where == "kpu" else nbytes(tensor)
        area = _Area(size, *live[tensor], [(tensor, 0)])
        areas[tensor] = area
        order.append(area)

    if graph.input.place == where:
        add(graph.input)
    for op in graph.ops:
        for tensor in op.outputs:
            if tensor.place != where:
                continue
            if isinstance(op, (Reshape, KpuPart)):
                area = areas[op.input]
                before = 0
                if isinstance(op, KpuPart) and op.first:
                    before = map_rows(op.first, *op.input.shape[2:])
                area.members.append((tensor, dict_of(area)[op.input] + before))
                area.last = max(area.last, live[tensor][1])
                areas[tensor] = area
            elif isinstance(op, KpuConcat):
                _join(op, tensor, areas, order, live)
            else:
                add(tensor)
    for op in graph.ops:
        if isinstance(op, KpuConv) and op.spare:
            for tensor in spared(op):
                if tensor.place == where:
                    area = areas[tensor]
                    area.size = max(area.size, dict_of(area)[tensor] + _one_more(tensor))
    return order


def spared(op: KpuConv) -> list[Tensor]:
    """What a layer with a spare channel writes, and reads, one channel more of."""
    return [*op.outputs, *(op.inputs if op.depthwise else ())]


def _one_more(tensor: Tensor) -> int:
    """Rows or bytes of a tensor with one more channel."""
    n, c, h, w = tensor.shape
    return map_rows(c + 1, h, w) if tensor.place == "kpu" else nbytes(tensor) + n * h * w


def dict_of(area: _Area) -> dict[Tensor, int]:
    """Offsets of the members of an area."""
    return dict(area.members)


def _join(
    op: KpuConcat,
    tensor: Tensor,
    areas: dict[Tensor, _Area],
    order: list[_Area],
    live: dict[Tensor, tuple[int, int]],
) -> None:
    parts = [areas[t] for t in op.inputs]
    joined = _Area(kpu_rows(tensor), *live[tensor], [(tensor, 0)])
    offset = 0
    for part_tensor, part in zip(op.inputs, parts, strict=True):
        base = offset - dict_of(part)[part_tensor]
        joined.members += [(t, base + at) for t, at in part.members]
        joined.first = min(joined.first, part.first)
        joined.last = max(joined.last, part.last)
        offset += kpu_rows(part_tensor)
        order.remove(part)
    for member, _ in joined.members:
        areas[member] = joined
    order.append(joined)


def allocate(graph: Graph, *, rounds: int = 300) -> Memory:
    """Addresses for every tensor; raises :class:`TooLarge` where 2 MiB do not hold the maps."""
    memory = Memory()
    for where, align in (("kpu", 1), ("main", ALIGN_MAIN)):
        areas = _areas(graph, where)
        buffers = [Buffer(a.size, a.first, a.last) for a in areas]
        placed = place(buffers, align=align, limit=None, rounds=rounds)
        if where == "kpu" and placed.total > KPU_RAM_ROWS:
            raise _too_large(graph, areas, buffers, placed.total)
        table = memory.rows if where == "kpu" else memory.bytes
        for area, address in zip(areas, placed.addresses, strict=True):
            for tensor, offset in area.members:
                table[tensor] = address + offset
        if where == "kpu":
            memory.kpu_bytes = placed.total * ROW_BYTES
        else:
            memory.main_bytes = placed.total
    return memory


def _too_large(graph: Graph, areas: list[_Area], buffers: list[Buffer], total: int) -> TooLarge:
    step, members = busiest_step(buffers)
    op = graph.ops[min(max(step, 0), len(graph.ops) - 1)]
    needed = sum(buffers[i].size for i in members)
    held = ", ".join(
        f"{areas[i].members[0][0].name} {'x'.join(map(str, areas[i].members[0][0].shape[1:]))} "
        f"({buffers[i].size * ROW_BYTES} bytes)"
        for i in members
    )
    label = ", ".join(op.origin) or op.kind
    if needed <= KPU_RAM_ROWS:  # each step fits, their order in memory does not
        needed = total
    return TooLarge(
        label,
        needed * ROW_BYTES,
        KPU_RAM_ROWS * ROW_BYTES,
        f"alive at that layer: {held}; a smaller input or fewer channels there would make it fit",
    )
