"""Labels in another order than the scores: seen in the answers, named in the verdict."""

from __future__ import annotations

from typing import Any

import pytest

from k210tasks.steps.judge import Facts, Thresholds, judge
from k210tasks.steps.label_order import better_order


def measured(answers: list[tuple[str, int]], right: float, classes: int = 2) -> dict[str, Any]:
    """``answers``: the class of an image, and the score both models found the largest."""
    output = {
        "name": "scores",
        "shape": [1, classes],
        "cosine_mean": 1.0,
        "cosine_min": 1.0,
        "cosine_min_file": "a/1.png",
        "snr_db": 40.0,
        "top1_agreement": 1.0,
        "non_finite": 0,
        "non_finite_file": None,
    }
    return {
        "samples": len(answers),
        "outputs": [output],
        "folder": "images",
        "held_out": True,
        "notes": [],
        "layers": [],
        "accuracy": {
            "classes": classes,
            "output": "scores",
            "float": right,
            "kmodel": right,
            "better": None,
        },
        "images": [
            {"file": f"{name}/{i}.png", "class": name, "cosine": [1.0], "top1": [[pick, pick]]}
            for i, (name, pick) in enumerate(answers)
        ],
    }


SWAPPED = [("circle", 1)] * 10 + [("cross", 0)] * 9 + [("cross", 1)]


def test_the_order_of_the_scores_is_found() -> None:
    assert better_order(measured(SWAPPED, 0.05)) == (["cross", "circle"], 0.95)


def test_the_verdict_names_it() -> None:
    found = judge(measured(SWAPPED, 0.05), Thresholds(0.98), Facts())
    assert found.warnings == (
        "accuracy 5 %; with labels [cross, circle]: 95 %; labels are in the order of the model's"
        " scores",
    )


@pytest.mark.parametrize(
    ("answers", "right", "classes"),
    [
        ([("circle", 0)] * 10 + [("cross", 1)] * 10, 1.0, 2),  # right as it is
        ([("circle", 1)] * 10 + [("cross", 1)] * 10, 0.5, 2),  # never the other score
        ([("circle", 1), ("circle", 0)] * 10 + [("cross", 0)] * 10, 0.3, 2),  # just a bad model
        (SWAPPED, 0.05, 3),  # a class without images
    ],
)
def test_nothing_is_said_where_no_order_helps(
    answers: list[tuple[str, int]], right: float, classes: int
) -> None:
    assert better_order(measured(answers, right, classes)) is None


def test_a_wrong_mean_and_std_is_named_first() -> None:
    found = measured(SWAPPED, 0.05)
    found["accuracy"]["better"] = {"mean": 0.5, "std": 0.5, "accuracy": 0.97}
    assert better_order(found) is None


def test_without_accuracy_there_is_nothing_to_find() -> None:
    assert better_order(measured(SWAPPED, 0.05) | {"accuracy": None}) is None
