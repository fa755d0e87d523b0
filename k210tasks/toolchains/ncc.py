"""Compiling with the command line programs ncc 0.1 (kmodel 3) and ncc 0.2 (kmodel 4).

Their two command lines have nothing in common. Both decide by a calibration data set in a
folder; :func:`write_samples` makes one. Pictures there are taken as (x / 255 - mean) / std.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TextIO

from k210tasks.npz import mapped
from k210tasks.samples.preprocess import PerChannel, as_text
from k210tasks.store.scratch import scratch_folder
from k210tasks.toolchains.archive import ArchiveToolchain
from k210tasks.toolchains.errors import BadRequest, OperationFailed, WorkerDied
from k210tasks.toolchains.fit_for_vendor import require_float
from k210tasks.toolchains.messages import explain, warnings
from k210tasks.toolchains.program import run
from k210tasks.toolchains.toolchain import Toolchain
from k210tasks.toolchains.worker import Json

#: command line -> the bytes its kmodels start with, and what such a file is called
MAGIC = {
    "0.1": (b"\x03\x00\x00\x00", "kmodel 3"),
    "0.2": (b"LDMK\x04\x00\x00\x00", "kmodel 4"),
}
METHODS = {"0.1": ("minmax",), "0.2": ("no_clip", "l2")}
PICTURES = (".bmp", ".jpeg", ".jpg", ".png")


class NoMagic(OperationFailed):
    """The program reported success and wrote something else, or nothing."""

    def __init__(self, name: str, doing: str, start: bytes, wanted: str, log: str | None):
        wrote = f"a file that starts with {start.hex(' ')}" if start else "no file"
        super().__init__(
            name,
            doing,
            f"it ended as if all were well, but wrote {wrote} instead of a {wanted}",
            log,
        )


def compile(
    toolchain: Toolchain,
    *,
    tflite: Path,
    samples_dir: Path,
    raw: bool,
    method: str,
    mean: PerChannel,
    std: PerChannel,
    out: Path,
    log: TextIO | None = None,
) -> Json:
    """Write the kmodel of a float ``.tflite`` to ``out``.

    ``samples_dir`` holds pictures, their channels in the order the model expects them, or with
    ``raw`` float32 files of the model's input, CHW.
    Returns ``{"bytes", "kmodel", "warnings", "printed"}``. Success is an exit code of 0 and a
    file of the right magic and version; all else is an error with what the program said.
    """
    assert isinstance(toolchain, ArchiveToolchain)
    toolchain.require()
    cli = toolchain.tool.cli
    doing = f"compiling {tflite.name}"
    if method not in METHODS[cli]:
        raise BadRequest(
            f"{toolchain.name} has no calibration method {method!r}; it has: "
            + ", ".join(METHODS[cli])
        )
    if isinstance(mean, tuple) or isinstance(std, tuple):
        raise BadRequest(
            f"{toolchain.name} knows one mean and one std for all channels, not mean "
            f"{as_text(mean)} with std {as_text(std)}. Use compiler: builtin or nncase-1.9.0, or "
            "build the normalisation into the model"
        )
    if std == 0:
        raise BadRequest("std is what pixels are divided by; it must not be 0")
    require_float(tflite)
    _check_samples(samples_dir, raw)
    with scratch_folder() as scratch:
        # 0.1 needs an output path with a folder part, and makes up its own suffix
        written = scratch / "out" / "model.kmodel"
        written.parent.mkdir()
        arguments = _ARGUMENTS[cli](
            tflite.absolute(), samples_dir.absolute(), raw, method, mean, std, written
        )
        ending = run(
            [str(toolchain.program), *arguments],
            environment=toolchain.tool.environment,
            folder=scratch,
            log=log,
        )
        log_name = getattr(log, "name", None)
        if ending.code < 0:
            raise WorkerDied(toolchain.name, doing, ending.how, explain(ending.printed), log_name)
        if ending.code:
            told = explain(ending.printed) or "without a word"
            raise OperationFailed(toolchain.name, doing, f"{told} ({ending.how})", log_name)
        magic, what = MAGIC[cli]
        start = b""
        if written.is_file():
            with written.open("rb") as file:
                start = file.read(len(magic))
        if start != magic:
            # 0.1 has been seen to fail with an exit code of 0
            if "Fatal:" in ending.printed:
                raise OperationFailed(toolchain.name, doing, explain(ending.printed), log_name)
            raise NoMagic(toolchain.name, doing, start, what, log_name)
        shutil.copyfile(written, out)
    return {
        "bytes": out.stat().st_size,
        "kmodel": int(what[-1]),
        "warnings": warnings(ending.printed),
        "printed": ending.printed,
    }


def _arguments_01(
    tflite: Path, samples: Path, raw: bool, method: str, mean: float, std: float, out: Path
) -> list[str]:
    known = {(0.0, 1.0): [], (0.5, 0.5): ["--postprocess", "n1to1"]}
    normalise = [] if raw else known.get((float(mean), float(std)))
    if normalise is None:
        raise BadRequest(
            f"ncc 0.1 knows only mean 0 with std 1, and mean 0.5 with std 0.5; not mean {mean:g} "
            f"with std {std:g}. Use another compiler:, or build the normalisation into the model"
        )
    kind = ["--dataset-format", "raw"] if raw else []
    return ["-i", "tflite", "-o", "k210model", "--dataset", str(samples), *kind, *normalise,
            str(tflite), str(out)]  # fmt: skip


def _arguments_02(
    tflite: Path, samples: Path, raw: bool, method: str, mean: float, std: float, out: Path
) -> list[str]:
    if raw:  # no mean and std: the range of the input is then that of the samples
        kind = ["--dataset-format", "raw", "--input-type", "float"]
    else:
        kind = ["--dataset-format", "image", "--input-type", "uint8"]
        kind += ["--input-mean", _decimal(mean), "--input-std", _decimal(std)]
    return ["compile", str(tflite), str(out), "-i", "tflite", "-t", "k210",
            "--dataset", str(samples), *kind, "--calibrate-method", method,
            # the solver has a time limit, so that its result would depend on the machine's load
            "--max-allocator-solve-secs", "0"]  # fmt: skip


_ARGUMENTS = {"0.1": _arguments_01, "0.2": _arguments_02}


def _decimal(value: float) -> str:
    """Without an exponent, which the program's option parser may not take."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text or "0"


def _check_samples(folder: Path, raw: bool) -> None:
    if not folder.is_dir():
        raise BadRequest(f"the folder of calibration samples {folder} does not exist")
    files = [p for p in folder.rglob("*") if p.is_file()]
    fit = [p for p in files if raw or p.suffix.lower() in PICTURES]
    if not fit:
        kinds = "float32 files" if raw else "pictures (" + ", ".join(PICTURES) + ")"
        raise BadRequest(
            f"the folder of calibration samples {folder} holds no {kinds}, which it must"
        )


def write_samples(samples: Path, folder: Path) -> bool:
    """Make the data set of an .npy of samples, (N, C, H, W), in the empty ``folder``.

    uint8 pixels become PNG files without loss, float32 model inputs raw files. Returns
    whether they are raw. Raises :class:`BadRequest` for another type or 2 or 4 channels.
    """
    import numpy as np

    array = mapped(samples)
    raw = array.dtype == np.float32
    if not raw and (array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3)):
        raise BadRequest(
            "ncc is calibrated with uint8 pictures of 1 or 3 channels or with float32 tensors, "
            f"not with {array.dtype.name} samples of shape {list(array.shape[1:])}"
        )
    for number, sample in enumerate(array):
        if raw:
            (folder / f"{number:06}.bin").write_bytes(np.ascontiguousarray(sample).tobytes())
            continue
        from PIL import Image

        pixels = sample[0] if sample.shape[0] == 1 else np.moveaxis(sample, 0, -1)
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{number:06}.png")
    return raw
