"""Which one mistake best explains that a float model is often wrong: the rule of the hint.

Three things are commonly wrong: the pair of mean and std, the order of the colours, the
order of the labels. Each is tried, alone and together with another, on the same pictures;
the rule says when one of them is named. It is stated for users in
docs/how-to/accuracy.md, and its error rate is measured by tests/steps/mistakes.py.

All evidence is paired, two explanations on the same pictures. One must make at most half as
many mistakes as the other, by more than luck (sign test on what it mends and spoils), and give
the pictures' classes a higher likelihood (Wilcoxon's signed-rank test on the log-likelihoods,
each explanation at its own best temperature). What could have been chosen from many
alternatives needs as much more evidence (Bonferroni): a pair of mean and std is one of six, a
colour one of two, an order of the labels that moves m of k labels one of C(k, m) times the
derangements of m.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from k210tasks.samples.preprocess import PerChannel

#: How probable the evidence may be at most if there were nothing in it.
ALPHA = 0.01
#: Evidence of what keeps a simpler explanation from being named, though no proof itself.
LIKELY = 0.05
#: An explanation must take away that share of the mistakes at least, …
MENDED = 0.5
#: … and so many that luck would seldom do it.
LUCK = 0.05
#: Likelihoods that differ by less, in nats, are the same: a model without biases answers alike
#: whatever the std.
AS_GOOD = 0.5
#: Weights of the pairs of mean and std, for what is seen more often is believed on less;
#: their sum is 1.
PAIRS: dict[tuple[PerChannel, PerChannel], float] = {
    (0.0, 1.0): 0.3,
    (0.5, 0.5): 0.3,
    (0.0, 1 / 255): 0.1,
    (0.5, 1 / 255): 0.1,
    (0.5, 1.0): 0.1,
    (0.449, 0.226): 0.1,  # those of ImageNet, all channels as one
}
#: Of a model with three channels; grey pictures have three equal ones.
COLORS = ("rgb", "bgr", "gray")


@dataclass(frozen=True, slots=True)
class Setting:
    """How pictures are fed; ``color`` None where the model knows but one."""

    mean: PerChannel
    std: PerChannel
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """``order``: of the labels, the index of the label that stands at each score now; None
    where they stay. ``right``: pictures right with it, ``of`` those tried."""

    setting: Setting
    order: tuple[int, ...] | None
    right: int
    of: int
    stated: int  # right as it is


@dataclass(frozen=True, slots=True)
class _Candidate:
    setting: Setting
    order: tuple[int, ...] | None
    right: NDArray[np.bool_]  # [n]
    fit: NDArray[np.float64]  # [n] log-likelihood of the class
    changes: frozenset[str]  # "pair", "color", "labels"
    bits: float  # log2 of the number of alternatives of which it is one

    @property
    def rank(self) -> int:
        """How much it supposes; an order of labels can imitate what a colour does."""
        return len(self.changes) + ("labels" in self.changes)

    @property
    def wrong(self) -> int:
        return int((~self.right).sum())


def settings_to_try(stated: Setting) -> list[Setting]:
    """All but the stated one: other pairs, other colours, and both."""
    pairs = dict.fromkeys([(stated.mean, stated.std), *PAIRS])
    colors = dict.fromkeys([stated.color, *COLORS]) if stated.color else [None]
    return [s for s in (Setting(*p, c) for c in colors for p in pairs) if s != stated]


def explain(
    truth: NDArray[np.intp],
    scores: Mapping[Setting, NDArray[np.floating]],
    stated: Setting,
) -> Explanation | None:
    """The one explanation that is clearly better than the stated setting and than all others.

    ``truth`` [n]: the index of each picture's label. ``scores`` [n, classes], finite, by setting.
    """
    now, *candidates = _candidates(truth, scores, stated)
    good = [c for c in candidates if _mends(c, now) and _proven(c, now)]
    for rank in sorted({c.rank for c in good}):
        best = _best([c for c in good if c.rank == rank])
        rivals = [c for c in candidates if c.changes != best.changes]
        more = [c for c in rivals if c.rank > rank and _mends(c, best)]
        if any(_proven(c, best) for c in more):
            continue  # this is part of it at most
        if any(_likely(c, best) for c in more):
            return None
        # As simple, or simpler, and not clearly worse: nobody can tell which it is.
        if not all(_proven(best, c) for c in rivals if c.rank <= rank):
            return None
        if not all(_mends(best, c) for c in rivals if c.rank < rank):
            return None
        n = len(truth)
        return Explanation(best.setting, best.order, n - best.wrong, n, n - now.wrong)
    return None


def _best(level: Sequence[_Candidate]) -> _Candidate:
    """The one of the highest likelihood; of those that are as good, the commonest."""
    highest = max(float(c.fit.sum()) for c in level)
    return min((c for c in level if c.fit.sum() > highest - AS_GOOD), key=lambda c: c.bits)


def _candidates(
    truth: NDArray[np.intp], scores: Mapping[Setting, NDArray[np.floating]], stated: Setting
) -> Iterator[_Candidate]:
    """The stated setting first, unchanged."""
    for setting in (stated, *(s for s in scores if s != stated)):
        changes, bits = set(), 0.0
        if (setting.mean, setting.std) != (stated.mean, stated.std):
            changes.add("pair")
            bits -= math.log2(PAIRS[setting.mean, setting.std])
        if setting.color != stated.color:
            changes.add("color")
            bits += math.log2(len(COLORS) - 1)
        answers = scores[setting]
        yield _candidate(setting, answers, truth, None, changes, bits)
        order = label_order(truth, answers.argmax(1), answers.shape[1])
        if order is not None:
            bits += order_bits(len(order), sum(i != label for i, label in enumerate(order)))
            place = np.argsort(order)[truth]
            yield _candidate(setting, answers, place, order, changes | {"labels"}, bits)


def _candidate(
    setting: Setting,
    scores: NDArray[np.floating],
    place: NDArray[np.intp],
    order: tuple[int, ...] | None,
    changes: set[str],
    bits: float,
) -> _Candidate:
    """``place``: of each picture, the score that should be the largest."""
    right, fit = scores.argmax(1) == place, log_likelihood(scores, place)
    return _Candidate(setting, order, right, fit, frozenset(changes), bits)


def log_likelihood(scores: NDArray[np.floating], place: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of each picture's class by the scores [n, classes], at the temperature that suits them best.

    So a model fed with pictures too dark or too bright is not taken for less sure, or for surer.
    """
    logits = scores.astype(np.float64)
    if (logits >= 0).all() and np.allclose(logits.sum(1), 1, atol=0.02):
        logits = np.log(np.maximum(logits, 1e-6))
    logits = logits - logits.max(1, keepdims=True)
    width = float(np.abs(logits).mean()) or 1.0
    best = np.full(len(logits), -np.inf)
    for temperature in width * np.geomspace(0.02, 20, 13):
        scaled = logits / temperature
        fit = scaled[np.arange(len(place)), place] - np.log(np.exp(scaled).sum(1))
        if fit.sum() > best.sum():
            best = fit
    return best


def promising(
    truth: NDArray[np.intp],
    scores: Mapping[Setting, NDArray[np.floating]],
    stated: Setting,
    count: int,
) -> list[Setting]:
    """The stated setting, and of the others the ``count`` that are right most often and the
    ``count`` that are with the labels in whatever order suits them."""

    def right(setting: Setting) -> tuple[int, int]:
        picked = scores[setting].argmax(1)
        order = label_order(truth, picked, scores[setting].shape[1])
        named = picked if order is None else np.array(order)[picked]
        return int((picked == truth).sum()), int((named == truth).sum())

    found = {s: right(s) for s in scores if s != stated}
    simple = sorted(found, key=lambda s: -found[s][0])[:count]
    ordered = sorted(found, key=lambda s: -found[s][1])[:count]
    return list(dict.fromkeys([stated, *simple, *ordered]))


def label_order(
    truth: NDArray[np.intp], picked: NDArray[np.intp], classes: int
) -> tuple[int, ...] | None:
    """The label at each score that the answers speak for; None where they stay or none fits.

    A score belongs to a label where each is what goes with the other most often. What is
    left over stays at its place, or takes the only one that is free.
    """
    counts = np.zeros((classes, classes), np.int64)  # score, label
    np.add.at(counts, (picked, truth), 1)
    label_of, score_of = counts.argmax(1), counts.argmax(0)
    order = {
        s: int(label_of[s])
        for s in range(classes)
        if counts[s].any() and score_of[label_of[s]] == s
    }
    free = set(range(classes)) - set(order.values())
    for score in set(range(classes)) - set(order):
        if score in free:
            order[score] = score
    free -= set(order.values())
    if len(free) == 1:
        [score] = set(range(classes)) - set(order)
        order[score] = free.pop()
    found = tuple(order.get(s, -1) for s in range(classes))
    return None if free or found == tuple(range(classes)) else found


def order_bits(classes: int, moved: int) -> float:
    """log2 of the number of orders that leave all but ``moved`` labels in place.

    These are C(classes, moved) choices of the labels, times their derangements.
    """
    derangements = 1
    for n in range(2, moved + 1):
        derangements = n * derangements + (-1) ** n if n > 2 else 1
    return math.log2(math.comb(classes, moved) * derangements)


def _mends(one: _Candidate, other: _Candidate) -> bool:
    """Whether the first takes away many of the other's mistakes, and not by luck."""
    mended = int((one.right & ~other.right).sum())
    spoilt = int((other.right & ~one.right).sum())
    return one.wrong <= (1 - MENDED) * other.wrong and sign_test(mended, spoilt) <= LUCK


def could_mend(wrong: int) -> bool:
    """Whether so many mistakes, all of them mended, would count."""
    return sign_test(wrong, 0) <= LUCK


def sign_test(mended: int, spoilt: int) -> float:
    """Probability of so many mended or more, were mending and spoiling equally likely."""
    n = mended + spoilt
    return math.ldexp(sum(math.comb(n, k) for k in range(mended, n + 1)), -n)


def _proven(one: _Candidate, other: _Candidate) -> bool:
    """Whether the first is clearly the better explanation, for all that it supposes."""
    bits = max(0.0, one.bits - other.bits)
    return signed_rank(one.fit - other.fit) + bits <= math.log2(ALPHA)


def _likely(one: _Candidate, other: _Candidate) -> bool:
    """Whether there is some evidence for the first, though no proof."""
    return signed_rank(one.fit - other.fit) <= math.log2(LIKELY)


_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def signed_rank(differences: NDArray[np.float64]) -> float:
    """log2 of the probability of differences so far above 0, were their signs up to chance.

    Wilcoxon's test; never less than one over the number of all signs.
    """
    kept = differences[np.abs(differences) > 1e-9]
    n = len(kept)
    if n == 0:
        return 0.0
    size = np.abs(kept)
    below, upto = (np.searchsorted(np.sort(size), size, s) for s in _SIDES)
    ranks = (below + upto + 1) / 2  # equal ones share theirs
    total, variance = float(ranks[kept > 0].sum()), float((ranks**2).sum()) / 4
    z = (total - float(ranks.sum()) / 2) / math.sqrt(variance)
    tail = math.erfc(z / math.sqrt(2)) / 2
    return max(-float(n), math.log2(tail) if tail > 0 else -float(n))
