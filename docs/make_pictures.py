"""The pictures of the documentation, from a real report, by way of a headless Chromium.

    python docs/make_pictures.py [PROJECT]

PROJECT is built (``doit``) and has the example models; without it, a clone of this
repository is built in a temporary folder. Writes docs/pictures/*.png, each below 200 kB.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.report.chromium import Chromium, find  # noqa: E402

MOST_BYTES = 200_000
MODEL = "digits"

#: picture -> page, width of the window, colour scheme, what of it (None: its top), height
PICTURES: dict[str, tuple[str, int, str, str | None, int]] = {
    "report-index": ("index.html", 1200, "light", None, 900),
    "report-model": (f"models/{MODEL}.html", 1200, "light", None, 760),
    "report-kpu-ram": (f"models/{MODEL}.html", 1200, "light", "section:has(> .scroll > .ram)", 0),
    "report-layers": (f"models/{MODEL}.html", 1200, "light", "section:has(#layers)", 0),
    "report-errors": (f"models/{MODEL}.html", 1200, "light", "section:has(#errors)", 0),
    "report-ranges": (f"models/{MODEL}.html", 1200, "light", "section:has(.histogram)", 0),
    "report-images": (f"models/{MODEL}.html", 1200, "light", "section:has(.samples)", 560),
    "report-phone": ("index.html", 400, "dark", None, 860),
}


def main(project: Path) -> None:
    program = find()
    if program is None:
        sys.exit("no Chromium is installed: apt-get install chromium")
    subprocess.run([sys.executable, "-c", _REPORT], cwd=project, check=True)
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    with Chromium(program) as browser:
        for name, (page, width, scheme, selector, height) in PICTURES.items():
            browser.size(width, height or 900)
            browser.scheme(scheme)
            browser.open(project / "build/report" / page)
            if browser.problems or browser.requests:
                sys.exit(f"{page}: {browser.problems or browser.requests}")
            path = folder / f"{name}.png"
            browser.screenshot(path, selector=selector, margin=12)
            print(f"{path.relative_to(HERE.parent)}: {_shrink(path, height)} bytes")


_REPORT = "import sys; from k210tasks.cli import main; sys.exit(main(['report']))"


def _shrink(path: Path, height: int) -> int:
    """Cut to ``height`` (0: as it is) and stored with as few colours as fit the limit."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if height:
        picture = picture.crop((0, 0, picture.width, min(height, picture.height)))
    for colours in (256, 128, 64, 32):
        file = io.BytesIO()
        reduced = picture.quantize(colours, dither=Image.Dither.NONE)
        reduced.save(file, "PNG", optimize=True)
        if len(file.getvalue()) < MOST_BYTES:
            path.write_bytes(file.getvalue())
            return len(file.getvalue())
    sys.exit(f"{path.name} cannot be stored in {MOST_BYTES} bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            clone = Path(scratch) / "k210tasks"
            subprocess.run(["git", "clone", "-q", str(HERE.parent), str(clone)], check=True)
            subprocess.run([sys.executable, "-m", "doit"], cwd=clone, check=True)
            main(clone)
