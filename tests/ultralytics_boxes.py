"""Boxes of the heads of YOLOv5 and YOLOv8 beside those of ultralytics, on 1000 random outputs each.

Runs in an environment that has both packages (and PyTorch, 5 GiB), which the project does not need:

    python -m venv /tmp/boxes
    /tmp/boxes/bin/pip install ultralytics yolov5 "setuptools<81"
    PYTHONPATH=. /tmp/boxes/bin/python tests/ultralytics_boxes.py [--cases 1000]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.heads.detections import Detections
from k210tasks.heads.yolo3 import Yolo5
from k210tasks.heads.yolo8 import Yolo8

STRIDES = (8, 16, 32)


def away(found: Detections, rows: NDArray[Any], size: tuple[int, int], classes: int) -> float:
    """The largest distance of a box, in shares, or of a score. ``rows``: center and size in pixels,
    then what scores are the product or the best of."""
    rows = rows.astype(np.float64)
    center, spread = rows[:, :2] / size, rows[:, 2:4] / size
    theirs = np.concatenate([center - spread / 2, center + spread / 2], axis=1)
    scores = rows[:, -classes:].max(axis=1)
    if rows.shape[1] > 4 + classes:
        scores = scores * rows[:, 4]  # objectness
    return float(max(np.abs(found.boxes - theirs).max(), np.abs(found.scores - scores).max()))


def yolo8(numbers: np.random.Generator, classes: int, size: tuple[int, int]) -> float:
    import torch
    from ultralytics.nn.modules.head import Detect

    bins = int(numbers.choice([8, 16]))
    maps = random_maps(numbers, 4 * bins + classes, size)
    detect: Any = Detect(nc=classes, reg_max=bins, ch=tuple(map(len, maps)))
    detect.stride = torch.tensor(STRIDES, dtype=torch.float32)
    flat = np.concatenate([m.reshape(len(m), -1) for m in maps], axis=1)[None]
    outputs = {
        "boxes": torch.from_numpy(flat[:, : 4 * bins].copy()),
        "scores": torch.from_numpy(flat[:, 4 * bins :].copy()),
        "feats": [torch.from_numpy(m[None]) for m in maps],
    }
    with torch.no_grad():
        rows = detect.eval()._inference(outputs)[0].numpy().T
    return away(Yolo8(classes, bins).decode(maps, -1.0), rows, size, classes)


def yolo5(numbers: np.random.Generator, classes: int, size: tuple[int, int]) -> float:
    import torch
    from yolov5.models.yolo import Detect

    anchors = numbers.uniform(4, 200, (len(STRIDES), 3, 2)).astype(np.float32)
    maps = random_maps(numbers, 3 * (5 + classes), size)
    detect: Any = Detect(classes, anchors.reshape(3, -1).tolist(), tuple(map(len, maps)))
    detect.stride = torch.tensor(STRIDES, dtype=torch.float32)
    detect.anchors /= detect.stride.view(-1, 1, 1)
    detect.m = torch.nn.ModuleList(torch.nn.Identity() for _ in maps)
    with torch.no_grad():
        rows = detect.eval()([torch.from_numpy(m[None]) for m in maps])[0][0].numpy()
    lists = tuple(tuple((float(w), float(h)) for w, h in one) for one in anchors)
    return away(Yolo5(lists, classes, size).decode(maps, -1.0), rows, size, classes)


def random_maps(
    numbers: np.random.Generator, channels: int, size: tuple[int, int]
) -> list[NDArray[np.float32]]:
    return [
        numbers.normal(0, 2, (channels, size[1] // s, size[0] // s)).astype(np.float32)
        for s in STRIDES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    cases = parser.parse_args().cases
    for head in (yolo5, yolo8):
        worst = 0.0
        for seed in range(cases):
            numbers = np.random.default_rng(seed)
            width, height = (32 * int(n) for n in numbers.integers(1, 7, 2))
            worst = max(worst, head(numbers, int(numbers.integers(1, 6)), (width, height)))
        print(f"{head.__name__}: {cases} outputs, {worst:.1e} away at most", flush=True)
        if worst > 1e-5:
            raise SystemExit("more than 1e-5")


if __name__ == "__main__":
    main()
