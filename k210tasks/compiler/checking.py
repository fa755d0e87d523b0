"""Can this model be compiled? Op by op, with memory and time, and without any image."""

from __future__ import annotations

from dataclasses import dataclass, field

from k210tasks.compiler import encode_v3, encode_v4, fitting
from k210tasks.compiler.constraints import SourceOp
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor
from k210tasks.compiler.numerics.ranges import Method
from k210tasks.compiler.options import SmallMaps
from k210tasks.compiler.passes.clamps import hold_clamps
from k210tasks.compiler.passes.legalise import legalise
from k210tasks.compiler.passes.place import allocate
from k210tasks.compiler.passes.quantise import quantise
from k210tasks.compiler.passes.ranges import Range, Ranges, through
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.passes.turns import drop_idle_turns
from k210tasks.compiler.problems import CompileError, TooMuchMemory, Unsupported
from k210tasks.compiler.reader import SeveralInputs, UnsupportedOps, load
from k210tasks.compiler.source import Source
from k210tasks.kmodel.listing import summary
from k210tasks.kmodel.runtimes import runtime_of
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4

SRAM_BYTES = 6 * 2**20  # program, model and its working memory (reference, section 1.1)

#: ops that a layer is named after when functions and paddings have been fused into it
_LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}


@dataclass(frozen=True, slots=True)
class OpReport:
    """One op of the source: ``where`` is "KPU", "CPU", "KPU and CPU", "nothing to do", or ""
    where it is refused, for ``reasons``."""

    label: str
    shape: tuple[int, ...]
    where: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What would become of a model as kmodel ``kmodel``.

    The figures are None where it cannot be compiled; the time is an estimate of the KPU
    layers alone (reference, section 1.10).
    """

    kmodel: int
    ops: tuple[OpReport, ...]
    problems: tuple[str, ...] = ()  # beyond single ops
    kpu_bytes: int | None = None
    main_bytes: int | None = None
    model_bytes: int | None = None
    estimated_kpu_ms: float | None = None
    layers: int = field(default=0)

    @property
    def supported(self) -> bool:
        return not self.problems and not any(op.reasons for op in self.ops)


class _AnyRange(Ranges):
    """Ranges that stand in for measured ones: no figure of a report depends on them."""

    def __init__(self, method: Method = "minmax"):
        super().__init__(None, method)

    def of_source(self, index: int | None) -> Range | None:
        return None

    def of(self, tensor: Tensor) -> Range | None:
        return tensor.range or (-1.0, 1.0)


def check(
    tflite: bytes,
    kmodel: int = 4,
    small_maps: SmallMaps = "padded",
    runtime: str | None = None,
) -> Report:
    """Look at a model for kmodel 3 or 4 and a runtime of ``kmodel.runtimes`` (None: any that has
    all layers); raises :class:`BadModel` for what is no model."""
    runs = runtime_of(runtime or "host")
    source = Source(tflite)
    refused: list[CompileError] = []
    try:
        graph = simplify(load(tflite))
        graph = legalise(graph, kmodel, small_maps=small_maps, runtime=runs, refused=refused)
    except UnsupportedOps as error:
        reasons = {op.label: tuple(found) for op, found in error.found}
        return Report(kmodel, _rows(source, {}, reasons))
    except SeveralInputs as error:
        return Report(kmodel, _rows(source, {}, {}), (str(error),))
    except Unsupported as error:
        refused.append(error)
        graph = None
    if refused or graph is None:
        return _refused(source, kmodel, refused)
    where = _where(graph)
    rows = _rows(source, where, {})
    try:
        for op in graph.ops:
            if op.kind == "kpu_conv":
                op.output.range = through(op.attrs["fn"], -1.0, 1.0)
        quantise(graph, _AnyRange(), Quant(1 / 255, 0))
        if kmodel == 3:
            hold_clamps(graph)
            drop_idle_turns(graph)
            fitting.check(graph, runs)
        memory = allocate(graph)
        model: KmodelV3 | KmodelV4
        if kmodel == 3:
            model, _ = encode_v3.encode(graph, memory)
        else:
            model, _ = encode_v4.encode(graph, memory)
    except CompileError as error:
        return Report(kmodel, rows, (str(error),))
    listed, size = summary(model), len(model.to_bytes())
    too_much = size + listed.main_bytes >= SRAM_BYTES
    return Report(
        kmodel,
        rows,
        (str(TooMuchMemory(size, listed.main_bytes, SRAM_BYTES)),) if too_much else (),
        kpu_bytes=listed.kpu_bytes,
        main_bytes=listed.main_bytes,
        model_bytes=size,
        estimated_kpu_ms=listed.estimated_kpu_ms,
        layers=len(listed.layers),
    )


def _refused(source: Source, kmodel: int, refused: list[CompileError]) -> Report:
    reasons: dict[str, tuple[str, ...]] = {}
    others = []
    labels = [op.label for op in source.ops]
    for error in refused:
        names = error.op.split(", ") if isinstance(error, Unsupported) else [""]
        name = next((n for n in names if n.split(" ")[0] in _LAYERS), names[-1])
        if isinstance(error, Unsupported) and name in labels:
            remedy = f"; {error.remedy}" if error.remedy else ""
            reasons[name] = (*reasons.get(name, ()), error.reason + remedy)
        else:
            others.append(str(error))
    return Report(kmodel, _rows(source, {}, reasons), tuple(others))


def _where(graph: Graph) -> dict[str, set[str]]:
    """Source op -> the processors that work on it."""
    found: dict[str, set[str]] = {}
    for op in graph.ops:
        for label in op.origin:
            found.setdefault(label, set()).update(_processors(op))
    return found


def _processors(op: Op) -> set[str]:
    if op.kind == "kpu_conv":
        return {"KPU"}
    if op.kind in ("reshape", "kpu_concat", "kpu_part", "upload", "quantize", "dequantize"):
        return set()
    return {"CPU"}


def _rows(
    source: Source, where: dict[str, set[str]], reasons: dict[str, tuple[str, ...]]
) -> tuple[OpReport, ...]:
    return tuple(
        OpReport(op.label, _shape(op), _place(where, op.label, reasons), reasons.get(op.label, ()))
        for op in source.ops
    )


def _shape(op: SourceOp) -> tuple[int, ...]:
    return op.outputs[0].shape if op.outputs else ()


def _place(where: dict[str, set[str]], label: str, reasons: dict[str, tuple[str, ...]]) -> str:
    if label in reasons:
        return ""
    if not where:
        return "ok"
    found = where.get(label, set())
    return " and ".join(sorted(found, reverse=True)) or "nothing to do"
