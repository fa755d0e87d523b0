"""The smaller drawings: histograms, flash maps, error plots."""

from __future__ import annotations

import base64
import io
import math

from markupsafe import Markup

from k210tasks.profiles import FLASH_BYTES, FLASH_FRAME_BYTES
from k210tasks.report.facts import FlashPart, Histogram, ImageFacts, Plot
from k210tasks.report.svg import drawing, element
from k210tasks.wording import plain, size

_WIDTH, _HEIGHT = 360.0, 110.0


def histogram_drawing(histogram: Histogram) -> Markup:
    """Counts on a logarithmic scale, one mark a bin; the chosen range is the shaded part."""
    low, high = histogram.low, histogram.high
    begin, end = histogram.chosen
    left, right = min(low, begin), max(high, end)
    span = (right - left) or 1.0

    def x(value: float) -> float:
        return _WIDTH * (value - left) / span

    most = math.log1p(max(histogram.counts, default=0)) or 1.0
    step = (high - low) / max(1, len(histogram.counts))
    bars = []
    for i, counted in enumerate(histogram.counts):
        tall = (_HEIGHT - 6) * math.log1p(counted) / most
        a, b = x(low + i * step), x(low + (i + 1) * step)
        inside = low + (i + 1) * step > begin and low + i * step < end
        bars.append(
            element(
                "rect",
                x=a,
                y=_HEIGHT - tall,
                width=max(0.6, b - a - 0.4),
                height=tall,
                class_="bin" if inside else "bin out",
            )
        )
    chosen = [
        element("rect", x=x(begin), y=0, width=x(end) - x(begin), height=_HEIGHT, class_="range"),
        *bars,
        *(
            element("line", x1=x(v), x2=x(v), y1=0, y2=_HEIGHT, class_="limit")
            for v in (begin, end)
        ),
    ]
    return drawing(
        _WIDTH,
        _HEIGHT,
        *chosen,
        label=f"values from {plain(low)} to {plain(high)}, range {plain(begin)} to {plain(end)}",
        class_="histogram",
        preserveAspectRatio="none",
    )


def flash_drawing(image: ImageFacts, start: int = 0, end: int = FLASH_BYTES) -> Markup:
    """The flash from ``start`` to ``end`` to scale, one mark of class ``part`` a part."""
    span = end - start
    width, height = 1000.0, 34.0

    def x(address: int) -> float:
        return width * (min(max(address, start), end) - start) / span

    def box(first: int, last: int, class_: str, title: str) -> Markup:
        return element(
            "rect",
            element("title", title),
            x=x(first),
            y=0.5,
            width=max(1.5, x(last) - x(first)),
            height=height - 1,
            class_=class_,
        )

    parts = [element("rect", x=0, y=0, width=width, height=height, class_="free")]
    if image.filesystem is not None and image.filesystem[0] < end and image.filesystem[1] > start:
        a, b = image.filesystem
        parts.append(box(a, b, "filesystem", f"file system {a:#x}..{b - 1:#x}"))
    for number, part in enumerate(image.parts):
        title = f"{part.name} {part.address:#x}..{part.end - 1:#x}, {size(part.nbytes)}"
        parts.append(box(part.address, part.end, f"part c{number % 6}", title))
    return drawing(
        width,
        height,
        *parts,
        label=f"flash from {start:#x} to {end:#x}",
        class_="flash",
        preserveAspectRatio="none",
    )


def used_span(parts: tuple[FlashPart, ...]) -> tuple[int, int]:
    """The whole frames of the flasher that the parts lie in."""
    frame = FLASH_FRAME_BYTES
    first = min(part.address for part in parts) // frame * frame
    last = -(-max(part.end for part in parts) // frame) * frame
    return first, max(last, first + frame)


def scatter_drawing(plot: Plot) -> Markup:
    """Float model's values across, the kmodel's upwards: on the line they are equal."""
    flat = [value for pair in plot.pairs for value in pair]
    low, high = min(flat, default=0.0), max(flat, default=1.0)
    span = (high - low) or 1.0
    edge = 120.0

    def at(value: float) -> float:
        return 4 + (edge - 8) * (value - low) / span

    dots = [
        element("circle", cx=at(a), cy=edge - at(b), r=1.8, class_="dot") for a, b in plot.pairs
    ]
    line = element("line", x1=4, y1=edge - 4, x2=edge - 4, y2=4, class_="grid")
    return drawing(
        edge, edge, line, *dots, label=f"{plain(low)} to {plain(high)}", class_="scatter"
    )


def error_map(plot: Plot) -> str | None:
    """The errors of a map as a picture, a pixel a cell; a data URI."""
    if not plot.codes:
        return None
    from PIL import Image

    picture = Image.new("RGBA", (plot.columns, plot.rows))
    picture.putdata([(214, 69, 48, code) for code in plot.codes])
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
