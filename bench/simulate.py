"""Our simulator beside nncase 1.9.0's own C++ simulator, on the same float model.

Ours runs ``v4/ulffd_landmark.kmodel`` (320x240, 3 outputs); nncase runs the kmodel 5 it
makes of the same ``ulffd_landmark.tflite``. Rounds alternate, so that both see the same
machine; printed are medians and their ratios, and the peak memory of one run of ours in a
process of its own.

    python bench/simulate.py [FIXTURES] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from k210tasks import toolchains
from k210tasks.kmodel import parse
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess
from k210tasks.simulator import Simulator
from k210tasks.toolchains import nncase

SHAPE = (1, 240, 320, 3)
FACES = ("20", "25", "30")

PEAK = """
import resource, sys
import numpy as np
from k210tasks.kmodel import parse
from k210tasks.simulator import Simulator
with open(sys.argv[1], "rb") as file:
    data = file.read()
Simulator(parse(data)).run(np.zeros((3, 240, 320), np.uint8))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    parser.add_argument("fixtures", nargs="?", type=Path, default=beside)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    kmodel = args.fixtures / "kmodel" / "v4" / "ulffd_landmark.kmodel"
    tflite = args.fixtures / "tflite" / "ulffd_landmark.tflite"
    loader = Loader(SHAPE, Preprocess(mean=0.5, std=1.0))
    faces = [loader.pixels(args.fixtures / "images" / "faces" / f"{n}.jpg") for n in FACES]
    pixels = np.stack(faces)

    toolchain = toolchains.get("nncase-1.9.0")
    if not toolchain.installed():
        toolchain.install(print)
    ours: dict[str, list[float]] = {"load": [], "run": []}
    theirs: dict[str, list[float]] = {"load": [], "run": []}
    with tempfile.TemporaryDirectory() as scratch:
        samples, made = Path(scratch, "samples.npy"), Path(scratch, "ulffd.kmodel")
        np.save(samples, pixels)
        nncase.compile(
            toolchain,
            tflite=tflite,
            samples=samples,
            method="no_clip",
            mean=0.5,
            std=1.0,
            out=made,
        )
        data = kmodel.read_bytes()
        for _ in range(args.rounds):
            result = nncase.simulate(
                toolchain, kmodel=made, inputs=samples, out=Path(scratch, "out.npz")
            )
            theirs["load"].append(result["load_seconds"])
            theirs["run"] += result["run_seconds"]
            start = time.perf_counter()
            simulator = Simulator(parse(data))
            ours["load"].append(time.perf_counter() - start)
            for x in faces:
                start = time.perf_counter()
                simulator.run(x)
                ours["run"].append(time.perf_counter() - start)
    ms = {
        (who, what): 1000 * statistics.median(times[what])
        for who, times in (("ours", ours), ("nncase", theirs))
        for what in ("load", "run")
    }
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, str(kmodel)], check=True, capture_output=True, text=True
    )
    print(f"run:  ours {ms['ours', 'run']:.1f} ms, nncase {ms['nncase', 'run']:.1f} ms, ", end="")
    print(f"ratio {ms['ours', 'run'] / ms['nncase', 'run']:.3f} (at most 0.5)")
    print(f"load: ours {ms['ours', 'load']:.1f} ms, nncase {ms['nncase', 'load']:.1f} ms, ", end="")
    print(f"difference {ms['ours', 'load'] - ms['nncase', 'load']:+.1f} ms (at most +100)")
    print(f"peak memory of parse, prepare and one run: {int(peak.stdout) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
