"""Numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable


def count(value: float) -> str:
    """``1 234 567``: thousands apart by a narrow space, which does not break."""
    return f"{round(value):,}".replace(",", "\u202f")


def size(value: float) -> str:
    """``123.4 KiB``, ``1.50 MiB``."""
    if value < 1024:
        return f"{round(value)} B"
    if value < 1 << 20:
        return f"{value / 1024:.1f} KiB"
    return f"{value / (1 << 20):.2f} MiB"


def big(value: float) -> str:
    """``12.3 M``: of operations."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return str(round(value))


def milliseconds(value: float) -> str:
    """``12.3 ms``, ``0.45 ms``, ``3.1 µs``."""
    if value < 0.05:
        return f"{1000 * value:.1f} µs"
    return f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


def share(value: float) -> str:
    """``97 %``, ``99.5 %``; a single miss among thousands does not read as none."""
    text = f"{100 * value:.1f}".removesuffix(".0")
    return f"{'99.9' if text == '100' and value < 1 else text} %"


def decimals(value: float, places: int) -> str:
    """Cut, not rounded: what is below 1 looks so."""
    if value > 1 - 1e-6 and value <= 1:
        return f"{1:.{places}f}"
    factor = 10**places
    return f"{math.floor(value * factor) / factor:.{places}f}"


def plain(value: float | None, digits: int = 4) -> str:
    """A number of any size, or an en dash."""
    return "–" if value is None else f"{value + 0.0:.{digits}g}".replace("-", "−", 1)


def shape(sizes: Iterable[int] | None) -> str:
    """``1x3x240x320``; "?" where it is not known."""
    return "?" if sizes is None else "x".join(map(str, sizes)) or "1"


def hexadecimal(value: int) -> str:
    return f"{value:#x}"


def together(text: str) -> str:
    """Numbers kept on one line with their units."""
    return re.sub(r"(?<=\d) (?=%|(dB|[KM]iB|B|ms|µs|s|[GMk])\b)", "\u00a0", text)


def flowing(message: str) -> str:
    """A message made for 80 columns, its wrapped lines joined again."""
    return re.sub(r"\n {8,}", " ", message)
