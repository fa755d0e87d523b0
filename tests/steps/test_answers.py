import numpy as np

from k210tasks.artifacts.measurement import SampleFigures
from k210tasks.jsondata import plain
from k210tasks.steps.answers import CELLS, PAIRS, WORST, WorstAnswers


def record(file: str, cosine: float | None, top1: tuple[int, int] | None = None) -> SampleFigures:
    return SampleFigures(file, (cosine,), (), (top1,))


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_worst_come_first_and_no_more_are_kept_than_promised() -> None:
    answers = WorstAnswers(planar=True)
    row = scores(0.9, 0.1)
    for i in range(3 * WORST):
        answers.add(record(f"{i}", 0.5 + i / 1000, (0, 0)), [(row, row, (1, 2))])
    answers.add(record("class", 0.999, (0, 1)), [(row, row[::-1].copy(), (1, 2))])
    answers.add(record("nan", None), [(row, scores(np.nan, 1), (1, 2))])
    files = [entry.file for entry in answers.worst()]
    assert files[:4] == ["nan", "class", "0", "1"]
    assert len(files) == WORST


def test_equal_ones_stay_in_the_order_of_the_folder() -> None:
    answers = WorstAnswers(planar=True)
    row = scores(1, 0)
    for i in range(2 * WORST):
        answers.add(record(f"{i}", 1.0, (0, 0)), [(row, row, (1, 2))])
    assert [e.file for e in answers.worst()] == [f"{i}" for i in range(WORST)]


def test_of_scores_the_highest_of_both_are_kept() -> None:
    answers = WorstAnswers(planar=True)
    wanted = scores(0.3, 0.25, 0.2, 0.15, 0.06, 0.04)
    got = scores(0.1, 0.1, 0.1, 0.1, 0.1, 0.5)
    answers.add(record("x", 0.5, (0, 5)), [(wanted, got, (1, 6))])
    [entry] = answers.worst()
    assert plain(entry.outputs[0])["top"] == [
        [0, 0.3, 0.1],
        [1, 0.25, 0.1],
        [2, 0.2, 0.1],
        [3, 0.15, 0.1],
        [4, 0.06, 0.1],
        [5, 0.04, 0.5],
    ]


def test_what_is_not_a_number_is_said_so() -> None:
    answers = WorstAnswers(planar=True)
    answers.add(record("x", None), [(scores(1, 0), scores(np.nan, np.inf), (1, 2))])
    assert plain(answers.worst()[0].outputs[0])["top"] == [[0, 1.0, None], [1, 0.0, None]]


def test_a_map_says_where_the_error_is_in_either_order() -> None:
    shape = (1, 3, 5, 2)
    wanted = np.zeros(shape, np.float32)
    got = wanted.copy()
    got[0, 2, 4, 1] = 0.5
    got[0, 0, 1, 0] = -0.25
    for planar in (True, False):
        axes = (0, 3, 1, 2) if planar else (0, 1, 2, 3)
        answers = WorstAnswers(planar)
        flat = [a.transpose(axes).ravel() for a in (wanted, got)]
        answers.add(record("x", 0.5), [(*flat, shape)])
        found = plain(answers.worst()[0].outputs[0])["map"]
        assert (found["rows"], found["columns"], found["max"]) == (3, 5, 0.5)
        assert {i: c for i, c in enumerate(found["codes"]) if c} == {1: 128, 14: 255}


def test_a_large_map_is_bounded_and_loses_no_largest_error() -> None:
    shape = (1, 240, 320, 1)
    wanted = np.zeros(shape, np.float32).ravel()
    got = wanted.copy()
    got[-1] = 7
    answers = WorstAnswers(planar=True)
    answers.add(record("x", 0.5), [(wanted, got, shape)])
    [out] = plain(answers.worst()[0].outputs)
    assert out["map"]["columns"] <= CELLS
    assert out["map"]["max"] == 7
    assert out["map"]["codes"][-1] == 255
    assert len(out["pairs"]) <= PAIRS
    assert out["pairs"][-1] == [0.0, 7.0]
