"""Addresses for buffers with lifetimes: who lives at the same time must not overlap.

Used for KPU RAM (in rows) and main memory (in bytes). Several orders of placement are
tried, then a bounded local search moves single buffers towards the front of the best
order. No clock is read, so the same buffers always get the same addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Buffer:
    """``size`` units, alive from step ``first`` to step ``last``, both included.

    A layer's inputs and outputs are all alive at its step, so they never share space.
    """

    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Placement:
    """One address per buffer, in the order given, and the units used in all."""

    addresses: tuple[int, ...]
    total: int


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """The largest sum of sizes alive at one step: no placement can do with less."""
    return max((sum(b.size for b in at) for _, at in _steps(buffers)), default=0)


def busiest_step(buffers: Sequence[Buffer]) -> tuple[int, list[int]]:
    """The step of :func:`lower_bound` and the indices of the buffers alive at it."""
    best, members = 0, []
    most = -1
    for step in sorted({b.first for b in buffers}):
        alive = [i for i, b in enumerate(buffers) if b.first <= step <= b.last]
        size = sum(buffers[i].size for i in alive)
        if size > most:
            best, members, most = step, alive, size
    return best, members


def _steps(buffers: Sequence[Buffer]) -> list[tuple[int, list[Buffer]]]:
    """Where the set of live buffers can be largest: at every birth."""
    births = sorted({b.first for b in buffers})
    return [(s, [b for b in buffers if b.first <= s <= b.last]) for s in births]


def place(
    buffers: Sequence[Buffer], *, align: int = 1, limit: int | None = None, rounds: int = 300
) -> Placement:
    """Addresses, multiples of ``align``, with a total as small as the search finds.

    ``rounds`` bounds the local search; it ends early at :func:`lower_bound`, or when
    ``limit`` is given and met. The caller judges a total above its limit. Sizes are
    rounded up to ``align``; buffers of size 0 get address 0.
    """
    sizes = [-(-b.size // align) * align for b in buffers]
    count = len(buffers)
    live = [i for i in range(count) if sizes[i]]
    clash: list[list[int]] = [
        [
            j
            for j in live
            if j != i
            and buffers[j].first <= buffers[i].last
            and buffers[i].first <= buffers[j].last
        ]
        for i in range(count)
    ]
    rounded = [Buffer(sizes[i], buffers[i].first, buffers[i].last) for i in live]
    floor = lower_bound(rounded)
    goal = floor if limit is None else max(floor, limit)

    def put(order: Sequence[int]) -> tuple[int, list[int]]:
        address = [-1] * count
        total = 0
        for i in order:
            taken = sorted((address[j], sizes[j]) for j in clash[i] if address[j] >= 0)
            at = _best_gap(taken, sizes[i])
            address[i] = at
            total = max(total, at + sizes[i])
        return total, address

    span = {i: buffers[i].last - buffers[i].first + 1 for i in live}
    pressure = {i: sum(sizes[j] for j in clash[i]) + sizes[i] for i in live}
    orders = [
        sorted(live, key=lambda i: (-sizes[i], buffers[i].first, i)),
        sorted(live, key=lambda i: (-sizes[i] * span[i], i)),
        sorted(live, key=lambda i: (-span[i], -sizes[i], i)),
        sorted(live, key=lambda i: (-pressure[i], -sizes[i], i)),
        sorted(live, key=lambda i: (buffers[i].first, -sizes[i], i)),
        sorted(live, key=lambda i: (-buffers[i].last, -sizes[i], i)),
    ]
    best_total, best_address, best_order = floor * 2 + 1, [0] * count, orders[0]
    for order in orders:
        total, address = put(order)
        if total < best_total:
            best_total, best_address, best_order = total, address, order
    random = Random(0)  # the same on any machine and under any numpy
    for _ in range(rounds if live else 0):
        if best_total <= goal:
            break
        order = list(best_order)
        # What sticks out most is placed earlier; now and then a random pair is swapped.
        worst = max(order, key=lambda i: (best_address[i] + sizes[i], -i))
        source = order.index(worst)
        if source == 0 or random.random() < 0.5:
            source = int(random.random() * len(order))
        order.insert(int(random.random() * (source + 1)), order.pop(source))
        total, address = put(order)
        if total <= best_total:
            best_total, best_address, best_order = total, address, order
    return Placement(tuple(max(a, 0) for a in best_address), best_total if live else 0)


def _best_gap(taken: list[tuple[int, int]], size: int) -> int:
    """The start of the smallest gap between ``taken`` (address, size) that holds ``size``."""
    best, best_room = -1, -1
    end = 0
    for address, length in taken:
        room = address - end
        if room >= size and (best < 0 or room < best_room):
            best, best_room = end, room
        end = max(end, address + length)
    return best if best >= 0 else end
