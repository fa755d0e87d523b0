"""Boxes by hand, and non-maximum suppression beside onnxruntime's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k210tasks.heads.detections import Detections, above, overlaps, suppress


def boxes(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, np.float64).reshape(-1, 4)


def test_overlaps_by_hand() -> None:
    unit = boxes((0, 0, 1, 1))
    others = boxes((0, 0, 1, 1), (0.5, 0, 1.5, 1), (1, 0, 2, 1), (0.25, 0.25, 0.75, 0.75))
    # 1/1; half of 1.5; only an edge; a quarter inside
    assert overlaps(unit, others)[0] == pytest.approx([1, 1 / 3, 0, 1 / 4])


def test_boxes_without_an_area_overlap_nothing() -> None:
    flat = boxes((0, 0, 0, 1), (1, 1, 0, 0))
    assert not overlaps(flat, boxes((0, 0, 1, 1), (0, 0, 0, 1))).any()


def test_the_better_box_stays_and_of_equal_ones_the_first() -> None:
    at = boxes((0, 0, 1, 1), (0.1, 0, 1, 1), (3, 0, 4, 1), (0, 0, 1, 1))
    found = Detections.of(at, np.array([0.5, 0.9, 0.1, 0.9]))
    stays = suppress(found, 0.5)
    assert stays.scores.tolist() == [0.9, 0.1]
    assert stays.boxes[0].tolist() == [0.1, 0, 1, 1]


def test_classes_do_not_drop_each_other() -> None:
    at = boxes((0, 0, 1, 1), (0, 0, 1, 1))
    assert len(suppress(Detections.of(at, np.array([0.5, 0.9]), [0, 1]), 0.5)) == 2


def test_what_overlaps_by_just_the_limit_stays() -> None:
    at = boxes((0, 0, 1, 1), (0, 0, 0.5, 1))
    found = Detections.of(at, np.array([0.9, 0.5]))
    assert (len(suppress(found, 0.5)), len(suppress(found, 0.49))) == (2, 1)


def test_a_dropped_box_drops_no_other() -> None:
    # The second overlaps the first and the third; the third does not overlap the first.
    at = boxes((0, 0, 1, 1), (0.5, 0, 1.5, 1), (1, 0, 2, 1))
    found = Detections.of(at, np.array([0.9, 0.8, 0.7]))
    assert suppress(found, 0.3).scores.tolist() == [0.9, 0.7]


def test_at_most_so_many_stay() -> None:
    at = boxes((0, 0, 1, 1), (2, 0, 3, 1), (4, 0, 5, 1))
    found = Detections.of(at, np.array([0.1, 0.3, 0.2]))
    assert suppress(found, 0.5, 2).scores.tolist() == [0.3, 0.2]


def test_no_score_no_detection() -> None:
    scores = np.array([[0.5, 0.5], [np.nan, 0.7], [np.nan, np.nan], [0.2, 0.1]])
    rows, classes = above(scores, 0.3)
    assert (rows.tolist(), classes.tolist()) == ([0, 1], [0, 1])
    assert len(suppress(Detections.of(boxes(), np.zeros(0)), 0.5)) == 0


def random_detections(seed: int) -> Detections:
    """Up to 60 boxes that crowd; scores are float32 with many equal ones."""
    numbers = np.random.default_rng(seed)
    n = int(numbers.integers(0, 60))
    start = numbers.random((n, 2), np.float32)
    at = np.concatenate([start, start + numbers.random((n, 2), np.float32) * 0.5], axis=1)
    scores = (numbers.integers(1, 12, n) / 12).astype(np.float32).astype(np.float64)
    return Detections.of(at.astype(np.float64), scores, numbers.integers(0, 3, n))


@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_suppressing_again_changes_nothing(seed: int, limit: float) -> None:
    once = suppress(random_detections(seed), limit)
    again = suppress(once, limit)
    assert np.array_equal(once.boxes, again.boxes)
    assert np.array_equal(once.scores, again.scores)


def test_as_onnxruntime_suppresses() -> None:
    """1000 crowds of boxes with ties: the same boxes of every class."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    node = helper.make_node(
        "NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"], center_point_box=0
    )
    graph = helper.make_graph(
        [node],
        "nms",
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, None, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3, None]),
            helper.make_tensor_value_info("most", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])],
    )
    opsets = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    total = 0
    for seed in range(1000):
        found = random_detections(seed)
        limit = np.float32(0.1 + 0.8 * (seed % 17) / 17)
        of_class = np.where(np.arange(3)[:, None] == found.classes, found.scores, -1)
        fed = {
            "boxes": found.boxes[None].astype(np.float32),
            "scores": of_class[None].astype(np.float32),
            "most": np.array([1000]),
            "iou": np.array([limit]),
        }
        kept = session.run(None, fed)[0]
        theirs = sorted((int(c), int(i)) for _, c, i in kept if found.classes[i] == c)
        named = Detections.of(found.boxes, found.scores, found.classes, number(len(found)))
        ours = suppress(named, float(limit))
        assert (
            sorted(zip(ours.classes.tolist(), ours.points[:, 0, 0].tolist(), strict=True)) == theirs
        )
        total += len(theirs)
    assert total > 5000


def number(n: int) -> Any:
    """A landmark a box that tells its index."""
    return np.repeat(np.arange(n, dtype=np.float64), 2).reshape(n, 1, 2)
