"""How exact the outputs of ONNX models are as kmodel 4, and what stands in the way of kmodel 3.

Each output of every ONNX fixture, simulated as MaixPy's runtime, against onnxruntime: calibrated
on all pictures, and on every other one, the rest held out. bench/compile.py has their time.

    python bench/onnx_models.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from compile import FIXTURES, variants

from k210tasks import compiler
from k210tasks.compiler import Calibration, Options
from k210tasks.kmodel import parse
from k210tasks.reference.float_model import Given, Reference, measure_to
from k210tasks.samples.loading import Loader, planar
from k210tasks.samples.preprocess import Preprocess
from k210tasks.simulator import Simulator
from k210tasks.steps.signature import read_model

#: model -> mean and std
MODELS = {
    "rfb_320_simplified": (127 / 255, 128 / 255),
    "slim_320_raw": (127 / 255, 128 / 255),
    "slim_320": (127 / 255, 128 / 255),
    "yunet_n_320": (0.0, 1 / 255),
}


def decibels(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    signal = sum(float(np.square(a).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b).sum()) for a, b in pairs)
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def exactness(model: Given, loader: Loader, chosen: list[Path], others: list[Path]) -> list[float]:
    """dB of every output of kmodel 4 calibrated on ``chosen``, on ``others``."""
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch, "calibration.npz")
        measure_to(stored, model, (loader.tensor(f) for f in chosen), fed="pixels")
        calibration = Calibration.from_npz(stored)
    asked = loader.preprocess
    options = Options(kmodel=4, mean=asked.mean, std=asked.std, runtime="maixpy")
    made = compiler.compile(model, calibration, options)
    simulator, reference = Simulator(parse(made.kmodel), "maixpy"), Reference(model)
    pairs: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in made.outputs]
    for file in others:
        sample = loader.load(file)
        assert sample.pixels is not None
        outputs = zip(
            pairs, reference.run(sample.tensor), simulator.run(sample.pixels), strict=True
        )
        for into, wanted, found in outputs:
            into.append((planar(wanted).ravel(), np.asarray(found, np.float32).ravel()))
    return [decibels(one) for one in pairs]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        files = sorted(variants(Path(scratch, "faces"), 20).iterdir())
        for name, (mean, std) in MODELS.items():
            path = FIXTURES / "onnx" / f"{name}.onnx"
            model, signature = read_model(path, path.name)
            loader = Loader(signature.input.shape, Preprocess(mean=mean, std=std))
            seen = exactness(model, loader, files, files)
            held = exactness(model, loader, files[::2], files[1::2])
            for port, all_of, out in zip(signature.outputs, seen, held, strict=True):
                print(f"{name:20} {port.name:8} {all_of:6.1f} dB, held out {out:6.1f} dB")
            report = compiler.check(model, 3)
            reasons = [r for op in report.ops for r in op.reasons] + list(report.problems)
            print(f"{name:20} kmodel 3: {reasons[0] if reasons else 'can be compiled'}")


if __name__ == "__main__":
    main()
