"""Can this model be compiled? Op by op, with memory and time, and without any image."""

from __future__ import annotations

from dataclasses import dataclass, field

from k210tasks.compiler import ops
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.options import Fed, Options, SmallMaps
from k210tasks.compiler.passes.bounds import Range, through
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.pipeline import finished, prepared
from k210tasks.compiler.problems import CompileError, SeveralInputs, Unsupported, UnsupportedOps
from k210tasks.compiler.reader import Model, opened
from k210tasks.compiler.source_ops import SourceOp

#: ops that a layer is named after when functions and paddings have been fused into it
_LAYERS = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL",
    "Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv",
}  # fmt: skip


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


class _StandIn(Ranges):
    """Ranges that stand in for measured ones: no figure of a report depends on them, but for
    what a function cannot put out."""

    def __init__(self) -> None:
        super().__init__(None, "minmax")

    def of(self, tensor: Tensor) -> Range | None:
        return tensor.range or (-1.0, 1.0)


def _picture(source: Model) -> bool:
    """Whether the input has the shape of a picture, of one colour or three."""
    shape = source.inputs[0].shape if len(source.inputs) == 1 else ()
    return len(shape) == 4 and shape[-1] in (1, 3)


def check(
    model: bytes | Model,
    kmodel: int = 4,
    small_maps: SmallMaps = "padded",
    runtime: str | None = None,
) -> Report:
    """Look at a model for kmodel 3 or 4 and a runtime of ``kmodel.runtimes`` (None: any that has
    all layers); raises :class:`BadModel` for what is no model.

    It is compiled as :func:`k210tasks.compiler.compile` would, but for what samples tell: a
    picture is taken to be fed with pixels, anything else with tensors.
    """
    source = opened(model)
    fed: Fed = "pixels" if _picture(source) else "tensors"
    options = Options(kmodel, fed=fed, small_maps=small_maps, runtime=runtime)
    refused: list[CompileError] = []
    try:
        graph, contract = prepared(source, None, options, refused)
    except UnsupportedOps as error:
        reasons = {op.label: tuple(found) for op, found in error.found}
        return Report(kmodel, _rows(source, {}, reasons))
    except SeveralInputs as error:
        return Report(kmodel, _rows(source, {}, {}), (str(error),))
    except Unsupported as error:
        refused.append(error)
    if refused:
        return _refused(source, kmodel, refused)
    rows = _rows(source, _where(graph), {})
    for op in graph.ops:
        if op.output.range is None and isinstance(op, ops.Activated):
            op.output.range = through(op.fn, -1.0, 1.0)
    try:
        made = finished(graph, _StandIn(), contract, options)
    except CompileError as error:
        return Report(kmodel, rows, (str(error),))
    listed = made.listed
    return Report(
        kmodel,
        rows,
        () if made.too_large is None else (str(made.too_large),),
        kpu_bytes=listed.kpu_bytes,
        main_bytes=listed.main_bytes,
        model_bytes=len(made.kmodel),
        estimated_kpu_ms=listed.estimated_kpu_ms,
        layers=len(listed.layers),
    )


def _refused(source: Model, kmodel: int, refused: list[CompileError]) -> Report:
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
    if isinstance(op, ops.KpuConv):
        return {"KPU"}
    if isinstance(
        op, (ops.Reshape, ops.KpuConcat, ops.KpuPart, ops.Upload, ops.Quantize, ops.Dequantize)
    ):
        return set()
    return {"CPU"}


def _rows(
    source: Model, where: dict[str, set[str]], reasons: dict[str, tuple[str, ...]]
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
