"""Ten models with 100 verify images each: what the report costs, and how large its pages are.

The models are small, built for real once; the verify images are photographs of 640x480, so
that reading them is not free. Printed are the median time of ``k210 report`` and of a bare
``python -c pass`` beside it, and the largest page.

    python bench/report.py [MODELS [IMAGES [ROUNDS]]]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from tests.report import project  # noqa: E402

REPORT = "import sys; from k210tasks.cli import main; sys.exit(main(['report']))"


def make(root: Path, models: int, images: int) -> None:
    """The files of the project, every model with labels and images of its own."""
    random = np.random.default_rng(1)
    (root / "dodo.py").write_text(project.DODO)
    text = "defaults: {firmware: maixpy, preprocess: {color: rgb, mean: 0.5, std: 0.5}}\nmodels:\n"
    for m in range(models):
        (root / f"m{m}.tflite").write_bytes(project.classifier(("in", f"map {m}", "scores")))
        folder = root / "images" / f"m{m}"
        folder.mkdir(parents=True)
        for i in range(images):
            coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(coarse).resize((640, 480)).save(folder / f"{i:03}.jpg")
        text += f"  m{m}: {{source: m{m}.tflite, images: images/m{m}, labels: [a, b, c, d],"
        text += f" verify: {{images: images/m{m}, min_cosine: 0.5}}}}\n"
    (root / "models.yaml").write_text(text)


def timed(root: Path, code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True)
    return time.perf_counter() - begun


def main(models: int = 10, images: int = 100, rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, models, images)
        project.doit(root)
        report, bare = [], []
        for _ in range(rounds):
            report.append(timed(root, REPORT))
            bare.append(timed(root, "pass"))
        pages = {p.name: p.stat().st_size for p in (root / "build/report").rglob("*.html")}
        largest = max(pages, key=lambda name: pages[name])
        print(f"{models} models, {images} verify images each, {rounds} rounds by turns")
        print(f"bare Python   {statistics.median(bare):6.2f} s")
        print(f"k210 report   {statistics.median(report):6.2f} s  (limit 5)")
        print(f"largest page  {pages[largest] / 1e6:6.2f} MB  (limit 5), {largest}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
