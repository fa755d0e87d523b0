"""The device graph being written: its ops, and the KPU layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.forms import POOLS
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import DType, Op, Place, Tensor
from k210tasks.compiler.ops import Computed, KpuConcat, KpuConv, KpuPart, Pair, Within
from k210tasks.compiler.passes.maps import LOAD_BYTES, MAX_CHANNELS, MAX_LOADS, Pixels, Value
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime
from k210tasks.kpu.layout import layout


@dataclass(eq=False, slots=True)
class Device:
    """``version`` is 3 or 4; ``tables``: whether runtimes know
    the opcode that looks bytes up in a table, as those of kmodel 4 do from beta4 on;
    ``small``: whether the KPU may write maps of less than 4x4 (reference, section 1.4a);
    ``runtime``: what is to run the file."""

    version: int
    tables: bool = False
    small: bool = False
    runtime: Runtime = RUNTIMES["host"]
    ops: list[Op] = field(default_factory=list)
    producers: dict[Tensor, Op] = field(default_factory=dict)
    joined: set[Tensor] = field(default_factory=set)  # parts of a map joined of several
    origin: tuple[str, ...] = ()
    mains: dict[Tensor, Tensor] = field(default_factory=dict)
    aligned: dict[tuple[Tensor, Pair], Pixels] = field(default_factory=dict)

    def emit(
        self,
        op: Op,
        shape: tuple[int, ...],
        like: Value | Tensor | None = None,
        *,
        dtype: DType = "uint8",
        place: Place = "main",
    ) -> Tensor:
        """Append an op without output, and its output, which takes name, source and range from
        ``like``."""
        name = like.name if like is not None else f"{op.input.name}/{op.kind}"
        out = Tensor(name, tuple(int(n) for n in shape), dtype, place=place)
        if like is not None:
            out.source, out.range = like.source, like.range
        op.outputs, op.origin = [out], self.origin
        self.ops.append(op)
        self.producers[out] = op
        return out

    @property
    def label(self) -> str:
        """The source ops under way, for messages."""
        return ", ".join(self.origin) or "the input"

    # -- KPU layers

    def conv(
        self,
        x: Tensor,
        weights: NDArray[Any],
        bias: NDArray[Any],
        *,
        like: Value | Tensor | None = None,
        depthwise: bool = False,
        fn: Fn = (),
        pool: int = 0,
        computes: Computed | None = None,
        identity: bool = False,
        pre: Within | None = None,
    ) -> Tensor:
        """A KPU layer on the whole tensor ``x``, its output channels split where one layer
        cannot load them all.

        ``computes`` is of the layer's tensor, or of ``pre``, inside its function.
        """
        out, inner, k, _ = weights.shape
        stride = POOLS[pool][2]
        h, w = x.shape[2] // stride, x.shape[3] // stride
        per = out if depthwise else min(out, LOAD_BYTES // (k * k * inner))
        most = min(MAX_CHANNELS, MAX_LOADS * per)
        if out > most:
            most -= most % 4
        parts = []
        for begin in range(0, out, most):
            rows = slice(begin, min(begin + most, out))
            count = rows.stop - rows.start
            layer = KpuConv(
                [x],
                weights=np.ascontiguousarray(weights[rows], np.float32),
                bias=np.asarray(bias[rows], np.float32),
                depthwise=depthwise,
                fn=fn,
                pool=pool,
                computes=computes and replace(computes, first=computes.first + begin),
                identity=identity,
                pre=pre,
            )
            parts.append(self.emit(layer, (1, count, h, w), like, place="kpu"))
        return parts[0] if len(parts) == 1 else self.concat(parts, like)

    def copy(self, x: Tensor, *, pool: int = 0, tap: Pair = (0, 0)) -> Tensor:
        """The codes of ``x``, unchanged, pooled if asked; ``tap`` shifts the map: output
        pixel (y, x) is input pixel (y, x) + tap, each of -1, 0, 1."""
        c = x.shape[1]
        k = 1 if tap == (0, 0) else 3
        normal = pool != 0
        weights = np.zeros((c, c if normal else 1, k, k), np.float32)
        at = (tap[0] + 1, tap[1] + 1) if k == 3 else (0, 0)
        weights[np.arange(c), np.arange(c) if normal else 0, at[0], at[1]] = 1
        return self.conv(
            x, weights, np.zeros(c, np.float32), depthwise=not normal, pool=pool, identity=True
        )

    def part(self, x: Tensor, first: int, count: int) -> Tensor:
        """Channels of a KPU tensor as a tensor of their own: the same rows. ``first`` must
        be a multiple of the layout's group."""
        if self.version == 3 and x not in self.producers:
            # The first layer's registers say how large the input is: it must read all of it.
            key = (x, (0, 0))
            if key not in self.aligned:
                self.aligned[key] = Pixels.of(self.copy(x))
            x = self.aligned[key].tensor
        shape = (1, count, *x.shape[2:])
        return self.emit(KpuPart([x], first=first), shape, place="kpu")

    def concat(self, parts: list[Tensor], like: Value | Tensor | None = None) -> Tensor:
        """Maps of one size behind each other in KPU RAM; parts that cannot be placed so are
        copied first. Channels must be multiples of the layout's group, but for the last."""
        ready = []
        for part in parts:
            producer = self.producers.get(part)
            free = producer is not None and not isinstance(producer, (KpuConcat, KpuPart))
            if not free or part in self.joined or part in ready:
                part = self.copy(part)
            ready.append(part)
        self.joined.update(ready)
        channels = sum(p.shape[1] for p in ready)
        shape = (1, channels, *ready[0].shape[2:])
        return self.emit(KpuConcat(ready), shape, like, place="kpu")

    def joinable(self, maps: list[Tensor]) -> bool:
        """Whether :meth:`concat` can join these."""
        group = layout(maps[0].shape[3]).channels_per_group
        total = sum(t.shape[1] for t in maps)
        return total <= MAX_CHANNELS and all(t.shape[1] % group == 0 for t in maps[:-1])

    def main_copy(self, x: Tensor) -> Tensor:
        """The dense codes of a KPU tensor in main memory."""
        if x in self.mains:
            return self.mains[x]
        producer = self.producers.get(x)
        if not isinstance(producer, KpuConv):
            producer = self.producers[self.copy(x)]
        main = Tensor(f"{x.name}/main", x.shape, "uint8", source=x.source, range=x.range)
        producer.outputs.append(main)
        self.producers[main] = producer
        self.mains[x] = main
        return main
