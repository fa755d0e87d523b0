"""A measurement as lines of text, for terminals and logs."""

from __future__ import annotations

from k210tasks.artifacts.doubts import counted
from k210tasks.artifacts.measurement import Measurement, SampleFigures
from k210tasks.steps.judge import boxes_found, checked_on, fixed, percent

#: How many of the worst samples a log lists.
WORST = 10


def table(m: Measurement) -> list[str]:
    """One line an output, then accuracy and the worst sample."""
    width = max(6, *(len(o.name) for o in m.outputs))
    lines = [f"{'output':<{width}}  cosine     min  SNR dB  max error    top-1"]
    for o in m.outputs:
        top1 = "-" if o.top1_agreement is None else percent(o.top1_agreement)
        lines.append(
            f"{o.name:<{width}}  {fixed(o.cosine_mean)}  {fixed(o.cosine_min):>6}"
            f"  {o.snr_db:6.1f}  {o.max_abs_error:9.4g}  {top1:>7}"
        )
        if o.non_finite:
            lines.append(
                f"  infinite or not a number for {o.non_finite} samples, "
                f"first {m.path(o.non_finite_file)}"
            )
    worst = m.worst_output.cosine_min_file
    lines.append(counted(m.samples, "sample") + (f", worst {m.path(worst)}" if worst else ""))
    if m.boxes is not None:
        lines.append(boxes_found(m.boxes))
    if (right := m.accuracy) is not None:
        lines.append(
            f"accuracy: float {percent(right.float_model)}, kmodel {percent(right.kmodel)}"
        )
    return [*lines, checked_on(m)]


def details(m: Measurement) -> list[str]:
    """The worst samples and the layers, for a log."""
    lines = []
    if len(m.images) > 1:
        lines.append("worst samples, by the cosine of their worst output:")
        ranked = sorted(m.images, key=lambda image: min(map(_rank, image.cosine)))
        for image in ranked[:WORST]:
            shown = " ".join("none" if c is None else fixed(c) for c in image.cosine)
            lines.append(f"  {shown}  {image.file}{_picked(image)}")
    if m.layers:
        lines.append("layers against the float model's tensors:")
        lines += [
            f"  {row.snr_db:6.1f} dB  {row.index}: {row.name}"
            f"{' of ' + ', '.join(row.source) if row.source else ''}"
            for row in m.layers
        ]
    return lines


def _rank(cosine: float | None) -> float:
    """What is not finite is worse than anything."""
    return -2.0 if cosine is None else cosine


def _picked(image: SampleFigures) -> str:
    """Where the two models choose different classes."""
    differing = [pair for pair in image.top1 if pair is not None and pair[0] != pair[1]]
    return "".join(f", float model picks {a}, kmodel {b}" for a, b in differing)
