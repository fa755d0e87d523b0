"""``vectors``: a few verify images as the bytes a board feeds its model, with the bytes it
must get back, so that a firmware can check itself.

Beside them the contract as a C header, an index, and for MicroPython a script that does
the check.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.engine.job import Job
from k210tasks.firmware import selfcheck
from k210tasks.firmware.c_header import c_header
from k210tasks.firmware.contract import Contract
from k210tasks.jsondata import plain, pretty
from k210tasks.profiles import PROFILES
from k210tasks.samples.loading import Loader
from k210tasks.steps.calibrate import each_sample
from k210tasks.steps.engines import engine_for
from k210tasks.steps.measure import feed
from k210tasks.steps.settings import VectorsSettings
from k210tasks.steps.tools import toolchain

#: Form of index.json.
FORMAT = 1
#: Steps between black and full intensity of an RGB565 pixel.
_RGB565 = (31, 63, 31)


@dataclass(frozen=True, slots=True)
class Vector:
    """``image`` as the files of raw bytes that go into the model and come out of it."""

    name: str
    image: str
    input: str
    outputs: tuple[str, ...]


def run(job: Job) -> None:
    """Inputs: kmodel, contract, images (if there are any). Settings: VectorsSettings. Outputs:
    vectors, a folder."""
    asked = job.told(VectorsSettings)
    contract = Contract.from_json(job.file("contract").read_bytes())
    profile = PROFILES[asked.firmware]
    out = job.outputs["vectors"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "contract.h").write_text(c_header(contract), "ascii", newline="\n")

    rounded = selfcheck.feeds_rgb565(contract, profile)
    vectors: list[Vector] = []
    if "images" in job.inputs and (folder := job.folder("images")).files:
        shape = (1, *contract.input.tensor_shape)
        planar = (1, *contract.input.shape) if asked.channels_first and len(shape) == 4 else None
        loader = Loader(shape, asked.preprocess, planar)
        folder = each_sample(folder, loader, asked.samples)
        inputs = np.stack(
            [
                feed(contract.input, loader.load(folder.path / f, f"{folder.path.as_posix()}/{f}"))
                for f in folder.files
            ]
        )
        if rounded:
            inputs = rgb565(inputs)
        engine = engine_for(
            contract.kmodel,
            job.file("kmodel"),
            lambda name: toolchain(job, name),
            job.log,
            profile.runtime,
        )
        for i, (image, given, outputs) in enumerate(
            zip(folder.files, inputs, engine.run(inputs), strict=True)
        ):
            written = {f"{i}.input.bin": given}
            written |= {f"{i}.output{j}.bin": output for j, output in enumerate(outputs)}
            for name, array in written.items():
                (out / name).write_bytes(_bytes(array))
            first, *others = written
            vectors.append(Vector(str(i), image, first, tuple(others)))
            job.progress(i + 1, len(folder.files), "simulating")

    why = selfcheck.why_not(contract, profile)
    if why is None and not vectors:
        why = "the model has no images to make vectors of: name images: or verify.images"
    if why is None:
        text = selfcheck.script(
            replace(contract, nbytes=job.file("kmodel").stat().st_size),
            profile,
            asked.address,
            [vector.name for vector in vectors],
        )
        (out / "check.py").write_text(text, "ascii", newline="\n")
    facts = plain(contract.to_file())
    index = {
        "format": FORMAT,
        "model": contract.model,
        "kmodel": facts["kmodel"],
        "input": facts["input"],
        "outputs": facts["outputs"],
        "colors_rounded_to_rgb565": rounded,
        "float_tolerance": selfcheck.TOLERANCE,
        "vectors": vectors,
        "script": None if why else "check.py",
        "no_script_because": why,
    }
    (out / "index.json").write_text(pretty(index), "utf-8", newline="\n")


def rgb565(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planes (…, 3, H, W) as they come back from an RGB565 image, nearest step each.

    ``pix_to_ai`` of MaixPy and CanMV scales a step back to 0..255 and rounds, so that a
    second time nothing changes.
    """
    steps = np.array(_RGB565)[:, None, None]
    codes = np.floor(planes * steps / 255 + 0.5)
    return np.floor(codes * 255 / steps + 0.5).astype(np.uint8)


def _bytes(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
