"""KPU RAM over the layers: who lies where and when, and what each layer costs."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from k210tasks.kmodel.residence import BEFORE, Resident
from k210tasks.kpu.layout import ROW_BYTES
from k210tasks.report.facts import Build, Layer
from k210tasks.report.svg import drawing, element
from k210tasks.wording import size

_LEFT, _RIGHT, _TOP = 62.0, 10.0, 6.0
_TIME, _GAP, _RAM, _AXIS = 44.0, 10.0, 230.0, 20.0
_COLOURS = 6


def ram_drawing(build: Build) -> Markup:
    """One mark of class ``layer`` a layer, one of class ``resident`` a feature map."""
    layers = build.layers
    columns = len(layers) + 1  # the first one is the input's
    column = max(15.0, min(64.0, 760.0 / columns))
    width = _LEFT + columns * column + _RIGHT
    has_ram = bool(build.residents)
    top = _TOP + _TIME + _GAP
    bottom = top + (_RAM if has_ram else 0.0)
    height = bottom + _AXIS

    def x(index: int) -> float:
        return _LEFT + (index + 1) * column

    slowest = max((layer.estimated_us or 0.0 for layer in layers), default=0.0) or 1.0
    marks = [_layer(layer, x(layer.index), column, bottom, slowest) for layer in layers]
    parts = [element("text", "time", x=_LEFT - 6, y=_TOP + _TIME, class_="axis end")]
    parts += marks
    if has_ram:
        low = min(r.row for r in build.residents)
        high = max(r.row + r.rows for r in build.residents)
        parts += _scale(low, high, top, width)
        for number, resident in enumerate(build.residents):
            parts.append(_resident(resident, number, x, column, low, high, top, layers))
    every = max(1, round(26 / column))
    parts += [
        element(
            "text", layer.index, x=x(layer.index) + column / 2, y=bottom + 14, class_="axis mid"
        )
        for layer in layers
        if layer.index % every == 0
    ]
    if has_ram:
        parts.append(element("text", "in", x=_LEFT + column / 2, y=bottom + 14, class_="axis mid"))
    return drawing(
        width,
        height,
        *parts,
        label="KPU RAM over the layers",
        class_="ram",
        style=f"min-width:{width:.0f}px;max-width:{1.25 * width:.0f}px",
    )


def _layer(layer: Layer, x: float, column: float, bottom: float, slowest: float) -> Markup:
    on_kpu = layer.runs_on == "KPU"
    tall = max(2.0, _TIME * (layer.estimated_us or 0.0) / slowest) if on_kpu else 5.0
    told = f"{layer.index}: {layer.name} {layer.input} → {layer.output}"
    if layer.kernel:
        told += f", {layer.kernel}"
    if layer.estimated_us is not None:
        told += f", about {layer.estimated_us:g} µs"
    return element(
        "g",
        element("title", told),
        element("rect", x=x, y=_TOP, width=column, height=bottom - _TOP, class_="column"),
        element(
            "rect",
            x=x + 1.5,
            y=_TOP + _TIME - tall,
            width=column - 3,
            height=tall,
            rx=1,
            class_="cost",
        ),
        class_=f"layer {layer.runs_on.lower()}",
        data_layer=layer.index,
    )


def _scale(low: int, high: int, top: float, width: float) -> list[Markup]:
    """Lines at the lowest and highest row in use and between, by address."""
    parts = []
    for i in range(5):
        row = low + (high - low) * i / 4
        y = top + _RAM * (1 - i / 4)
        parts.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y, class_="grid"))
        nbytes = row * ROW_BYTES
        label = f"{nbytes:.0f} B" if high - low < 512 else f"{nbytes / 1024:.0f} KiB"
        parts.append(element("text", label, x=_LEFT - 6, y=y + 4, class_="axis end"))
    return parts


def _resident(
    resident: Resident,
    number: int,
    x: Callable[[int], float],
    column: float,
    low: int,
    high: int,
    top: float,
    layers: tuple[Layer, ...],
) -> Markup:
    tall = _RAM * resident.rows / (high - low)
    y = top + _RAM * (1 - (resident.row + resident.rows - low) / (high - low))
    left, right = x(resident.born), x(resident.last) + column
    nbytes = resident.rows * ROW_BYTES
    if resident.born == BEFORE:
        name = f"the input, until layer {resident.last}"
    else:
        layer = layers[resident.born]
        name = f"output of layer {layer.index} ({layer.name} {layer.output})"
        if resident.last > resident.born:
            name += f", until layer {resident.last}"
    rows = f"rows {resident.row}..{resident.row + resident.rows - 1}, {size(nbytes)}"
    label = size(nbytes)
    fits = tall >= 13 and right - left >= 6.2 * len(label) + 6
    return element(
        "g",
        element("title", f"{name}: {rows}"),
        element(
            "rect",
            x=left + 0.75,
            y=y,
            width=right - left - 1.5,
            height=max(tall, 1.5),
            rx=min(2.0, tall / 2),
            class_=f"c{number % _COLOURS}",
        ),
        *(
            [element("text", label, x=(left + right) / 2, y=y + tall / 2 + 4, class_="in")]
            if fits
            else []
        ),
        class_="resident",
    )
