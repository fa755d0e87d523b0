"""Compile what PyTorch exports: twenty structures, both exporters, opsets 11 to 20.

    python -m tests.torch_exports [NAME …] [--environment FOLDER] [--exports FOLDER] [--kmodel 3]
                                  [--twins]

makes an environment with PyTorch (5 GiB, once; ``--environment`` names one that is there), lets
``examples/torch_networks.py`` write the networks into it, and compiles each file. Prints dB of the
worst output against onnxruntime, the layers on KPU and CPU, and what is refused. Ends with status 1
where exports of one network differ by more than 1.5 dB, a transpose is left between layers of the
KPU, or the compiler ends with anything but a sentence.

With ``--twins`` each network is also compiled by way of TFLite: onnx2tf, in an environment of its
own (2 GiB), makes a float ``.tflite`` of one export, and both are calibrated and measured on the
same pictures, each against its own float model, on several sets of pictures, since single codes
that fall otherwise move a network by a dB. Status 1 where the mean of the ONNX file is more than
0.5 dB below its twin's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from uv import find_uv_bin

from k210tasks import compiler
from k210tasks.compiler import Calibration
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Options
from k210tasks.errors import K210Error
from k210tasks.kmodel import parse
from k210tasks.reference.float_model import Reference, measure_to
from k210tasks.simulator import Simulator
from k210tasks.steps.signature import read_model
from tests.compiler.helpers import decibels

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch==2.14.1", "onnxscript", "onnx", "numpy")
#: dB between exports of one network, at most. The exporters fold batch norms in other orders, so
#: that weights differ in their last digits and some are rounded to other codes.
SPREAD = 1.5
#: what makes a TFLite of an export
CONVERTERS = ("onnx2tf[tensorflow]==2.6.9", "tensorflow==2.21.0")
TWIN_OF = "script.13"
#: dB by which an ONNX model may be below its TFLite twin, and sets of pictures it is the mean of
BEHIND, SETS = 0.5, 15
MEAN = 0.5  # pixels become -1..1
STD = 0.5


@dataclass(frozen=True)
class Result:
    """``shape`` of the input, maps channels last; ``db`` of the worst output; ``between``:
    transposes with KPU layers before and after."""

    shape: tuple[int, ...]
    db: float
    kpu: int
    cpu: int
    between: int
    seconds: float


def environment(folder: Path, version: str, packages: Sequence[str]) -> Path:
    """A Python of that version with these packages; made where there is none."""
    python = folder / "bin/python"
    if not python.exists():
        uv = find_uv_bin()
        subprocess.run([uv, "venv", "-q", "--python", version, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
    return python


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Codes of that shape, neighbours much alike, as in pictures and in sounds."""
    rows = rng.integers(0, 256, shape).astype(np.float64)
    for axis in range(len(shape) - 1):
        if shape[axis] > 4:
            rows = (rows + np.roll(rows, 1, axis) + np.roll(rows, 2, axis)) / 3
    rows -= rows.min()
    return np.asarray(rows * (255 / max(rows.max(), 1)), np.uint8)


def compiled(path: Path, kmodel: int, seed: int = 1, like: tuple[int, ...] | None = None) -> Result:
    """Of an ``.onnx``, or of the ``.tflite`` made of one, whose input has the shape ``like``; a
    row may lie the other way round in it. Raises :class:`K210Error` for what is refused."""
    start = time.perf_counter()
    source, _ = read_model(path, path.name)
    model = Reference(source)
    shape = model.shape
    pictures = len(shape) == 4 and shape[-1] in (1, 3)
    rng = np.random.default_rng(seed)
    codes = [smooth(rng, (like or shape)[1:]) for _ in range(24)]
    if like is not None and like != shape:
        codes = [c.T for c in codes]
    given = [((c / 255 - MEAN) / STD).astype(np.float32)[None] for c in codes]
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch, "calibration.npz")
        measure_to(stored, source, given[:16], fed="pixels" if pictures else "tensors")
        calibration = Calibration.from_npz(stored)
    made = compiler.compile(source, calibration, Options(kmodel, mean=MEAN, std=STD))
    seconds = time.perf_counter() - start
    simulator = Simulator(parse(made.kmodel))
    wanted: list[list[NDArray[np.float32]]] = []
    got: list[list[NDArray[np.float32]]] = []
    for x, picture in zip(given[16:], codes[16:], strict=True):
        wanted.append([to_nchw(y).ravel().copy() for y in model.run(x)])
        if made.input.dtype == "float32":
            one = to_nchw(x)
        elif pictures:
            one = to_nchw(picture[None])
        else:
            assert isinstance(made.input.scale, float)
            assert isinstance(made.input.zero_point, (int, float))
            real = to_nchw(x).ravel() / made.input.scale + made.input.zero_point
            one = np.zeros(int(np.prod(made.input.shape)), np.uint8)
            one[: real.size] = np.clip(np.rint(real), 0, 255)
        flat = np.ascontiguousarray(one).reshape(made.input.shape)
        got.append([np.array(y).ravel() for y in simulator.run(flat)])
    db = min(
        decibels(np.stack([w[k] for w in wanted]), np.stack([g[k] for g in got]))
        for k in range(len(wanted[0]))
    )
    on_kpu = [layer.runs_on == "KPU" for layer in made.layers]
    between = sum(
        layer.name.lower() == "transpose"
        and any(on_kpu[:i])
        and any(on_kpu[i:])
        and not any("Resize" in op for op in layer.source)  # a bilinear one, as two products
        for i, layer in enumerate(made.layers)
    )
    return Result(shape, db, sum(on_kpu), len(on_kpu) - sum(on_kpu), between, seconds)


def twins(name: str, onnx: Path, tflite: Path, kmodel: int) -> list[str]:
    """Prints dB of a model and of its TFLite twin; returns what is wrong."""
    pairs = []
    try:
        for seed in range(1, SETS + 1):
            one = compiled(onnx, kmodel, seed)
            pairs.append((one.db, compiled(tflite, kmodel, seed, one.shape).db))
    except K210Error as error:
        print(f"  twin       refused: {' '.join(str(error).split())[:200]}", flush=True)
        return []
    ours, other = np.mean(pairs, axis=0)
    each = " ".join(f"{a - b:+.1f}" for a, b in pairs)
    print(
        f"  twin       {ours:6.2f} dB, as TFLite {other:6.2f}, {ours - other:+.2f} ({each})",
        flush=True,
    )
    return [f"{name}: {other - ours:.2f} dB below TFLite"] if ours < other - BEHIND else []


def as_tflite(onnx: Path, folder: Path, python: Path) -> Path | None:
    """The float ``.tflite`` that onnx2tf makes of an export, in ``folder``; by its own writer,
    which leaves tensors that nothing writes, where TensorFlow's converter fails; None if both do.
    """
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    made = folder / f"{onnx.stem}_float32.tflite"
    for writer in ("tf_converter", "flatbuffer_direct"):
        command: list[str | Path] = [python.with_name("onnx2tf"), "-i", onnx, "-o", folder, "-n"]
        command += ["-tb", writer]
        subprocess.run(command, env=quiet, capture_output=True, check=False)
        if made.exists():
            return made
    return None


def judge(name: str, files: list[Path], kmodel: int) -> list[str]:
    """Prints what becomes of one network's files; returns what is wrong."""
    wrong, found = [], {}
    for path in files:
        export = path.name.removeprefix(f"{name}.").removesuffix(".onnx")
        try:
            result = compiled(path, kmodel)
        except K210Error as error:
            print(f"  {export:10} refused: {' '.join(str(error).split())[:200]}", flush=True)
            continue
        except Exception as error:
            wrong.append(f"{name}.{export}: {type(error).__name__}: {error}")
            continue
        found[export] = result
        layers = f"{result.kpu:3} KPU {result.cpu:3} CPU"
        print(f"  {export:10} {result.db:6.1f} dB {layers} {result.seconds:6.1f} s", flush=True)
        if result.between:
            wrong.append(f"{name}.{export}: {result.between} transposes between KPU layers")
    each = [result.db for result in found.values()]
    if each and max(each) - min(each) > SPREAD:
        wrong.append(f"{name}: exports differ by {max(each) - min(each):.1f} dB")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--environment", type=Path, default=Path(tempfile.gettempdir(), "k210-torch")
    )
    parser.add_argument("--exports", type=Path, help="a folder of exports that are there")
    parser.add_argument("--kmodel", type=int, choices=(3, 4), default=4)
    parser.add_argument("--twins", action="store_true", help="by way of TFLite, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.exports or Path(scratch)
        if args.exports is None:
            script = ROOT / "examples/torch_networks.py"
            python = environment(args.environment, "3.11", PACKAGES)
            subprocess.run([python, script, folder, *args.names], check=True)
        files: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*.onnx")):
            files.setdefault(path.name.split(".")[0], []).append(path)
        wrong = []
        for name in args.names or files:
            print(name, flush=True)
            wrong += judge(name, files[name], args.kmodel)
            if args.twins:
                beside = args.environment.with_name(f"{args.environment.name}-twins")
                onnx = folder / f"{name}.{TWIN_OF}.onnx"
                tflite = as_tflite(onnx, Path(scratch), environment(beside, "3.12", CONVERTERS))
                if tflite is None:
                    print("  twin       onnx2tf makes none", flush=True)
                else:
                    wrong += twins(name, onnx, tflite, args.kmodel)
    print("\n".join(wrong) or f"nothing wrong with {len(files)} networks")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
