"""Accuracy of the built-in compiler beside nncase 1.9.0, on the same models and images.

Ours runs in our simulator, nncase's kmodel 5 in its own; both against the float model in LiteRT
or onnxruntime. Printed are the SNR of every output (10 log10 of signal over noise, over all
images) and ours minus the better of nncase's methods:

* calibrated and measured on all images;
* calibrated on every other image, measured on the rest.

Where nncase or kmodel 3 does not take a model, the reason is printed instead.

    python bench/accuracy.py [--models ulffd_landmark,…] [--efforts normal,fast]
                             [--kmodels 4,3] [--methods no_clip,l2] [--cache FOLDER]

``--cache`` keeps what nncase computed from one run to the next (its l2 takes a minute).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks import compiler, toolchains
from k210tasks.compiler import Calibration, CompileError, Options
from k210tasks.errors import K210Error
from k210tasks.kmodel import parse
from k210tasks.reference.float_model import Reference, measure_to
from k210tasks.samples.loading import Loader, evenly_spaced, planar, scan
from k210tasks.samples.preprocess import Preprocess
from k210tasks.simulator import Simulator
from k210tasks.steps.signature import read_model
from k210tasks.toolchains import nncase, tensorflow

HERE = Path(__file__).resolve().parent.parent
FIXTURES = HERE.parent / "shared" / "fixtures"

#: label, which images are calibrated on, which are measured
PARTS = (
    ("all", slice(None), slice(None)),
    ("held out", slice(0, None, 2), slice(1, None, 2)),
)
#: of one output for all images, (N, elements)
Output = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A model and its images, at most ``count`` of them."""

    source: Path
    preprocess: Preprocess
    images: Path = FIXTURES / "images" / "faces"
    count: int = 20


ULFFD = Preprocess(mean=127 / 255, std=128 / 255)
CASES = {
    "ulffd_landmark": Case(
        FIXTURES / "tflite" / "ulffd_landmark.tflite", Preprocess(mean=0.5, std=1.0)
    ),
    "vww_96_float": Case(
        FIXTURES / "tflite" / "vww_96_float.tflite", Preprocess(mean=0.0, std=1.0)
    ),
    "digits": Case(
        HERE / "workspace" / "digits.pb",
        Preprocess(color="gray", mean=0.5, std=0.5),
        HERE / "images" / "digits" / "calibration",
        40,
    ),
    "rfb_320_simplified": Case(FIXTURES / "onnx" / "rfb_320_simplified.onnx", ULFFD),
    "slim_320_raw": Case(FIXTURES / "onnx" / "slim_320_raw.onnx", ULFFD),
    "slim_320": Case(FIXTURES / "onnx" / "slim_320.onnx", ULFFD),
    "yunet_n_320": Case(
        FIXTURES / "onnx" / "yunet_n_320.onnx", Preprocess(color="bgr", mean=0.0, std=1 / 255)
    ),
}


class Bench:
    """One model: its images as pixels and as model inputs, and the float outputs."""

    def __init__(self, name: str, cache: Path):
        self.name, self.case, self.cache = name, CASES[name], cache
        self.file = self.case.source
        if self.file.suffix == ".pb":
            self.file = cache / f"{name}.tflite"
            if not self.file.exists():
                tools = toolchains.get("tensorflow")
                tools.install(print)
                tensorflow.convert(
                    tools,
                    source=self.case.source,
                    kind="pb",
                    inputs=None,
                    outputs=None,
                    out=self.file,
                )
        self.model, self.signature = read_model(self.file, self.file.name)
        loader = Loader(self.signature.input.shape, self.case.preprocess)
        found = scan(self.case.images)
        files = evenly_spaced(found.files, self.case.count)
        samples = [loader.load(self.case.images / file, file) for file in files]
        self.pixels = [s.pixels for s in samples]
        self.inputs = [s.tensor for s in samples]

    @cached_property
    def reference(self) -> list[list[NDArray[np.float32]]]:
        """Every output of the float model for every image."""
        model = Reference(self.model)
        return [model.run(x) for x in self.inputs]

    def ours(self, part: slice, **options: Any) -> list[Output]:
        """Outputs for all images, calibrated on ``part``."""
        p = self.case.preprocess
        with tempfile.TemporaryDirectory() as scratch:
            stored = Path(scratch, "calibration.npz")
            measure_to(stored, self.model, self.inputs[part], fed="pixels")
            calibration = Calibration.from_npz(stored)
        asked = Options(mean=p.effective_mean, std=p.effective_std, **options)
        simulator = Simulator(parse(compiler.compile(self.model, calibration, asked).kmodel))
        runs = [simulator.run(x) for x in self.pixels]
        return [
            np.stack([np.asarray(y).ravel() for y in found]) for found in zip(*runs, strict=True)
        ]

    def theirs(self, part: slice, method: str, label: str) -> list[Output]:
        """The same by nncase, fed with the float model's own input."""
        kept = self.cache / f"{self.name}-{method}-{label}.npz"
        if not kept.exists():
            tools = toolchains.get("nncase-1.9.0")
            tools.install(print)
            shape = self.signature.input.shape
            with tempfile.TemporaryDirectory() as scratch:
                inputs = np.concatenate(self.inputs).transpose(0, 3, 1, 2)
                np.save(Path(scratch, "all.npy"), np.ascontiguousarray(inputs))
                np.save(Path(scratch, "some.npy"), np.ascontiguousarray(inputs[part]))
                kmodel = Path(scratch, "m.kmodel")
                nncase.compile(
                    tools,
                    model=self.file,
                    onnx_shape=shape if self.file.suffix == ".onnx" else None,
                    samples=Path(scratch, "some.npy"),
                    method=method,
                    mean=0.0,
                    std=1.0,
                    out=kmodel,
                )
                nncase.simulate(tools, kmodel=kmodel, inputs=Path(scratch, "all.npy"), out=kept)
        with np.load(kept) as file:
            return [file[f"output_{i}"].reshape(len(self.inputs), -1) for i in range(len(file))]

    def snr(self, outputs: list[Output], part: slice, *, maps_planar: bool) -> Output:
        """dB per output over the images of ``part``."""
        found = []
        for wanted, got in zip(zip(*self.reference, strict=True), outputs, strict=True):
            flat = [(planar(y) if maps_planar else y).ravel() for y in wanted]
            r, o = (np.asarray(y, np.float64)[part] for y in (flat, got))
            found.append(10 * np.log10((r * r).sum() / max(((r - o) ** 2).sum(), 1e-30)))
        return np.array(found)

    def row(self, label: str, what: str, values: Output, above: Output | None = None) -> None:
        print(f"{self.name:18} {label:9} {what:15} {shown(values)}", end="")
        print(f"   above nncase: {shown(above)}" if above is not None else "", flush=True)

    def refused(self, label: str, what: str, error: K210Error) -> None:
        print(f"{self.name:18} {label:9} {what:15} {str(error).splitlines()[-1]}", flush=True)


def shown(values: Output) -> str:
    return " ".join(f"{v:6.2f}" for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--efforts", default="normal,fast")
    parser.add_argument("--kmodels", default="4,3")
    parser.add_argument("--methods", default="no_clip,l2")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        for name in args.models.split(","):
            bench = Bench(name, cache)
            for label, used, measured in PARTS:
                rows = []
                for method in args.methods.split(","):
                    try:
                        theirs = bench.theirs(used, method, label)
                    except K210Error as error:
                        bench.refused(label, f"nncase {method}", error)
                        break  # what it does not take it takes by no method
                    rows.append(bench.snr(theirs, measured, maps_planar=False))
                    bench.row(label, f"nncase {method}", rows[-1])
                best = max(rows, key=lambda row: float(row.mean()), default=None)
                for version in map(int, args.kmodels.split(",")):
                    for effort in args.efforts.split(","):
                        try:
                            outputs = bench.ours(used, kmodel=version, effort=effort)
                        except CompileError as error:
                            bench.refused(label, f"ours v{version}", error)
                            break
                        ours = bench.snr(outputs, measured, maps_planar=True)
                        above = ours - best if best is not None else None
                        bench.row(label, f"ours v{version} {effort}", ours, above)


if __name__ == "__main__":
    main()
