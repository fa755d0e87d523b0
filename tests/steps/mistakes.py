"""How often the hint about preprocessing is right: small classifiers, fed as they must not be.

    python -m tests.steps.mistakes [--rounds N] [--seed FIRST]

prints the table of true mistake × hint given. Every classifier is trained here, in closed
form: ridge regression on pixels, on random ReLU features or on random convolutions, for
the repository's digits, crosses and circles and for coloured shapes drawn here. Seeds are
fixed, so that the table is the same everywhere.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from k210tasks.samples.folder import evenly_spaced
from k210tasks.samples.preprocess import PerChannel
from k210tasks.steps.explain import (
    PAIRS,
    Explanation,
    Setting,
    explain,
    promising,
    settings_to_try,
)
from k210tasks.steps.trials import FIRST, KEPT, recolored

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray
#: Pairs that are in no table, as people state them.
ODD = ((127.5, 127.5), (0.5, 0.25), (0.25, 1.0), (0.0, 2.0))
PALETTE = (
    (220, 40, 40),
    (40, 200, 60),
    (50, 70, 230),
    (220, 200, 40),
    (200, 60, 200),
    (60, 200, 200),
)


@dataclass(frozen=True)
class Data:
    """Pictures uint8 [N, C, H, W] and the index of their class."""

    train: Array
    train_label: Array
    test: Array
    test_label: Array
    classes: int


@cache
def shapes(seed: int, classes: int, colored: str) -> Data:
    """Coloured shapes on noise. ``colored``: "only", what tells the classes; "also", beside
    the shape; "never", any colour for any."""
    rng = np.random.default_rng([seed, classes])
    hues = rng.permutation(len(PALETTE))[:classes]
    forms = rng.permutation(6)[:classes]

    def draw(n: int) -> tuple[Array, Array]:
        label = rng.permutation(np.arange(n) % classes)
        out = rng.integers(0, 90, (n, 3, 16, 16)) + rng.integers(0, 60, (n, 3, 1, 1))
        y, x = np.mgrid[:16, :16]
        for i, c in enumerate(label):
            r, cy, cx = rng.integers(4, 7), *rng.integers(6, 10, 2)
            dy, dx = y - cy, x - cx
            kind = forms[c] if colored != "only" else rng.integers(6)
            inside = [
                dy**2 + dx**2 <= r * r,
                (abs(dy) <= r) & (abs(dx) <= r),
                (abs(dx) <= (dy + r) / 2) & (dy <= r),
                (abs(dy) <= 1) | (abs(dx) <= 1),
                (abs(dy - dx) <= 1) | (abs(dy + dx) <= 1),
                (dy**2 + dx**2 <= r * r) & (dy**2 + dx**2 >= (r - 2) ** 2),
            ][kind]
            hue = PALETTE[hues[c] if colored != "never" else rng.integers(len(PALETTE))]
            shade = np.array(hue)[:, None] + rng.integers(-35, 36, (3, 1))
            out[i][:, inside] = shade + rng.integers(-15, 16, (3, int(inside.sum())))
        return np.clip(out, 0, 255).astype(np.uint8), label

    return Data(*draw(600), *draw(200), classes)


@cache
def pictures(name: str) -> Data:
    """The repository's own: calibration and verification folders together, then halved."""
    found: list[tuple[Array, str]] = []
    for path in sorted((ROOT / "images" / name).rglob("*.*")):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("L").resize((14, 14)))
        found.append((pixels[None], path.parent.name))
    named = sorted({n for _, n in found})
    x = np.stack([p for p, _ in found])
    label = np.array([named.index(n) for _, n in found])
    order = np.random.default_rng(0).permutation(len(x))
    x, label, half = x[order], label[order], len(x) // 2
    return Data(x[:half], label[:half], x[half:], label[half:], len(named))


def normalised(pixels: Array, mean: PerChannel, std: PerChannel) -> Array:
    assert not isinstance(mean, tuple)
    assert not isinstance(std, tuple)
    return (pixels / 255 - mean) / std


def train(
    rng: np.random.Generator, data: Data, meant: Setting, kind: str, label: Array
) -> Callable[[Array], Array]:
    """A function of normalised pictures to scores."""
    x = normalised(recolored(data.train, "rgb", meant.color), meant.mean, meant.std)
    scale = float(np.abs(x).mean())
    if kind == "conv":
        weights = rng.normal(0, 1 / np.sqrt(9 * x.shape[1]), (32, x.shape[1], 3, 3))
        bias = rng.normal(0, 0.5 * scale, 32)

        def features(x: Array) -> Array:
            windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2]
            maps = np.einsum("nchwij,ocij->nohw", windows, weights, optimize=True)
            maps = np.maximum(maps + bias[:, None, None], 0)
            n, o, h, w = maps.shape
            cut = maps[:, :, : h // 2 * 2, : w // 2 * 2]
            return cut.reshape(n, o, h // 2, 2, w // 2, 2).max((3, 5)).reshape(n, -1)
    elif kind == "relu":
        size = x[0].size
        weights = rng.normal(0, 1 / np.sqrt(size), (size, 300))
        bias = rng.normal(0, scale, 300)

        def features(x: Array) -> Array:
            return np.maximum(x.reshape(len(x), -1) @ weights + bias, 0)
    else:

        def features(x: Array) -> Array:
            return x.reshape(len(x), -1)

    def extended(x: Array) -> Array:
        f = features(x)
        return np.concatenate([f, np.full((len(f), 1), scale)], 1)

    f = extended(x)
    gram = f.T @ f
    gram += 0.02 * np.trace(gram) / len(gram) * np.eye(len(gram))
    solution = np.linalg.solve(gram, f.T @ np.eye(data.classes)[label])
    return lambda x: extended(x) @ solution


@dataclass(frozen=True)
class Case:
    mistake: str
    meant: Setting
    stated: Setting
    order: tuple[int, ...] | None  # the right answer of the hint about labels
    solvable: bool  # what was done wrong can be stated right
    data: Data
    predict: Callable[[Array], Array]
    pixels: Array
    truth: Array  # by the labels as stated


MISTAKES = (
    "right", "pair", "odd pair", "colours", "grey training", "grey pictures", "labels rotated",
    "two labels swapped", "pair and colours", "pair and labels", "colours and labels",
    "noise", "chance",
)  # fmt: skip


def make(mistake: str, seed: int) -> Case | None:
    """One classifier and its pictures; None where the mistake makes no sense for them."""
    rng = np.random.default_rng([MISTAKES.index(mistake), seed])
    source = rng.choice(["only", "also", "also", "never", "digits", "nn_xo"])
    grey = source in ("digits", "nn_xo")
    if grey and ("colours" in mistake or mistake.startswith("grey")):
        return None
    if grey:
        data = pictures(source)
    else:
        data = shapes(int(rng.integers(4)), int(rng.integers(2, 6)), source)
    pairs = list(PAIRS)
    color = None if grey else ("rgb", "bgr")[rng.integers(2)]
    if mistake == "grey training":
        color = "gray"
    meant = Setting(*pairs[rng.integers(len(pairs))], color)
    stated, order, solvable = meant, None, True
    if "pair" in mistake:
        others: list[tuple[PerChannel, PerChannel]] = list(ODD)
        if mistake != "odd pair":
            others = [p for p in pairs if p != (meant.mean, meant.std)]
        mean, std = others[rng.integers(len(others))]
        stated = replace(stated, mean=mean, std=std)
    if "colours" in mistake or mistake == "grey training":
        stated = replace(stated, color="bgr" if meant.color == "rgb" else "rgb")
    k = data.classes
    if "rotated" in mistake or "and labels" in mistake:
        order = tuple(np.roll(np.arange(k), int(rng.integers(1, k))).tolist())
    if mistake == "two labels swapped":
        a, b = rng.permutation(k)[:2]
        swapped = np.arange(k)
        swapped[[a, b]] = b, a
        order = tuple(swapped.tolist())
    label = data.train_label
    if mistake == "chance":
        label = rng.permutation(label)
    # Some are trained on little, and are good on little.
    few = int(rng.choice([60, 200, len(label)]))
    taught = replace(data, train=data.train[:few], train_label=label[:few])
    kind = str(rng.choice(["linear", "relu", "conv"]))
    predict = train(rng, taught, meant, kind, label[:few])
    n = int(rng.choice([6, 12, 30, 60, 100, 200]))
    pixels, truth = data.test[:n], data.test_label[:n]
    if mistake == "noise":
        pixels = rng.integers(0, 256, pixels.shape).astype(np.uint8)
        solvable = False
    if mistake == "chance":
        solvable = False
    if mistake == "grey pictures":
        pixels, solvable = recolored(pixels, "rgb", "gray"), False
    if order is not None:
        # order[score] is the stated label that belongs there: class c is called order[c].
        truth = np.array(order)[truth]
    if mistake == "right":
        solvable = False
    return Case(mistake, meant, stated, order, solvable, data, predict, pixels, truth)


def answers(case: Case) -> dict[Setting, Array]:
    """The picks under every setting that is tried."""
    return {
        s: case.predict(normalised(recolored(case.pixels, "rgb", s.color), s.mean, s.std))
        for s in (case.stated, *settings_to_try(case.stated))
    }


def told(case: Case, scores: dict[Setting, Array]) -> Explanation | None:
    """As steps/trials.py goes about it."""
    first = list(evenly_spaced(range(len(case.truth)), FIRST))
    tried = {s: a[first] for s, a in scores.items()}
    kept = promising(case.truth[first], tried, case.stated, KEPT)
    return explain(case.truth, {s: scores[s] for s in kept}, case.stated)


def kind_of(stated: Setting, given: Explanation | None) -> str:
    if given is None:
        return "none"
    parts = ["pair"] * ((given.setting.mean, given.setting.std) != (stated.mean, stated.std))
    parts += ["colours"] * (given.setting.color != stated.color)
    parts += ["labels"] * (given.order is not None)
    return " and ".join(parts)


def place(picked: Array, order: tuple[int, ...] | None) -> Array:
    return picked if order is None else np.array(order)[picked]


def judged(case: Case) -> tuple[str, str]:
    """What was hinted, and the verdict.

    "right"; "other": another mean and std, where they were wrong; "as good": something else
    that makes the model right as often, so that nobody could tell from these pictures;
    "part": true, but not all; "wrong"; "silent", where nothing can be said; "no evidence":
    too few pictures, or too bad a model; "missed".
    """
    scores = answers(case)
    picks = {s: a.argmax(1) for s, a in scores.items()}
    meant, stated = case.meant, case.stated
    now = picks[stated] == case.truth
    true = place(picks[meant], case.order) == case.truth
    given = told(case, scores)
    hinted = kind_of(stated, given)
    if given is None:
        if not case.solvable:
            return hinted, "silent"
        enough = true.sum() - now.sum() >= 10 and true.mean() > (1 + now.mean()) / 2
        return hinted, "missed" if enough else "no evidence"
    if not case.solvable:
        return hinted, "wrong"
    if (given.setting, given.order) == (meant, case.order):
        return hinted, "right"
    if hinted == kind_of(stated, Explanation(meant, case.order, 0, 0, 0)) and (
        (given.order, given.setting.color) == (case.order, meant.color)
    ):
        return hinted, "other"
    right = place(picks[given.setting], given.order) == case.truth
    if right.sum() >= true.sum() - 1:
        return hinted, "as good"
    parts = (
        given.setting.color in (meant.color, stated.color),
        pair(given.setting) in (pair(meant), pair(stated)),
        given.order in (case.order, None),
    )
    return hinted, "part" if all(parts) else "wrong"


def pair(setting: Setting) -> tuple[PerChannel, PerChannel]:
    return setting.mean, setting.std


def run(rounds: int, first: int = 0) -> Counter[tuple[str, str, str]]:
    """How often each (mistake, hint, verdict), over ``rounds`` seeds from ``first`` on."""
    found: Counter[tuple[str, str, str]] = Counter()
    for mistake in MISTAKES:
        for seed in range(first, first + rounds):
            if (case := make(mistake, seed)) is not None:
                found[(mistake, *judged(case))] += 1
    return found


VERDICTS = ("right", "other", "as good", "part", "wrong", "missed", "no evidence", "silent")


def table(found: Counter[tuple[str, str, str]]) -> list[str]:
    """One line a mistake: the verdicts, then the hints."""
    lines = [f"{'mistake':<20}" + "".join(f"{v:>12}" for v in VERDICTS) + "   hints"]
    for mistake in (*MISTAKES, "all"):
        mine = {k: n for k, n in found.items() if mistake in (k[0], "all")}
        hints: Counter[str] = Counter()
        for (_, hint, _), n in mine.items():
            hints[hint] += n
        counts = [sum(n for k, n in mine.items() if k[2] == v) for v in VERDICTS]
        told = ", ".join(f"{hint} {n}" for hint, n in hints.most_common())
        lines.append(f"{mistake:<20}" + "".join(f"{n:>12}" for n in counts) + f"   {told}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    args = parser.parse_args()
    print("\n".join(table(run(args.rounds, args.seed))))


if __name__ == "__main__":
    main()
