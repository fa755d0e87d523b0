"""The built-in compiler as the ``kmodel`` step calls it: files and settings to bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from k210tasks import compiler
from k210tasks.engine.job import Job
from k210tasks.steps.calibrate import preprocess_of
from k210tasks.steps.made import Made, model_input, output_of, read_kmodel
from k210tasks.steps.signature import Signature


def compile(job: Job, signature: Signature) -> Made:
    """kmodel 3 or 4. The calibration may be missing only where the model needs none."""
    settings = job.settings
    preprocess = preprocess_of(settings)
    calibration = None
    if "calibration" in job.inputs:
        calibration = compiler.Calibration.from_npz(job.file("calibration"))
    options = compiler.Options(
        kmodel=settings["kmodel"],
        method=settings["method"],
        effort=settings["effort"],
        weights=settings["weights"],
        opcodes=settings["opcodes"],
        small_maps=settings["small_maps"],
        input=settings["input"],
        mean=preprocess.effective_mean,
        std=preprocess.effective_std,
        color=preprocess.color,
        runtime=settings["runtime"],
    )
    result = compiler.compile(
        job.file("tflite").read_bytes(), calibration, options, progress=job.progress
    )
    job.outputs["kmodel"].write_bytes(result.kmodel)
    read_kmodel(job)
    given: dict[str, Any] = result.input
    pixels = given["dtype"] == "uint8"
    return Made(
        input=replace(
            model_input(signature, preprocess, pixels=pixels),
            scale=given.get("scale") if pixels else None,
            zero_point=given.get("zero_point") if pixels else None,
        ),
        outputs=tuple(output_of(fields) for fields in result.outputs),
        layers=result.layers,
        listing=result.listing,
        kpu_bytes=result.kpu_bytes,
        main_bytes=result.main_bytes,
        warnings=tuple(result.warnings),
    )
