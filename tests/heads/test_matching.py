"""Matches and averages by hand, and average precision beside pycocotools'."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from k210tasks.heads.detections import Detections
from k210tasks.heads.matching import COCO, Agreement, average_precision, matches


def found(*rows: tuple[float, ...]) -> Detections:
    """Rows of left, top, right, bottom, score, class."""
    at = np.array(rows, np.float64).reshape(-1, 6)
    return Detections.of(at[:, :4], at[:, 4], at[:, 5].astype(int))


def test_the_best_chooses_first() -> None:
    wanted = found((0, 0, 1, 1, 1, 0), (0.2, 0, 1.2, 1, 1, 0))
    mine = found((0.1, 0, 1.1, 1, 0.5, 0), (0, 0, 1, 1, 0.9, 0))
    assert [(i, j) for i, j, _ in matches(mine, wanted)] == [(1, 0), (0, 1)]


def test_other_classes_and_too_small_overlaps_do_not_match() -> None:
    wanted = found((0, 0, 1, 1, 1, 0))
    assert matches(found((0, 0, 1, 1, 1, 1)), wanted) == []
    assert matches(found((0.5, 0, 1.5, 1, 1, 0)), wanted) == []  # a third
    assert matches(found((0, 0, 0.5, 1, 1, 0)), wanted) == [(0, 0, 0.5)]


def test_the_figures_of_two_pictures() -> None:
    tally = Agreement()
    tally.add(found((0, 0, 1, 1, 0.75, 0), (5, 0, 6, 1, 0.5, 0)), found((0, 0, 1, 1, 0.5, 0)))
    tally.add(found(), found((0, 0, 1, 1, 0.9, 0), (2, 0, 3, 1, 0.9, 0)))
    assert (tally.precision, tally.recall) == (1 / 2, 1 / 3)
    assert tally.f1 == pytest.approx(2 / 5)  # 2 · 1 / (2 found + 3 wanted)
    assert (tally.mean_overlap, tally.mean_drift) == (1.0, 0.25)


def test_two_that_find_nothing_agree() -> None:
    tally = Agreement()
    tally.add(found(), found())
    assert (tally.f1, tally.precision, tally.recall) == (1, 1, 1)
    assert tally.mean_overlap is None


def test_landmarks_are_measured_by_the_diagonal() -> None:
    box, score = np.array([[0, 0, 3, 4.0]]), np.array([1.0])
    here = Detections.of(box, score, None, np.array([[[1, 1], [2, 2.0]]]))
    there = Detections.of(box, score, None, np.array([[[1, 2], [2, 2.0]]]))
    tally = Agreement()
    tally.add(here, there)
    assert tally.mean_points == pytest.approx(0.1)  # 1 and 0 of a diagonal of 5


def test_average_precision_by_hand() -> None:
    truth = [found((0, 0, 1, 1, 1, 0), (2, 0, 3, 1, 1, 0))]
    # right, wrong, right: precision 1 up to a recall of 1/2, then 2/3 (51 and 50 recalls)
    mine = [found((0, 0, 1, 1, 0.9, 0), (7, 0, 8, 1, 0.8, 0), (2, 0, 3, 1, 0.7, 0))]
    assert average_precision(mine, truth) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision([found()], truth) == 0
    assert average_precision(mine, [found()]) is None
    assert average_precision([], []) is None


def pictures(seed: int) -> tuple[list[Detections], list[Detections]]:
    """Truth, and what a poor detector makes of it: moved, missed, doubled and made up."""
    numbers = np.random.default_rng(seed)
    truth, mine = [], []
    for _ in range(8):
        n = int(numbers.integers(0, 6))
        start = numbers.random((n, 2)) * 80
        at = np.concatenate([start, start + 5 + numbers.random((n, 2)) * 30], axis=1)
        classes = numbers.integers(0, 3, n)
        truth.append(Detections.of(at, np.ones(n), classes))
        again = numbers.integers(0, n, int(numbers.integers(0, 9)) if n else 0)
        moved = at[again] + numbers.normal(0, 2.0, (len(again), 4))
        moved[:, 2:] = np.maximum(moved[:, :2], moved[:, 2:])
        mine.append(Detections.of(moved, numbers.random(len(again)), classes[again]))
    return truth, mine


@pytest.mark.parametrize("seed", range(20))
def test_as_pycocotools_has_it(seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truth, mine = pictures(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = coco.COCO()
        annotated.dataset = {
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": c} for c in range(3)],
            "annotations": rows_of(truth),
        }
        annotated.createIndex()
        results = annotated.loadRes(rows_of(mine)) if any(map(len, mine)) else None
        if results is None:
            pytest.skip("nothing found")
        run = evaluation.COCOeval(annotated, results, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert average_precision(mine, truth) == pytest.approx(run.stats[1], abs=1e-9)
    means = [average_precision(mine, truth, least) or 0.0 for least in COCO]
    assert np.mean(means) == pytest.approx(run.stats[0], abs=1e-9)


def rows_of(pictures: list[Detections]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for image, at in enumerate(pictures):
        for box, score, of in zip(at.boxes, at.scores, at.classes, strict=True):
            left, top, right, bottom = map(float, box)
            size = right - left, bottom - top
            rows.append(
                {
                    "id": len(rows) + 1, "image_id": image, "category_id": int(of),
                    "bbox": [left, top, *size], "area": size[0] * size[1],
                    "score": float(score), "iscrowd": 0,
                }
            )  # fmt: skip
    return rows
