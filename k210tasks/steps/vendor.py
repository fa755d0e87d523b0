"""The vendor's compilers, fed from ``calibration.npz``: nncase 1.x, ncc 0.1 and 0.2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from k210tasks.engine.job import Job, StepFailed
from k210tasks.npz import BadArrays, extract, mapped
from k210tasks.samples.folder import Kind
from k210tasks.samples.loading import normalise
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps.made import Made, in_shape, model_input, model_outputs, read_kmodel
from k210tasks.steps.settings import KmodelSettings
from k210tasks.steps.signature import Signature, require_float
from k210tasks.steps.tools import toolchain
from k210tasks.store.scratch import scratch_folder

if TYPE_CHECKING:
    from k210tasks.reference.float_model import Given


class WithoutSamples(StepFailed):
    def __init__(self, compiler: str, model: str) -> None:
        super().__init__(
            f"{compiler} needs images to calibrate {model}; name a folder of them under images:"
        )


class NoOnnx(StepFailed):
    def __init__(self, compiler: str, shown: str) -> None:
        super().__init__(
            f"{compiler} reads no ONNX: {shown}; the built-in compiler and nncase-1.9.0 do"
        )


class BadCalibration(StepFailed):
    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"{shown} does not hold samples for a vendor's compiler: {why}")


def compile_nncase(job: Job, model: Given, signature: Signature) -> Made:
    """kmodel 5; its listing is nncase's own summary, since the format tells no layers."""
    from k210tasks.toolchains import nncase

    asked = job.told(KmodelSettings)
    name = asked.compiler
    require_float(signature, job.file("tflite").as_posix(), name)
    preprocess = asked.preprocess
    with scratch_folder() as scratch:
        samples = Path(scratch, "samples.npy")
        _extract(job, samples)
        pixels = _is_pixels(samples)
        kind: Kind = "images" if pixels else "tensors"
        if pixels and len(signature.input.shape) != 4:
            # nncase takes raw pixels only where it sees channels; others get their floats.
            _normalise(samples, preprocess, signature.input.shape[1:])
            pixels = False
        told = nncase.compile(
            toolchain(job, name),
            model=job.file("tflite"),
            onnx_shape=None if isinstance(model, bytes) else signature.input.shape,
            samples=samples,
            method=asked.method,
            mean=preprocess.effective_mean,
            std=preprocess.effective_std,
            out=job.outputs["kmodel"],
            log=job.log,
            progress=job.progress,
        )
    memory: dict[str, int] = told["memory"]
    main = memory["total"] - memory["model"] if {"total", "model"} <= memory.keys() else None
    return Made(
        input=model_input(signature, preprocess, kind=kind, dtype="uint8" if pixels else "float32"),
        outputs=model_outputs(signature, asked.kmodel),
        listing=told["listing"],
        main_bytes=main,
    )


def compile_ncc(job: Job, model: Given, signature: Signature) -> Made:
    """kmodel 3 or 4; the samples are handed over as files, one each."""
    from k210tasks.toolchains import ncc

    asked = job.told(KmodelSettings)
    name = asked.compiler
    if not isinstance(model, bytes):
        raise NoOnnx(name, job.file("tflite").as_posix())
    require_float(signature, job.file("tflite").as_posix(), name)
    preprocess = asked.preprocess
    with scratch_folder() as scratch:
        samples, folder = Path(scratch, "samples.npy"), Path(scratch, "samples")
        _extract(job, samples)
        folder.mkdir()
        raw = ncc.write_samples(samples, folder)
        told = ncc.compile(
            toolchain(job, name),
            tflite=job.file("tflite"),
            samples_dir=folder,
            raw=raw,
            method=asked.method,
            mean=preprocess.effective_mean,
            std=preprocess.effective_std,
            out=job.outputs["kmodel"],
            log=job.log,
        )
    made = listed(read_kmodel(job), signature, preprocess, "tensors" if raw else "images")
    return replace(made, warnings=tuple(told["warnings"]))


def listed(kmodel: bytes, signature: Signature, preprocess: Preprocess, kind: Kind) -> Made:
    """What the bytes of a kmodel 3 or 4 tell of one that is fed with samples of ``kind``."""
    from k210tasks.kmodel import parse
    from k210tasks.kmodel.listing import listing_text, summary

    seen = summary(parse(kmodel))
    port = seen.inputs[0] if seen.inputs else None
    codes = port is not None and port.dtype == "uint8"
    given = model_input(signature, preprocess, kind=kind, dtype="uint8" if codes else "float32")
    if port is not None and codes:
        zero = given.zero_point if port.zero_point is None else port.zero_point
        scale = given.scale if port.scale is None else port.scale
        given = replace(given, scale=scale, zero_point=zero)
        if kind == "tensors" and port.shape is not None:
            given = in_shape(given, port.shape[1:])
    return Made(
        input=given,
        outputs=model_outputs(signature, seen.version),
        layers=seen.layers,
        listing=listing_text(seen),
        kpu_bytes=seen.kpu_bytes,
        main_bytes=seen.main_bytes,
    )


def _extract(job: Job, to: Path) -> None:
    if "calibration" not in job.inputs:
        raise WithoutSamples(job.told(KmodelSettings).compiler, job.model)
    shown = job.file("calibration").as_posix()
    try:
        extract(job.file("calibration"), "samples", to)
        mapped(to)
    except (BadArrays, OSError) as error:
        raise BadCalibration(shown, str(error)) from error


def _is_pixels(samples: Path) -> bool:
    return bool(mapped(samples).dtype == np.uint8)


def _normalise(samples: Path, preprocess: Preprocess, shape: tuple[int, ...]) -> None:
    """Replace raw pixels by what the float model is fed, in a model's own shape."""
    raw: NDArray[np.uint8] = np.array(mapped(samples))
    real = normalise(raw, preprocess.effective_mean, preprocess.effective_std)
    np.save(samples, real.reshape(len(raw), *shape))
