"""What is known of one kmodel file: from its bytes, the compiler's rows and the measurement.

The same for today's file and for an earlier one out of the store, so that the two can be
compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from k210tasks.kmodel import KmodelError, detect, parse
from k210tasks.kmodel.listing import LayerRow, summary
from k210tasks.kmodel.residence import residents
from k210tasks.report import lenient
from k210tasks.report.facts import Accuracy, Build, Layer
from k210tasks.report.lenient import Json


def build_of(
    title: str,
    kmodel: bytes,
    layers: Json,
    measured: Json,
    *,
    main_bytes: int | None = None,
    built: float | None = None,
) -> Build:
    """``layers``: of layers.json; ``measured``: of verify.json or measurement.json, for this
    very file; both may be empty. ``main_bytes``: where the format itself does not tell."""
    rows = {row.get("index"): row for row in lenient.mappings(layers.get("layers"))}
    errors = {row.get("index"): row for row in lenient.mappings(measured.get("layers"))}
    told = lenient.whole(layers.get("main_bytes"))
    build = Build(
        title=title,
        sha256=hashlib.sha256(kmodel).hexdigest(),
        compiler=lenient.text(layers.get("compiler")) or None,
        nbytes=len(kmodel),
        main_bytes=told if told is not None else main_bytes,
        accuracy=accuracy_of(measured),
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
            kpu_bytes=lenient.whole(layers.get("kpu_bytes")),
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
            _layer(row, rows.get(row.index, {}), errors.get(row.index, {})) for row in found.layers
        ),
        residents=placed,
        notes=found.notes,
    )


def _layer(row: LayerRow, told: Json, error: Json) -> Layer:
    kpu = row.kpu
    kernel = ""
    if kpu is not None:
        kernel = f"{kpu.kernel}x{kpu.kernel}{' depthwise' if kpu.depthwise else ''}"
    # The compiler knows the shapes the file does not tell.
    given = lenient.listed(told.get("input_shape")) or row.input
    made = lenient.listed(told.get("output_shape")) or row.output
    return Layer(
        index=row.index,
        name=row.name,
        input=lenient.shape(given),
        output=lenient.shape(made),
        runs_on="KPU" if kpu is not None else "CPU",
        kernel=kernel,
        pool=kpu.pool if kpu and kpu.pool != "none" else "",
        macs=kpu.macs if kpu else None,
        weight_bytes=kpu.weight_bytes if kpu else None,
        rows_in=kpu.rows_in if kpu else None,
        rows_out=kpu.rows_out if kpu else None,
        estimated_us=kpu.estimated_us if kpu else None,
        source=lenient.texts(told.get("source")),
        tensor=lenient.text(told.get("output")),
        snr_db=lenient.number(error.get("snr_db")),
        cosine=lenient.number(error.get("cosine_mean")),
    )


def accuracy_of(measured: Json) -> Accuracy | None:
    """The figures of the worst output; None where nothing was measured."""
    outputs = lenient.mappings(measured.get("outputs"))
    if not outputs:
        return None

    def mean(output: Json) -> float:
        found = lenient.number(output.get("cosine_mean"))
        return -2.0 if found is None else found

    worst = min(outputs, key=mean)
    tops = [lenient.number(o.get("top1_agreement")) for o in outputs]
    classes = lenient.mapping(measured.get("accuracy"))
    held_out = measured.get("held_out")
    return Accuracy(
        cosine=lenient.number(worst.get("cosine_mean")),
        snr_db=lenient.number(worst.get("snr_db")),
        max_abs_error=lenient.number(worst.get("max_abs_error")),
        top1=min((t for t in tops if t is not None), default=None),
        float_accuracy=lenient.number(classes.get("float")),
        kmodel_accuracy=lenient.number(classes.get("kmodel")),
        samples=lenient.whole(measured.get("samples")),
        held_out=held_out if isinstance(held_out, bool) else None,
        runtime=_runtime(lenient.mapping(measured.get("runtime"))),
    )


def _runtime(said: Json) -> str:
    """What was simulated, and whether its outputs were ever recorded."""
    title = said.get("title")
    if not isinstance(title, str):
        return ""
    return title if said.get("recorded") is True else f"{title} (not recorded)"
