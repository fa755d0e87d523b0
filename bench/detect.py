"""Face detectors judged by their boxes: the kmodel's against the float model's.

Ours runs in our simulator, nncase 1.9.0's kmodel 5 in its own; both outputs are decoded by the
same code (k210tasks/heads) at one score and one overlap, and compared with the boxes of the float
model: precision, recall, F1 of boxes that overlap by half, mean overlap, mean distance of the
scores, and of landmarks in shares of the box's diagonal. Calibrated on the even pictures and
judged on the odd ones, and the reverse.

    python bench/detect.py [--models ulffd_landmark,…] [--kmodels 4,3] [--efforts normal]
                           [--score 0.5] [--methods no_clip] [--cache FOLDER]

``--cache`` keeps what nncase computed, as in bench/accuracy.py, whose models and pictures it uses.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accuracy import Bench, Output
from numpy.typing import NDArray

from k210tasks.compiler import CompileError
from k210tasks.errors import K210Error
from k210tasks.heads.detections import Detections, suppress
from k210tasks.heads.matching import Agreement
from k210tasks.heads.ssd import Ssd, priors
from k210tasks.heads.yunet import YuNet

#: overlap from which the worse of two boxes goes
NMS = 0.4
SIZE = (320, 240)
#: which pictures are calibrated on, which are judged
HALVES = {
    "even, odd": (slice(0, None, 2), slice(1, None, 2)),
    "odd, even": (slice(1, None, 2), slice(0, None, 2)),
}


class Head(Protocol):
    def decode(self, outputs: list[NDArray[Any]], score: float) -> Detections: ...


#: The sides of RetinaFace's anchors (biubug6/Pytorch_Retinaface, cfg_mnet) and of Linzaer's.
RETINA = priors(SIZE, (8, 16, 32), ((16, 32), (64, 128), (256, 512)))
SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
LINZAER = priors(SIZE, (8, 16, 32, 64), SIDES, spread=True, clip=True)
HEADS: dict[str, Head] = {
    "ulffd_landmark": Ssd(RETINA, boxes=0, points=1, classes=2),
    "slim_320_raw": Ssd(LINZAER, boxes=1, classes=0),
    "rfb_320_simplified": Ssd(LINZAER, boxes=1, classes=0),
    "yunet_n_320": YuNet((320, 320)),
}


def detections(head: Head, outputs: list[NDArray[Any]], score: float) -> Detections:
    return suppress(head.decode(outputs, score), NMS)


def judged(bench: Bench, head: Head, outputs: list[Output], part: slice, score: float) -> Agreement:
    """``outputs``: of each output the values for all pictures, flat; a half of them is judged."""
    tally = Agreement()
    for i in range(len(bench.inputs))[part]:
        wanted = [y[0] for y in bench.reference[i]]
        got = [y[i].reshape(w.shape) for y, w in zip(outputs, wanted, strict=True)]
        tally.add(detections(head, got, score), detections(head, wanted, score))
    return tally


@dataclass(frozen=True)
class Half:
    """One detector, calibrated on one half of the pictures and judged on the other."""

    bench: Bench
    head: Head
    name: str
    score: float

    def tell(self, what: str, outputs: list[Output]) -> None:
        found = judged(self.bench, self.head, outputs, HALVES[self.name][1], self.score)
        shown = [found.precision, found.recall, found.f1, found.mean_overlap, found.mean_drift]
        if found.pointed:
            shown.append(found.mean_points)
        numbers = " ".join("     -" if v is None else f"{v:6.3f}" for v in shown)
        print(f"{self.bench.name:18} {self.name:9} {what:15} ", end="")
        print(f"{found.found:5} {found.wanted:5}  {numbers}", flush=True)

    def theirs(self, methods: list[str]) -> None:
        for method in methods:
            try:
                outputs = self.bench.theirs(HALVES[self.name][0], method, self.name)
            except K210Error as error:
                self.bench.refused(self.name, f"nncase {method}", error)
                return  # what it does not take it takes by no method
            self.tell(f"nncase {method}", outputs)

    def ours(self, version: int, efforts: list[str]) -> None:
        for effort in efforts:
            try:
                outputs = self.bench.ours(HALVES[self.name][0], kmodel=version, effort=effort)
            except CompileError as error:
                self.bench.refused(self.name, f"ours v{version}", error)
                return
            self.tell(f"ours v{version} {effort}", outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(HEADS))
    parser.add_argument("--kmodels", default="4,3")
    parser.add_argument("--efforts", default="normal")
    parser.add_argument("--methods", default="no_clip")
    parser.add_argument("--score", type=float, default=0.5)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    print(f"{'':44} boxes float  precision, recall, F1, overlap, score and points away")
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        for name in args.models.split(","):
            bench, head = Bench(name, cache), HEADS[name]
            for half in (Half(bench, head, label, args.score) for label in HALVES):
                half.theirs(args.methods.split(","))
                for version in map(int, args.kmodels.split(",")):
                    half.ours(version, args.efforts.split(","))


if __name__ == "__main__":
    main()
