"""The verify images of a model, the worst first: what both models answered, and a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from k210tasks.artifacts.measurement import (
    BothBoxes,
    Measurement,
    Pairs,
    SampleFigures,
    Shown,
    TopScores,
)
from k210tasks.report.facts import DrawnBox, Plot, Sample, Scores

#: Longer side of a thumbnail in pixels, alone and below boxes; its data at most: a page stays
#: small.
THUMBNAIL, WITH_BOXES = 112, 240
THUMBNAIL_BYTES = 16_000
#: Pictures that are read for it, at most.
PICTURE_BYTES = 32 << 20


def samples(m: Measurement, labels: Sequence[str], folder: Path) -> tuple[Sample, ...]:
    """Every measured image; pictures and answers for those the measurement has answers of."""
    labels = labels or sorted({image.truth for image in m.images if image.truth})
    names = [output.name for output in m.outputs]
    answers = {e.file: (place, e.outputs, e.boxes) for place, e in enumerate(m.answers)}
    found = []
    for image in m.images:
        place, outputs, boxes = answers.get(image.file, (len(m.images), (), None))
        sample = _sample(image, outputs, names, labels, folder)
        found.append((place, replace(sample, boxes=_drawn(boxes, labels))))
    found.sort(key=lambda pair: (pair[0], *_badness(pair[1])))
    return tuple(sample for _, sample in found)


def _badness(sample: Sample) -> tuple[bool, float]:
    return sample.agrees, sample.cosine if sample.cosine is not None else -2.0


def _sample(
    image: SampleFigures,
    outputs: Sequence[TopScores | Pairs],
    names: Sequence[str],
    labels: Sequence[str],
    folder: Path,
) -> Sample:
    cosines = [c for c in image.cosine if c is not None]
    side = THUMBNAIL if image.f1 is None else WITH_BOXES
    picks = next((picks for picks in image.top1 if picks is not None), None)
    return Sample(
        file=image.file,
        truth=image.truth,
        cosine=min(cosines, default=None) if len(cosines) == len(image.cosine) else None,
        max_abs_error=max((e for e in image.max_abs_error if e is not None), default=None),
        float_class=None if picks is None else _label(picks[0], labels),
        kmodel_class=None if picks is None else _label(picks[1], labels),
        answers=tuple(
            (names[i] if i < len(names) else f"output {i}", _answer(output, labels))
            for i, output in enumerate(outputs)
        ),
        picture=thumbnail(folder / image.file, side) if outputs else None,
        f1=image.f1,
    )


def _drawn(boxes: BothBoxes | None, labels: Sequence[str]) -> tuple[DrawnBox, ...]:
    """The float model's first, so that the kmodel's lie upon them."""
    if boxes is None:
        return ()
    both: tuple[tuple[Literal["float", "kmodel"], tuple[Shown, ...]], ...] = (
        ("float", boxes.float_model),
        ("kmodel", boxes.kmodel),
    )
    return tuple(
        DrawnBox(
            b.left, b.top, b.right - b.left, b.bottom - b.top, by,
            f"{by} {_label(b.label, labels)}, {b.score:.2f}",
        )
        for by, all_ in both
        for b in all_
    )  # fmt: skip


def _label(index: int, labels: Sequence[str]) -> str:
    return labels[index] if 0 <= index < len(labels) else f"class {index}"


def _answer(output: TopScores | Pairs, labels: Sequence[str]) -> Scores | Plot:
    if isinstance(output, TopScores):
        return Scores(tuple((_label(i, labels), wanted, got) for i, wanted, got in output.top))
    pairs = tuple((a, b) for a, b in output.pairs if a is not None and b is not None)
    grid = output.map
    if grid is None or len(grid.codes) != grid.rows * grid.columns:
        return Plot(pairs)
    codes = tuple(max(0, min(255, code)) for code in grid.codes)
    return Plot(pairs, grid.rows, grid.columns, grid.max, codes)


def thumbnail(path: Path, side: int = THUMBNAIL) -> str | None:
    """A picture as a small data URI; None for tensors and what cannot be read."""
    from PIL import Image

    from k210tasks.process_wide import unwarned
    from k210tasks.samples.loading import FORMATS, refuse_large

    if path.suffix.lower() in (".npy", ".bin"):
        return None
    try:
        if path.stat().st_size > PICTURE_BYTES:
            return None
        Image.preinit()
        with unwarned, Image.open(path, formats=FORMATS) as opened:  # no other program is asked
            refuse_large(opened, path, path.name)
            opened.draft("RGB", (2 * side, 2 * side))
            small = max(opened.size) <= side
            picture = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
        if not small:
            picture.thumbnail((side, side))
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
