"""The built-in compiler as the ``kmodel`` step calls it: files and settings to bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from k210tasks import compiler
from k210tasks.engine.job import Job
from k210tasks.firmware.contract import Input, Output, of_each
from k210tasks.samples.folder import Kind
from k210tasks.samples.loading import picture_shape
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps.made import Made, in_shape, model_input, read_kmodel
from k210tasks.steps.settings import BuiltinSettings
from k210tasks.steps.signature import Signature

if TYPE_CHECKING:
    from k210tasks.reference.float_model import Given

NO_PICTURES = (
    "compiled without samples, the model is fed with codes of its file's own scale; if these are "
    "to be raw pixels, state preprocess.mean and preprocess.std"
)


def compile(job: Job, model: Given, signature: Signature) -> Made:
    """kmodel 3 or 4. The calibration may be missing only where the model needs none."""
    asked = job.told(BuiltinSettings)
    preprocess = asked.preprocess
    calibration = None
    if "calibration" in job.inputs:
        calibration = compiler.Calibration.from_npz(job.file("calibration"))
    options = compiler.Options(
        kmodel=asked.kmodel,
        method=asked.method,
        effort=asked.effort,
        weights=asked.weights,
        opcodes=asked.opcodes,
        small_maps=asked.small_maps,
        input=asked.input,
        mean=preprocess.mean,
        std=preprocess.std,
        runtime=asked.runtime,
    )
    result = compiler.compile(model, calibration, options, progress=job.progress)
    job.outputs["kmodel"].write_bytes(result.kmodel)
    read_kmodel(job)
    taken_for_codes = calibration is None and result.fed == "tensors"
    doubtful = taken_for_codes and not isinstance(picture_shape(signature.input.shape), str)
    return Made(
        input=_input(result, signature, preprocess),
        outputs=tuple(Output(p.name, p.shape, p.dtype) for p in result.outputs),
        layers=result.layers,
        listing=result.listing,
        kpu_bytes=result.kpu_bytes,
        main_bytes=result.main_bytes,
        warnings=(NO_PICTURES,) if doubtful else (),
    )


def _input(made: compiler.Compiled, signature: Signature, preprocess: Preprocess) -> Input:
    """The contract's input. A map of grey pixels is what cameras give, whatever the file calls
    it; the codes of a tensor are fed in the file's own shape, which may hold some more."""
    kind: Kind = "images" if made.fed == "pixels" else "tensors"
    given = model_input(signature, preprocess, kind=kind, dtype=made.input.dtype)
    if given.dtype == "float32":
        return given
    scale, zero = made.input.scale, made.input.zero_point
    given = replace(given, scale=scale, zero_point=None if zero is None else of_each(float, zero))
    if kind == "images":
        return given
    return in_shape(given, made.input.shape)
