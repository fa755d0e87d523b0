"""Accuracy of the built-in compiler beside nncase 1.9.0, on the same models and images.

Ours runs in our simulator, nncase's kmodel 5 in its own; both against LiteRT on the float
model. Printed are the SNR of every output (design: 10 log10 of signal over noise, over all
images) and ours minus the better of nncase's no_clip and l2:

* calibrated and measured on all images;
* calibrated on every other image, measured on the rest.

    python bench/accuracy.py [--models ulffd_landmark,…] [--efforts normal,fast]
                             [--kmodels 4,3] [--methods no_clip,l2] [--cache FOLDER]

``--cache`` keeps what nncase computed from one run to the next (its l2 takes a minute).
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k210tasks import compiler, toolchains
from k210tasks.compiler import Options
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.samples.loading import Loader, evenly_spaced, scan
from k210tasks.samples.preprocess import Preprocess
from k210tasks.simulator import Simulator
from k210tasks.toolchains import nncase, tensorflow

HERE = Path(__file__).resolve().parent.parent
FIXTURES = HERE.parent / "shared" / "fixtures"


@dataclass(frozen=True)
class Case:
    """A model and its images, at most ``count`` of them."""

    source: Path
    images: Path
    preprocess: Preprocess
    count: int


FACES = FIXTURES / "images" / "faces"
CASES = {
    "ulffd_landmark": Case(
        FIXTURES / "tflite" / "ulffd_landmark.tflite", FACES, Preprocess(mean=0.5, std=1.0), 20
    ),
    "vww_96_float": Case(
        FIXTURES / "tflite" / "vww_96_float.tflite", FACES, Preprocess(mean=0.0, std=1.0), 20
    ),
    "digits": Case(
        HERE / "workspace" / "digits.pb",
        HERE / "images" / "digits" / "calibration",
        Preprocess(color="gray", mean=0.5, std=0.5),
        40,
    ),
}


class Bench:
    """One model: its images as pixels and as model inputs, and the float outputs."""

    def __init__(self, name: str, cache: Path):
        self.name, self.case, self.cache = name, CASES[name], cache
        self.tflite = self.case.source
        if self.tflite.suffix == ".pb":
            self.tflite = cache / f"{name}.tflite"
            if not self.tflite.exists():
                tools = toolchains.get("tensorflow")
                tools.install(print)
                tensorflow.convert(
                    tools,
                    source=self.case.source,
                    kind="pb",
                    inputs=None,
                    outputs=None,
                    out=self.tflite,
                )
        self.data = self.tflite.read_bytes()
        model = FloatModel(self.data)
        loader = Loader(model.input_shape, self.case.preprocess)
        found = scan(self.case.images)
        files = evenly_spaced(found.files, self.case.count)
        samples = [loader.load(self.case.images / file, file) for file in files]
        self.pixels = [s.pixels for s in samples]
        self.inputs = [s.tensor for s in samples]
        runs = [model.run(x) for x in self.inputs]
        self.reference = [np.stack([r[i].ravel() for r in runs]) for i in range(len(runs[0]))]
        self.maps = [r.shape for r in runs[0]]

    def ours(self, part: slice, **options: object) -> list[np.ndarray]:
        """Outputs for all images, calibrated on ``part``."""
        p = self.case.preprocess
        calibration = compiler.calibrate(self.data, self.inputs[part], measurable)
        made = compiler.compile(
            self.data,
            calibration,
            Options(mean=p.effective_mean, std=p.effective_std, **options),  # type: ignore[arg-type]
        )
        simulator = Simulator(parse(made.kmodel))
        runs = [simulator.run(x) for x in self.pixels]
        return [np.stack([np.asarray(r[i]).ravel() for r in runs]) for i in range(len(runs[0]))]

    def theirs(self, part: slice, method: str, label: str) -> list[np.ndarray]:
        """The same by nncase, fed with the float model's own input."""
        kept = self.cache / f"{self.name}-{method}-{label}.npz"
        if not kept.exists():
            tools = toolchains.get("nncase-1.9.0")
            tools.install(print)
            with tempfile.TemporaryDirectory() as scratch:
                inputs = np.concatenate(self.inputs).transpose(0, 3, 1, 2)
                np.save(Path(scratch, "all.npy"), np.ascontiguousarray(inputs))
                np.save(Path(scratch, "some.npy"), np.ascontiguousarray(inputs[part]))
                kmodel = Path(scratch, "m.kmodel")
                nncase.compile(
                    tools,
                    tflite=self.tflite,
                    samples=Path(scratch, "some.npy"),
                    method=method,
                    mean=0.0,
                    std=1.0,
                    out=kmodel,
                )
                nncase.simulate(tools, kmodel=kmodel, inputs=Path(scratch, "all.npy"), out=kept)
        with np.load(kept) as file:
            return [file[f"output_{i}"].reshape(len(self.inputs), -1) for i in range(len(file))]

    def snr(self, outputs: list[np.ndarray], part: slice) -> np.ndarray:
        """dB per output over the images of ``part``."""
        found = []
        for ref, out in zip(self.reference, outputs, strict=True):
            r, o = ref[part].astype(np.float64), out[part].astype(np.float64)
            found.append(10 * np.log10((r * r).sum() / max(((r - o) ** 2).sum(), 1e-30)))
        return np.array(found)


def shown(values: np.ndarray) -> str:
    return "  ".join(f"{v:6.2f}" for v in values)


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
            for label, used, measured in (
                ("all", slice(None), slice(None)),
                ("held out", slice(0, None, 2), slice(1, None, 2)),
            ):
                rows = {}
                for method in args.methods.split(","):
                    rows[method] = bench.snr(bench.theirs(used, method, label), measured)
                    print(f"{name:15} {label:9} nncase {method:13} {shown(rows[method])}")
                best = max(rows.values(), key=lambda row: float(row.mean()))
                for version in args.kmodels.split(","):
                    for effort in args.efforts.split(","):
                        outputs = bench.ours(used, kmodel=int(version), effort=effort)
                        ours = bench.snr(outputs, measured)
                        print(
                            f"{name:15} {label:9} ours v{version} {effort:12} {shown(ours)}"
                            f"   above nncase: {shown(ours - best)}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
