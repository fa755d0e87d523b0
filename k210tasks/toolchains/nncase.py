"""Compiling to kmodel 5 and simulating it, in the nncase 1.x environment.

The contract of a kmodel that :func:`compile` writes:

* An image model (four dimensions, NHWC in TFLite) takes CHW: raw uint8 pixels where the
  samples were uint8, with ``(x / 255 - mean) / std`` done inside the kmodel; the model's own
  float32 input where they were float32, with mean and std left to the caller.
* Any other model takes its own float32 input.
* Outputs are float32, in TFLite's order and shapes (NHWC where four-dimensional); nncase
  has its own names for some of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from k210tasks.npz import BadArrays, mapped
from k210tasks.progress import Progress
from k210tasks.toolchains.errors import BadRequest, OperationFailed
from k210tasks.toolchains.fit_for_vendor import input_shape, require_float
from k210tasks.toolchains.toolchain import PythonToolchain, Toolchain
from k210tasks.toolchains.worker import Json

#: nncase's names for ways to pick a range; any other it takes silently for no_clip
METHODS = ("no_clip", "l2", "kld_m0", "kld_m1", "kld_m2", "cdf")
MAGIC = b"LDMK\x05\x00\x00\x00"


def compile(
    toolchain: Toolchain,
    *,
    model: Path,
    onnx_shape: Sequence[int] | None = None,
    samples: Path,
    method: str,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    out: Path,
    log: TextIO | None = None,
    progress: Progress | None = None,
) -> Json:
    """Write the kmodel 5 of a float ``.tflite``, or of an ``.onnx``, to ``out``.

    ``onnx_shape``: of the input of an ``.onnx``, with its batch, maps channels last.

    ``samples`` is an .npy of the calibration samples, (N, C, H, W) uint8 pixels or float32
    model inputs (for a model without image shape: (N, …) float32). Returns ``{"bytes",
    "input": {"dtype", "shape"}, "outputs": [{"name", "dtype", "shape"}], "memory": {section:
    bytes}, "listing": str}``, as nncase reports them.
    """
    assert isinstance(toolchain, PythonToolchain)
    if onnx_shape is None:
        shape = input_shape(model)
        require_float(model)
    else:
        shape = list(onnx_shape)
    _check_samples(samples, shape, model.name)
    if method not in METHODS:
        raise BadRequest(
            f"nncase has no calibration method {method!r}; it has: {', '.join(METHODS)}"
        )
    channels = shape[-1] if len(shape) == 4 else 1
    if 0 in _per_channel(std, channels):
        raise BadRequest("std is what pixels are divided by; it must not be 0")
    result = toolchain.worker().call(
        "compile",
        {
            "model": str(model.absolute()),
            "onnx": onnx_shape is not None,
            "samples": str(samples.absolute()),
            "method": method,
            "mean": _per_channel(mean, channels),
            "std": _per_channel(std, channels),
            "input_shape": shape,
            "out": str(out.absolute()),
        },
        doing=f"compiling {model.name}",
        log=log,
        progress=progress,
    )
    start = out.read_bytes()[:8] if out.exists() else b""
    if start != MAGIC:
        log_name = getattr(log, "name", None)
        raise OperationFailed(
            toolchain.name,
            f"compiling {model.name}",
            f"it wrote no kmodel 5: the file starts with {start.hex(' ') or 'nothing'}",
            log_name,
        )
    return {"bytes": out.stat().st_size, **read_summary(result["printed"])}


def simulate(
    toolchain: Toolchain,
    *,
    kmodel: Path,
    inputs: Path,
    out: Path,
    log: TextIO | None = None,
) -> Json:
    """Run a kmodel on every array of ``inputs`` (.npy, N first), loading it once.

    ``out`` becomes an .npz with ``output_0``, ``output_1``, …, each (N, …). Returns
    ``{"load_seconds", "run_seconds": [one per input], "input", "outputs"}``.
    """
    assert isinstance(toolchain, PythonToolchain)
    try:
        with kmodel.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise BadRequest(f"{kmodel} cannot be read: {error.strerror}") from error
    if start != MAGIC:
        raise BadRequest(
            f"{kmodel} is no kmodel 5, the only kind {toolchain.name} simulates: it starts with "
            + (start.hex(" ") or "nothing")
        )
    result = toolchain.worker().call(
        "simulate",
        {
            "kmodel": str(kmodel.absolute()),
            "inputs": str(inputs.absolute()),
            "out": str(out.absolute()),
        },
        doing=f"simulating {kmodel.name}",
        log=log,
    )
    result.pop("printed")
    return result


def _check_samples(samples: Path, shape: list[int], model: str) -> None:
    import numpy as np

    try:
        array = mapped(samples)
    except (OSError, BadArrays) as error:
        raise BadRequest(f"the calibration samples {samples} cannot be read: {error}") from error
    if len(shape) == 4:
        wanted: tuple[int, ...] = (shape[3], shape[1], shape[2])
        allowed: tuple[str, ...] = ("uint8", "float32")
    else:
        wanted, allowed = tuple(shape[1:]), ("float32",)
    fits = array.shape[1:] == wanted or (
        len(shape) != 4 and array.ndim > 0 and array[:1].size == int(np.prod(wanted))
    )
    if not fits or array.dtype.name not in allowed:
        raise BadRequest(
            f"{model} is calibrated with samples of shape {list(wanted)} and type "
            f"{' or '.join(allowed)}, but these are {list(array.shape[1:])} {array.dtype.name}"
        )
    if not len(array):
        raise BadRequest(f"{model} needs at least one calibration sample, got none")


def _per_channel(value: float | Sequence[float], channels: int) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if len(values) == 1:
        values *= channels
    if not all(math.isfinite(v) for v in values):
        raise BadRequest(f"mean and std must be finite numbers, not {values}")
    if len(values) != channels:
        raise BadRequest(f"mean and std have {len(values)} values for {channels} channels")
    return values


_TYPES = {"u8": "uint8", "i8": "int8", "f32": "float32"}
_PORT = re.compile(r"^(\d+)\t(.+)\t(\w+)\[([\d,]*)\]$")
_MEMORY = re.compile(r"^(\.?\w+)\s+.*\((\d+) B\)$")


def read_summary(printed: str) -> Json:
    """Inputs, outputs and memory from the summary nncase prints, and its text as a listing."""
    text = printed[printed.rfind("SUMMARY") :] if "SUMMARY" in printed else ""
    ports: dict[str, list[Json]] = {"INPUTS": [], "OUTPUTS": []}
    memory: dict[str, int] = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        port, used = _PORT.match(line), _MEMORY.match(line)
        if line in ports or line == "MEMORY USAGES":
            section = line
        elif port and section in ports:
            sizes = [int(n) for n in port[4].split(",") if n]
            dtype = _TYPES.get(port[3], port[3])
            ports[section].append({"name": port[2], "dtype": dtype, "shape": sizes})
        elif used:
            memory[used[1].strip(".").lower()] = int(used[2])
    inputs = ports["INPUTS"]
    return {
        "input": inputs[0] if inputs else None,
        "outputs": ports["OUTPUTS"],
        "memory": memory,
        "listing": text,
    }
