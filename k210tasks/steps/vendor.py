"""The vendor's compilers, fed from ``calibration.npz``: nncase 1.x, ncc 0.1 and 0.2."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.preprocess import Preprocess
from k210tasks.steps.calibrate import preprocess_of
from k210tasks.steps.job import Job, StepFailed
from k210tasks.steps.made import Made, model_input, model_outputs
from k210tasks.steps.npz import extract
from k210tasks.steps.signature import Signature, require_float
from k210tasks.steps.tools import toolchain


class BadCalibration(StepFailed):
    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"{shown} does not hold samples for a vendor's compiler: {why}")


def compile_nncase(job: Job, signature: Signature) -> Made:
    """kmodel 5; its listing is nncase's own summary, since the format tells no layers."""
    from k210tasks.toolchains import nncase

    name = job.settings["compiler"]
    require_float(signature, job.file("tflite").as_posix(), name)
    preprocess = preprocess_of(job.settings)
    with tempfile.TemporaryDirectory() as scratch:
        samples = Path(scratch, "samples.npy")
        _extract(job, samples)
        pixels = _is_pixels(samples)
        if pixels and len(signature.input.shape) != 4:
            # nncase takes raw pixels only where it sees channels; others get their floats.
            _normalise(samples, preprocess, signature.input.shape[1:])
            pixels = False
        told = nncase.compile(
            toolchain(job, name),
            tflite=job.file("tflite"),
            samples=samples,
            method=job.settings["method"],
            mean=preprocess.effective_mean,
            std=preprocess.effective_std,
            out=job.outputs["kmodel"],
            log=job.log,
            progress=job.progress,
        )
    memory: dict[str, int] = told["memory"]
    main = memory["total"] - memory["model"] if {"total", "model"} <= memory.keys() else None
    return Made(
        input=model_input(signature, preprocess, pixels=pixels),
        outputs=model_outputs(signature, job.settings["kmodel"]),
        listing=told["listing"],
        main_bytes=main,
    )


def compile_ncc(job: Job, signature: Signature) -> Made:
    """kmodel 3 or 4; the samples are handed over as files, one each, under their own names."""
    from k210tasks.toolchains import ncc

    name = job.settings["compiler"]
    require_float(signature, job.file("tflite").as_posix(), name)
    preprocess = preprocess_of(job.settings)
    with tempfile.TemporaryDirectory() as scratch:
        samples, folder = Path(scratch, "samples.npy"), Path(scratch, "samples")
        _extract(job, samples)
        pixels = _is_pixels(samples)
        _write_files(samples, _names(job), folder)
        told = ncc.compile(
            toolchain(job, name),
            tflite=job.file("tflite"),
            samples_dir=folder,
            raw=not pixels,
            method=job.settings["method"],
            mean=preprocess.effective_mean,
            std=preprocess.effective_std,
            out=job.outputs["kmodel"],
            log=job.log,
        )
    job.log.write(f"{told}\n")
    return listed(
        job.outputs["kmodel"].read_bytes(), signature, preprocess, job.settings["kmodel"], pixels
    )


def listed(
    kmodel: bytes, signature: Signature, preprocess: Preprocess, version: int, pixels: bool
) -> Made:
    """What the bytes of a kmodel 3 or 4 tell."""
    from k210tasks.kmodel import listing, parse

    summary: Any = listing.summary(parse(kmodel))
    return Made(
        input=model_input(signature, preprocess, pixels=pixels),
        outputs=model_outputs(signature, version),
        listing=listing.listing_text(summary),
        kpu_bytes=summary.kpu_bytes,
        main_bytes=summary.main_bytes,
    )


def _extract(job: Job, to: Path) -> None:
    if "calibration" not in job.inputs:
        from k210tasks.steps.kmodel import WithoutSamples

        raise WithoutSamples(job.settings["compiler"], job.model)
    shown = job.file("calibration").as_posix()
    try:
        extract(job.file("calibration"), "samples", to)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise BadCalibration(shown, str(error)) from error


def _names(job: Job) -> list[str]:
    with np.load(job.file("calibration"), allow_pickle=False) as file:
        return [str(name) for name in file["files"]]


def _is_pixels(samples: Path) -> bool:
    return bool(np.load(samples, mmap_mode="r").dtype == np.uint8)


def _normalise(samples: Path, preprocess: Preprocess, shape: tuple[int, ...]) -> None:
    """Replace raw pixels by what the float model is fed, in a model's own shape."""
    raw: NDArray[np.uint8] = np.load(samples)
    mean, std = preprocess.effective_mean, preprocess.effective_std
    table = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    np.save(samples, table[raw].reshape(len(raw), *shape))


def _write_files(samples: Path, names: list[str], folder: Path) -> None:
    """Pixels as PNG (nothing is lost), tensors as raw float32, planar."""
    from PIL import Image

    for name, sample in zip(names, np.load(samples, mmap_mode="r"), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if sample.dtype == np.uint8:
            picture = sample[0] if sample.shape[0] == 1 else sample.transpose(1, 2, 0)
            # The old suffix stays in the name: a.jpg and a.png are two samples.
            Image.fromarray(np.ascontiguousarray(picture)).save(path.with_name(path.name + ".png"))
        else:
            path.with_name(path.name + ".bin").write_bytes(sample.astype("<f4").tobytes())
