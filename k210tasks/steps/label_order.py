"""Whether the labels stand in another order than the scores of the float model.

The commonest fault after a wrong pair of mean and std: labels left out, so that the sorted
names of the class folders stand for the scores, while the model was trained in another order.
Only what was measured is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

#: Another order is named where the float model would then be right this often, …
GOOD = 0.9
#: … and this much more often than now.
CLEARLY_BETTER = 0.05


def better_order(measurement: Mapping[str, Any]) -> tuple[list[str], float] | None:
    """The labels by index of the score that fit the float model's answers, and its accuracy then.

    None where accuracy was not measured, is good enough, another mean and std makes it good, or
    no order does.
    """
    accuracy = measurement["accuracy"]
    if accuracy is None or accuracy["better"] or accuracy["float"] > GOOD - CLEARLY_BETTER:
        return None
    at = [output["name"] for output in measurement["outputs"]].index(accuracy["output"])
    images = measurement["images"]
    answers: dict[int, Counter[str]] = {}
    for image in images:
        if (picked := image["top1"][at]) is not None:
            answers.setdefault(picked[0], Counter())[image["class"]] += 1
    # The class that is seen most often wherever a score is the largest.
    named = {score: counts.most_common(1)[0] for score, counts in answers.items()}
    order = [named[score][0] for score in sorted(named)]
    if sorted(named) != list(range(accuracy["classes"])) or len(set(order)) != len(order):
        return None
    right = sum(count for _, count in named.values()) / len(images)
    if right < GOOD or right - accuracy["float"] < CLEARLY_BETTER:
        return None
    return order, right
