"""The rule of the hint, on answers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from k210tasks.steps.explain import (
    PAIRS,
    Setting,
    could_mend,
    explain,
    label_order,
    log_likelihood,
    order_bits,
    settings_to_try,
    sign_test,
    signed_rank,
)

STATED = Setting(0.0, 1.0, "rgb")
BGR = Setting(0.0, 1.0, "bgr")
HALF = Setting(0.5, 0.5, "rgb")
TRUTH = np.arange(60) % 3


def scores(picked: np.ndarray, sure: float = 3.0, seed: int = 0) -> np.ndarray:
    """Logits whose largest is the picked one, by ``sure`` on average."""
    found = np.random.default_rng(seed).normal(0, 0.3, (len(picked), 3))
    found[np.arange(len(picked)), picked] += sure
    return found


def wrong_on(count: int) -> np.ndarray:
    """The right answers but for the first ``count``."""
    other = (TRUTH + 1 + np.arange(60) // 3 % 2) % 3
    return np.where(np.arange(60) < count, other, TRUTH)


def test_weights_are_of_one_whole() -> None:
    assert sum(PAIRS.values()) == pytest.approx(1)


def test_what_is_tried() -> None:
    assert len(settings_to_try(STATED)) == 3 * 6 - 1
    assert len(settings_to_try(Setting(127.5, 127.5, "bgr"))) == 3 * 7 - 1
    assert {s.color for s in settings_to_try(Setting(0.0, 1.0))} == {None}


def test_a_colour_that_mends_all() -> None:
    found = explain(TRUTH, {STATED: scores(wrong_on(40)), BGR: scores(TRUTH)}, STATED)
    assert found is not None
    assert (found.setting, found.order) == (BGR, None)
    assert (found.stated, found.right, found.of) == (20, 60, 60)


def test_a_tenth_wrong_is_enough_where_all_of_it_is_mended() -> None:
    given = {STATED: scores(wrong_on(6), 1.0), HALF: scores(TRUTH, 3.0, seed=1)}
    found = explain(TRUTH, given, STATED)
    assert found is not None
    assert found.setting == HALF


def test_what_mends_less_than_half_is_no_explanation() -> None:
    assert (
        explain(TRUTH, {STATED: scores(wrong_on(60)), HALF: scores(wrong_on(35))}, STATED) is None
    )


def test_luck_is_no_explanation() -> None:
    assert explain(TRUTH, {STATED: scores(wrong_on(3)), HALF: scores(TRUTH)}, STATED) is None
    assert not could_mend(4)
    assert could_mend(5)


def test_labels_that_are_rotated() -> None:
    answers = scores((TRUTH + 1) % 3)  # the label of score s is s - 1
    found = explain(TRUTH, {STATED: answers, HALF: scores(wrong_on(41), seed=2)}, STATED)
    assert found is not None
    assert (found.setting, found.order) == (STATED, (2, 0, 1))


def test_a_colour_is_believed_before_an_order_of_labels_that_does_the_same() -> None:
    """Red and blue things change places when their planes do."""
    swapped = scores(np.array([2, 1, 0])[TRUTH])
    given = {STATED: swapped, BGR: swapped[:, [2, 1, 0]]}
    found = explain(TRUTH, given, STATED)
    assert found is not None
    assert (found.setting, found.order) == (BGR, None)


def test_of_two_things_that_mend_as_much_neither_is_named() -> None:
    given = {STATED: scores(wrong_on(40)), BGR: scores(TRUTH), HALF: scores(TRUTH)}
    assert explain(TRUTH, given, STATED) is None


def test_two_mistakes_at_once_are_named_together() -> None:
    both = Setting(0.5, 0.5, "bgr")
    given = {
        STATED: scores(wrong_on(50), 0.5),
        BGR: scores(wrong_on(40), 0.5, seed=1),
        HALF: scores(wrong_on(40), 0.5, seed=2),
        both: scores(TRUTH),
    }
    found = explain(TRUTH, given, STATED)
    assert found is not None
    assert found.setting == both


def test_pairs_that_do_alike_are_one_explanation_and_the_commoner_is_named() -> None:
    answers = scores(TRUTH)
    given = {
        STATED: scores(wrong_on(40)),
        Setting(0.5, 1.0, "rgb"): 0.5 * answers,
        Setting(0.5, 1 / 255, "rgb"): 127.5 * answers,
        HALF: answers,
    }
    found = explain(TRUTH, given, STATED)
    assert found is not None
    assert found.setting == HALF


@pytest.mark.parametrize(
    ("picked", "order"),
    [
        ([0, 1, 2], None),
        ([1, 2, 0], (2, 0, 1)),
        ([1, 0, 2], (1, 0, 2)),
    ],
)
def test_orders(picked: list[int], order: tuple[int, ...] | None) -> None:
    assert label_order(TRUTH, np.array(picked)[TRUTH], 3) == order


def test_a_class_without_pictures_keeps_its_place() -> None:
    truth = np.arange(20) % 2
    assert label_order(truth, 1 - truth, 3) == (1, 0, 2)
    assert label_order(truth, 2 - truth, 3) == (2, 1, 0)
    assert label_order(truth, 2 - truth, 4) == (2, 1, 0, 3)
    assert label_order(truth, 3 - truth, 4) is None  # labels 2 and 3 could stand at 0 or 1


def test_orders_are_counted() -> None:
    # by hand: 3 swaps and 2 rotations of three; 9 derangements of four
    assert order_bits(3, 2) == pytest.approx(math.log2(3))
    assert order_bits(3, 3) == pytest.approx(math.log2(2))
    assert order_bits(4, 4) == pytest.approx(math.log2(9))
    assert order_bits(5, 2) == pytest.approx(math.log2(10))
    assert order_bits(1000, 1000) > 8000


def test_the_tests_of_significance() -> None:
    # by hand, and as in tables of Wilcoxon's test
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(9, 1) == 11 / 1024
    assert signed_rank(np.zeros(5)) == 0
    assert signed_rank(np.arange(1.0, 21)) == pytest.approx(math.log2(4.4e-5), abs=0.1)
    assert signed_rank(np.ones(4)) == -4  # never less than one of all the signs
    assert signed_rank(-np.arange(1.0, 21)) == pytest.approx(0, abs=0.01)


def test_a_likelihood_does_not_depend_on_the_scale_of_the_scores() -> None:
    answers = scores(wrong_on(6))
    fit = log_likelihood(answers, TRUTH)
    assert log_likelihood(255 * answers, TRUTH) == pytest.approx(fit)
    soft = np.exp(answers) / np.exp(answers).sum(1, keepdims=True)
    assert log_likelihood(soft, TRUTH).sum() == pytest.approx(fit.sum(), rel=0.02)
    assert fit[:6].max() < fit[6:].min()
