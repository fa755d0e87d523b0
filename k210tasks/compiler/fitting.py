"""Which layers a runtime computes right: legal forms, and the runtimes they are not right on.

What costs nothing is written so that every runtime computes it right, and needs no row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k210tasks.compiler.ir import Graph, Op
from k210tasks.compiler.ops import Dense, KpuConv, Requantize, Turn, Upload
from k210tasks.compiler.problems import NeedsOtherRuntime
from k210tasks.kmodel.quirks import misplaces_upload, requantized
from k210tasks.kmodel.runtimes import Runtime

OTHER = "use another firmware, or a model without it"


@dataclass(frozen=True, slots=True)
class Fault:
    """A layer of kmodel 3 that some runtimes get wrong."""

    kinds: tuple[type[Op], ...]
    wrong: Callable[[Op, Graph, Runtime], bool]
    says: str  # what such a runtime does with it
    remedy: str = OTHER


FAULTS: tuple[Fault, ...] = (
    Fault(
        (Dense,),
        lambda op, graph, runtime: not runtime.copies_dense,
        "writes the weights of a dense layer beyond the memory it takes for them",
    ),
    Fault(
        (Requantize, Turn),
        lambda op, graph, runtime: requantized(runtime, op.output.size) != op.output.size,
        "looks only an eighth of the bytes up in a table",
    ),
    Fault(
        (Upload,),
        lambda op, graph, runtime: misplaces_upload(runtime, 0, *op.output.shape[2:]),
        "puts the lines of a map whose width is a multiple of 8 in the wrong places",
    ),
    Fault(
        (KpuConv,),
        lambda op, graph, runtime: op.input is graph.input and op.input.shape[3] % 64 != 0
        and misplaces_upload(runtime, 0, *op.input.shape[2:]),
        "puts the lines of an input whose width is a multiple of 8, but not of 64, in the wrong "
        "places",
        "use another width, 320 for one, or another firmware",
    ),
)  # fmt: skip


def check(graph: Graph, runtime: Runtime) -> None:
    """Raise :class:`NeedsOtherRuntime` for the first layer of a kmodel 3 that ``runtime`` would
    not compute right."""
    for op in graph.ops:
        for fault in FAULTS:
            if isinstance(op, fault.kinds) and fault.wrong(op, graph, runtime):
                label = ", ".join(op.origin) or op.kind
                raise NeedsOtherRuntime(label, runtime.says, fault.says, fault.remedy)
