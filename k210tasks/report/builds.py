"""What is known of one kmodel file: from its bytes, the compiler's rows and the measurement.

The same for today's file and for an earlier one out of the store, so that the two can be
compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import LayerFigures, Measurement
from k210tasks.compiler.options import CompiledLayer
from k210tasks.kmodel import KmodelError, detect, parse
from k210tasks.kmodel.listing import LayerRow, summary
from k210tasks.kmodel.residence import residents
from k210tasks.report.facts import Accuracy, Build, Layer
from k210tasks.wording import shape


def build_of(
    title: str,
    kmodel: bytes,
    table: LayerTable | None,
    measured: Measurement | None,
    *,
    main_bytes: int | None = None,
    built: float | None = None,
) -> Build:
    """``table``, ``measured``: of this very file, as far as they are known. ``main_bytes``: where
    the format itself does not tell."""
    made = () if table is None else table.layers
    rows = {row.index: row for row in made if isinstance(row, CompiledLayer)}
    errors = {} if measured is None else {row.index: row for row in measured.layers}
    told = None if table is None else table.main_bytes
    build = Build(
        title=title,
        sha256=hashlib.sha256(kmodel).hexdigest(),
        compiler=None if table is None else table.compiler,
        nbytes=len(kmodel),
        main_bytes=told if told is not None else main_bytes,
        accuracy=None if measured is None else accuracy_of(measured),
        built=built,
    )
    try:
        version = detect(kmodel).version
    except KmodelError as error:
        return replace(build, notes=(str(error),))
    build = replace(build, kmodel=version)
    if version not in (3, 4):
        return replace(
            build,
            kpu_bytes=None if table is None else table.kpu_bytes,
            notes=(f"the layers of a kmodel {version} are not told by the file",),
        )
    try:
        model = parse(kmodel)
        found = summary(model)
        placed = tuple(residents(model))
    except (KmodelError, ArithmeticError, ValueError, IndexError) as error:
        return replace(build, notes=(str(error),))
    return replace(
        build,
        kpu_bytes=found.kpu_bytes,
        main_bytes=found.main_bytes,
        macs=found.macs,
        estimated_ms=found.estimated_kpu_ms,
        layers=tuple(
            _layer(row, rows.get(row.index), errors.get(row.index)) for row in found.layers
        ),
        residents=placed,
        notes=found.notes,
    )


def _layer(row: LayerRow, told: CompiledLayer | None, error: LayerFigures | None) -> Layer:
    kpu = row.kpu
    kernel = ""
    if kpu is not None:
        kernel = f"{kpu.kernel}x{kpu.kernel}{' depthwise' if kpu.depthwise else ''}"
    return Layer(
        index=row.index,
        name=row.name,
        # The compiler knows the shapes the file does not tell.
        input=shape(row.input if told is None else told.input_shape),
        output=shape(row.output if told is None else told.output_shape),
        runs_on="KPU" if kpu is not None else "CPU",
        kernel=kernel,
        pool=kpu.pool if kpu and kpu.pool != "none" else "",
        macs=kpu.macs if kpu else None,
        weight_bytes=kpu.weight_bytes if kpu else None,
        rows_in=kpu.rows_in if kpu else None,
        rows_out=kpu.rows_out if kpu else None,
        estimated_us=kpu.estimated_us if kpu else None,
        source=() if told is None else told.source,
        tensor="" if told is None else told.output,
        snr_db=None if error is None else error.snr_db,
        cosine=None if error is None else error.cosine_mean,
    )


def accuracy_of(m: Measurement) -> Accuracy | None:
    """The figures of the worst output; None where nothing was measured."""
    if not m.outputs:
        return None
    worst, right, runtime = m.worst_output, m.accuracy, ""
    if m.runtime is not None:
        runtime = m.runtime.title + ("" if m.runtime.recorded else " (not recorded)")
    tops = [o.top1_agreement for o in m.outputs if o.top1_agreement is not None]
    return Accuracy(
        cosine=worst.cosine_mean,
        snr_db=worst.snr_db,
        max_abs_error=worst.max_abs_error,
        top1=min(tops, default=None),
        f1=None if m.boxes is None else m.boxes.f1,
        overlap=None if m.boxes is None else m.boxes.mean_overlap,
        float_accuracy=None if right is None else right.float_model,
        kmodel_accuracy=None if right is None else right.kmodel,
        samples=m.samples,
        held_out=m.held_out,
        runtime=runtime,
    )
