"""The verify images of a model, the worst first: what both models answered, and a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k210tasks.report import lenient
from k210tasks.report.facts import Plot, Sample, Scores
from k210tasks.report.lenient import Json

#: Longer side of a thumbnail, in pixels; and its data at most: a page stays small.
THUMBNAIL = 112
THUMBNAIL_BYTES = 16_000
#: Pictures that are read for it, at most.
PICTURE_BYTES = 32 << 20


def samples(measured: Json, labels: Sequence[str], folder: Path) -> tuple[Sample, ...]:
    """Every measured image; pictures and answers for those the measurement has answers of."""
    images = lenient.mappings(measured.get("images"))
    names = [lenient.text(o.get("name")) for o in lenient.mappings(measured.get("outputs"))]
    labels = labels or _classes(images)
    answers = {
        lenient.text(entry.get("file")): (place, lenient.mappings(entry.get("outputs")))
        for place, entry in enumerate(lenient.mappings(measured.get("answers")))
    }
    found = []
    for image in images:
        file = lenient.text(image.get("file"))
        place, outputs = answers.get(file, (len(images), []))
        found.append(
            (place, _sample(image, file, outputs, names, labels, folder if outputs else None))
        )
    found.sort(key=lambda pair: (pair[0], *_badness(pair[1])))
    return tuple(sample for _, sample in found)


def _badness(sample: Sample) -> tuple[bool, float]:
    return sample.agrees, sample.cosine if sample.cosine is not None else -2.0


def _classes(images: Sequence[Json]) -> tuple[str, ...]:
    """The sorted folder names, which are the labels where none were given."""
    return tuple(sorted({lenient.text(i.get("class")) for i in images if i.get("class")}))


def _sample(
    image: Json,
    file: str,
    outputs: Sequence[Json],
    names: Sequence[str],
    labels: Sequence[str],
    folder: Path | None,
) -> Sample:
    cosines = [lenient.number(c) for c in lenient.listed(image.get("cosine"))]
    errors = [lenient.number(e) for e in lenient.listed(image.get("max_abs_error"))]
    picks = next((p for p in lenient.listed(image.get("top1")) if isinstance(p, list)), None)
    return Sample(
        file=file,
        truth=lenient.text(image.get("class")) or None,
        cosine=lenient.lowest(cosines),
        max_abs_error=max((e for e in errors if e is not None), default=None),
        float_class=_label(lenient.at(picks, 0), labels),
        kmodel_class=_label(lenient.at(picks, 1), labels),
        answers=tuple(
            (names[i] if i < len(names) else f"output {i}", _answer(output, labels))
            for i, output in enumerate(outputs)
        ),
        picture=None if folder is None else thumbnail(folder / file),
    )


def _label(index: Any, labels: Sequence[str]) -> str | None:
    number = lenient.whole(index)
    if number is None:
        return None
    return labels[number] if 0 <= number < len(labels) else f"class {number}"


def _answer(output: Json, labels: Sequence[str]) -> Scores | Plot:
    if "top" in output:
        return Scores(
            tuple(
                (
                    _label(lenient.at(row, 0), labels) or "?",
                    lenient.number(lenient.at(row, 1)),
                    lenient.number(lenient.at(row, 2)),
                )
                for row in lenient.listed(output["top"])
            )
        )
    pairs = tuple(
        (a, b)
        for pair in lenient.listed(output.get("pairs"))
        if (a := lenient.number(lenient.at(pair, 0))) is not None
        and (b := lenient.number(lenient.at(pair, 1))) is not None
    )
    grid = lenient.mapping(output.get("map"))
    rows, columns = lenient.whole(grid.get("rows")) or 0, lenient.whole(grid.get("columns")) or 0
    codes = tuple(
        max(0, min(255, code))
        for cell in lenient.listed(grid.get("codes"))
        if (code := lenient.whole(cell)) is not None
    )
    if len(codes) != rows * columns:
        rows = columns = 0
        codes = ()
    return Plot(pairs, rows, columns, lenient.number(grid.get("max")), codes)


def thumbnail(path: Path) -> str | None:
    """A picture as a small data URI; None for tensors and what cannot be read."""
    from PIL import Image

    from k210tasks.process_wide import unwarned

    if path.suffix.lower() in (".npy", ".bin"):
        return None
    try:
        if path.stat().st_size > PICTURE_BYTES:
            return None
        with unwarned, Image.open(path) as opened:
            opened.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
            small = max(opened.size) <= THUMBNAIL
            picture = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
        if not small:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
        kind, data = ("png", _saved(picture, "PNG")) if small else ("", b"")
        if not data or len(data) > THUMBNAIL_BYTES:
            kind, data = "jpeg", _saved(picture, "JPEG")
    except Exception:  # Pillow's plugins raise what they like on damaged files
        return None
    if len(data) > THUMBNAIL_BYTES:
        return None
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _saved(picture: Any, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "PNG":
        picture.save(file, kind, optimize=False)
    else:
        picture.save(file, kind, quality=78)
    return file.getvalue()
