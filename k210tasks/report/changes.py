"""What changed from one build of a model to another: size, memory, accuracy, layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from k210tasks.report.facts import Build, Layer
from k210tasks.wording import count, decimals, milliseconds, share

Direction = Literal["better", "worse", "same", "other"]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure before and after, as numbers and as text. ``change``: as text, "" for none."""

    what: str
    key: str  # for programs
    before: float | str | None
    after: float | str | None
    before_text: str
    after_text: str
    change: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class LayerChange:
    """``kind``: "same", "changed", "added" or "removed"."""

    kind: str
    before: Layer | None
    after: Layer | None
    changes: tuple[str, ...] = ()  # "kernel 3x3 → 1x1"


@dataclass(frozen=True, slots=True)
class Comparison:
    figures: tuple[Change, ...]
    layers: tuple[LayerChange, ...]

    @property
    def changed_layers(self) -> tuple[LayerChange, ...]:
        return tuple(layer for layer in self.layers if layer.kind != "same")

    @property
    def changed_figures(self) -> tuple[Change, ...]:
        return tuple(figure for figure in self.figures if figure.direction != "same")


#: key, title, how a value is written, whether less is better (None: neither)
_FIGURES: tuple[tuple[str, str, Any, bool | None], ...] = (
    ("kmodel", "kmodel version", str, None),
    ("compiler", "compiler", str, None),
    ("nbytes", "file, bytes", count, True),
    ("kpu_bytes", "KPU memory, bytes", count, True),
    ("main_bytes", "main memory, bytes", count, True),
    ("macs", "MACs on the KPU", count, True),
    ("estimated_ms", "KPU time, estimated", milliseconds, True),
    ("layer_count", "layers", count, None),
)
_ACCURACY: tuple[tuple[str, str, Any, bool | None], ...] = (
    ("cosine", "cosine to float", lambda v: decimals(v, 5), False),
    ("snr_db", "SNR, dB", lambda v: f"{v:.1f}", False),
    ("max_abs_error", "largest error", lambda v: f"{v:.4g}", True),
    ("top1", "top-1 agreement", share, False),
    ("f1", "F1 of boxes", lambda v: decimals(v, 4), False),
    ("overlap", "mean IoU of boxes", lambda v: decimals(v, 4), False),
    ("float_accuracy", "accuracy, float", share, None),
    ("kmodel_accuracy", "accuracy, kmodel", share, False),
    ("samples", "images", count, None),
)


def compare(before: Build, after: Build) -> Comparison:
    """Every figure known of either, and the layers side by side."""
    figures = []
    for key, what, write, less in _FIGURES:
        if key == "layer_count":
            pair: Sequence[Any] = [len(b.layers) or None for b in (before, after)]
        else:
            pair = [getattr(b, key) for b in (before, after)]
        figures.append(_change(what, key, pair[0], pair[1], write, less))
    for key, what, write, less in _ACCURACY:
        pair = [None if b.accuracy is None else getattr(b.accuracy, key) for b in (before, after)]
        figures.append(_change(what, key, pair[0], pair[1], write, less))
    known = [f for f in figures if f.before is not None or f.after is not None]
    # Where one file does not tell its layers, nothing is known to differ.
    layers = _layers(before.layers, after.layers) if before.layers and after.layers else []
    return Comparison(tuple(known), tuple(layers))


def _change(
    what: str, key: str, before: Any, after: Any, write: Any, less_is_better: bool | None
) -> Change:
    texts = ["unknown" if v is None else write(v) for v in (before, after)]
    direction: Direction = "same"
    change = ""
    if before != after:
        direction = "other"
        if isinstance(before, (int, float)) and isinstance(after, (int, float)) and key != "kmodel":
            difference = after - before
            change = ("+" if difference > 0 else "−") + write(abs(difference))
            percent = 100 * difference / before if isinstance(before, int) and before else 0.0
            if abs(percent) >= 0.05:
                places = 1 if abs(percent) < 100 else 0
                change += f" ({percent:+.{places}f} %)".replace("-", "−")
            if less_is_better is not None:
                direction = "better" if (difference < 0) == less_is_better else "worse"
            if texts[0] == texts[1]:
                change, direction = "", "same"  # no one can see it
    return Change(what, key, before, after, texts[0], texts[1], change, direction)


def _layers(before: Sequence[Layer], after: Sequence[Layer]) -> list[LayerChange]:
    """Aligned by kind and shapes; what stands at the same place is compared."""
    matcher = SequenceMatcher(
        a=[_shape(layer) for layer in before], b=[_shape(layer) for layer in after], autojunk=False
    )
    found: list[LayerChange] = []
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        if tag in ("equal", "replace"):
            pairs = min(a1 - a0, b1 - b0)
            for i in range(pairs):
                found.append(_layer(before[a0 + i], after[b0 + i]))
            a0, b0 = a0 + pairs, b0 + pairs
        found += [LayerChange("removed", layer, None) for layer in before[a0:a1]]
        found += [LayerChange("added", None, layer) for layer in after[b0:b1]]
    return found


def _shape(layer: Layer) -> tuple[str, ...]:
    return (layer.name, layer.input, layer.output, layer.kernel, layer.pool)


#: what is compared of two layers at one place
_FIELDS = ("name", "input", "output", "kernel", "pool", "runs_on", "weight_bytes")


def _layer(before: Layer, after: Layer) -> LayerChange:
    changes = []
    for key in _FIELDS:
        old, new = getattr(before, key), getattr(after, key)
        if old != new:
            title = key.replace("_", " ")
            changes.append(f"{title} {_shown(old)} → {_shown(new)}")
    a, b = before.snr_db, after.snr_db
    if a is not None and b is not None and abs(a - b) >= 1:
        changes.append(f"SNR {a:.1f} → {b:.1f} dB")
    return LayerChange("changed" if changes else "same", before, after, tuple(changes))


def _shown(value: Any) -> str:
    return "none" if value in ("", None) else str(value)
