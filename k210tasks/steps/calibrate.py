"""``calibrate``: what the chosen samples tell about a model, in the form its compiler wants.

Vendor compilers measure by themselves and are given the samples: ``samples`` (N, C, H, W),
uint8 pixels or float32 tensors, (N, …) where the input is no feature map, and ``files``,
their names. The built-in compiler is given ranges, measured here by running the float
model. Neither depends on ``calibrate.method``, so changing that repeats nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.engine.job import Folder, Job, StepFailed
from k210tasks.npz import NpzWriter
from k210tasks.samples.folder import Kind, evenly_spaced, kind_of_sample
from k210tasks.samples.loading import Loader, Sample, picture_shape, planar
from k210tasks.samples.seen import Seen
from k210tasks.steps.settings import CalibrateSettings
from k210tasks.steps.signature import model_of

if TYPE_CHECKING:
    from k210tasks.reference.float_model import Given


def run(job: Job) -> None:
    """Inputs: tflite, images. Settings: CalibrateSettings. Outputs: calibration, seen."""
    asked = job.told(CalibrateSettings)
    model, signature = model_of(job, asked.inputs)
    folder = job.folder("images")
    if not folder.files:
        raise StepFailed(f"{folder.path.as_posix()} holds no sample to calibrate with")
    loader = Loader(signature.input.shape, asked.preprocess, signature.input.planar)
    folder = each_sample(folder, loader, asked.samples)
    job.log.write(f"{len(folder.files)} samples of {folder.path.as_posix()}\n")
    if folder.ignored:
        job.log.write(f"{_others(folder)}\n")
        job.say(f"   {job.name}: {_others(folder)}")
    job.log.writelines(f"  {name}\n" for name in folder.files)
    seen = Seen()
    samples = seen.each(_samples(loader, folder))
    if asked.family == "builtin":
        _measure(job, model, folder, samples)
    else:
        _collect(job, loader, folder, samples)
    job.outputs["seen"].write_text(seen.to_json(), "utf-8")


def _samples(loader: Loader, folder: Folder) -> Iterator[Sample]:
    for name in folder.files:
        yield loader.load(folder.path / name, f"{folder.path.as_posix()}/{name}")


def _others(folder: Folder) -> str:
    files = "file" if folder.ignored == 1 else "files"
    return f"{folder.ignored} other {files} in {folder.path.as_posix()} ignored"


def folder_kind(folder: Folder) -> Kind:
    """ "images" or "tensors": a folder holds only one of them."""
    return kind_of_sample(folder.files[0].rsplit("/", 1)[-1]) or "images"


def each_sample(folder: Folder, loader: Loader, count: int | None = None) -> Folder:
    """The folder with a name for each sample, also of files that hold many; ``count`` of them,
    evenly spaced."""
    names = loader.names(folder.path, folder.files)
    return replace(folder, files=evenly_spaced(names, count))


def _collect(job: Job, loader: Loader, folder: Folder, samples: Iterator[Sample]) -> None:
    """Write the samples themselves, as the kmodel will be fed them."""
    pictures = folder_kind(folder) == "images"

    def arrays() -> Iterator[NDArray[Any]]:
        for number, sample in enumerate(samples):
            yield planar(sample.tensor) if sample.pixels is None else sample.pixels
            job.progress(number + 1, len(folder.files), "reading samples")

    shape = planar(np.empty(loader.shape, np.uint8)).shape
    picture = picture_shape(loader.shape)
    if pictures and not isinstance(picture, str):
        shape = (picture[2], *picture[:2])
    dtype = np.dtype(np.uint8 if pictures else np.float32)
    with NpzWriter(job.outputs["calibration"]) as writer:
        writer.stack("samples", (len(folder.files), *shape), dtype, arrays())
        writer.array("files", np.array(folder.files))


def _measure(job: Job, model: Given, folder: Folder, samples: Iterator[Sample]) -> None:
    """Let the built-in compiler run the float model on every sample."""
    from k210tasks.reference.float_model import measure_to

    measure_to(
        job.outputs["calibration"],
        model,
        (sample.tensor for sample in samples),
        total=len(folder.files),
        fed="pixels" if folder_kind(folder) == "images" else "tensors",
        progress=job.progress,
    )
