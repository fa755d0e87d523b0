"""Every sentence, word for word, in the words of models.yaml and of a command line."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from k210tasks.artifacts.doubts import (
    MODELS_YAML,
    OPTIONS,
    AnyDoubt,
    ChanceLevel,
    ClassesMisfit,
    Copies,
    Doubt,
    FewCalibrated,
    FewMeasured,
    FlatCalibration,
    Hint,
    LabelsMisfit,
    NoBoxes,
    NoClassFolders,
    NoKpu,
    NotHeldOut,
    StrangeFolder,
    StrangeMean,
    StrangeStd,
    Told,
    Unstated,
    of_labels,
    of_pair,
)
from k210tasks.jsondata import plain, read
from k210tasks.samples.preprocess import PerChannel

FITS = "values that do not occur in them are cut off; 10 are the least, about 100 that look like"
SAID: list[tuple[Doubt, str, str | None]] = [
    (Told("as it was told"), "as it was told", None),
    (
        Unstated(),
        "mean and std are not stated, 0 and 1 are used: the commonest fault is a wrong pair; "
        "state preprocess.mean and preprocess.std",
        "mean and std are not stated, 0 and 1 are used: the commonest fault is a wrong pair; "
        "state --mean and --std",
    ),
    (
        StrangeMean(127.5),
        "mean 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so a mean lies "
        "between 0 and 1; 127.5 of 255 is preprocess.mean 0.5",
        "mean 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so a mean lies "
        "between 0 and 1; 127.5 of 255 is --mean 0.5",
    ),
    (
        StrangeMean(-0.5),
        "mean -0.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so a mean lies "
        "between 0 and 1; state preprocess.mean between 0 and 1",
        None,
    ),
    (
        StrangeStd(127.5),
        "std 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so pixels would "
        "span 0.0078; 127.5 of 255 is preprocess.std 0.5",
        "std 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so pixels would "
        "span 0.0078; 127.5 of 255 is --std 0.5",
    ),
    (
        StrangeStd(1e-5),
        "std 1e-05 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so pixels would "
        "span 1e+05; state preprocess.std between 1/255, for raw pixels, and 2",
        None,
    ),
    (
        StrangeStd(0.0),
        "std 0 cannot be meant: it divides; state preprocess.std between 1/255, for raw pixels, "
        "and 2",
        None,
    ),
    (
        FewCalibrated("image", 1, 1),
        f"calibrated on only 1 image: {FITS} what the board will see are good: images",
        f"calibrated on only 1 image: {FITS} what the board will see are good: --images",
    ),
    (
        FewCalibrated("sample", 12, 1),
        f"calibrated on 12 samples of which only 1 differs: {FITS} what the board will see are "
        "good: images",
        None,
    ),
    (
        FlatCalibration("image", 12, 12),
        "all 12 calibration images are (nearly) of one colour, as black ones are: the ranges "
        "chosen on them fit nothing else; give such as the board will see: images",
        "all 12 calibration images are (nearly) of one colour, as black ones are: the ranges "
        "chosen on them fit nothing else; give such as the board will see: --images",
    ),
    (
        FlatCalibration("sample", 1, 1),
        "the only calibration sample is (nearly) of one value, as black ones are: the ranges "
        "chosen on them fit nothing else; give such as the board will see: images",
        None,
    ),
    (
        FlatCalibration("image", 9, 12),
        "9 of 12 calibration images are (nearly) of one colour, as black ones are: the ranges "
        "chosen on them fit nothing else; give such as the board will see: images",
        None,
    ),
    (
        NoKpu(5),
        "none of 5 layers runs on the KPU: the CPU computes everything, many times slower; the "
        "KPU takes 1x1 and 3x3 convolutions (SUPPORTED_OPS.md)",
        None,
    ),
    (
        NoKpu(1),
        "the only layer does not run on the KPU: the CPU computes everything, many times slower; "
        "the KPU takes 1x1 and 3x3 convolutions (SUPPORTED_OPS.md)",
        None,
    ),
    (
        LabelsMisfit(("tent", "box"), "scores", 3),
        "2 labels for the 3 scores of output scores, too few: in load.py, score 2 has no label; "
        "give labels one a score, in the order of the scores",
        None,
    ),
    (
        LabelsMisfit(("tent",), "scores", 3),
        "1 label for the 3 scores of output scores, too few: in load.py, scores 1 to 2 have no "
        "label; give labels one a score, in the order of the scores",
        None,
    ),
    (
        LabelsMisfit(("tent", "box", "ball", "cup"), "scores", 3),
        "4 labels for the 3 scores of output scores, too many: load.py gets all of them, and cup "
        "can never be named; give labels one a score, in the order of the scores",
        None,
    ),
    (
        StrangeFolder("cros", ("cross", "circle")),
        "no accuracy: folder cros is none of the labels cross, circle",
        None,
    ),
    (
        ClassesMisfit(2, (10,)),
        "no accuracy: 2 classes, but the model gives 10 scores",
        None,
    ),
    (
        NoClassFolders(("a", "b"), "flowers"),
        "no accuracy: images must lie in one folder a class, named as in labels [a, b], below "
        "flowers",
        "no accuracy: images must lie in one folder a class, named as in --labels a,b, below "
        "flowers",
    ),
    (FewMeasured("image", 4), "only 4 images: too few to prove much, 10 are the least", None),
    (FewMeasured("sample", 1), "only 1 sample: too few to prove much, 10 are the least", None),
    (
        NoBoxes("image", 12, 0.5),
        "the float model finds no box above score 0.5 in 12 images, so nothing is proved of the "
        "boxes: look at mean, std, color and head, or verify with pictures that show something",
        None,
    ),
    (
        Copies("image", 3, 30),
        "3 of 30 images are copies of others among them: 27 differ, the figures count the others "
        "twice",
        None,
    ),
    (
        Copies("image", 1, 2),
        "1 of 2 images is a copy of others among them: 1 differs, the figures count the others "
        "twice",
        None,
    ),
    (
        NotHeldOut("image", 30, 30),
        "not held out: measured on the calibration images; name others under verify.images",
        "not held out: measured on the calibration images; give others with --images",
    ),
    (
        NotHeldOut("image", 12, 30),
        "not held out: 12 of 30 images are calibration images too, the same in content; name "
        "others under verify.images",
        "not held out: 12 of 30 images are calibration images too, the same in content; give "
        "others with --images",
    ),
    (
        NotHeldOut("sample", 1, 30),
        "not held out: 1 of 30 samples is a calibration sample too, the same in content; name "
        "others under verify.images",
        None,
    ),
    (
        ChanceLevel("image", 21, 60, 3),
        "the float model is right on 21 of 60 images in 3 classes, not clearly more than by "
        "chance: that the kmodel agrees proves nothing; look at the labels, the preprocessing "
        "and the model's training",
        None,
    ),
    (
        Hint(0.11, 0.97, mean=0.5, std=0.5),
        "accuracy 11 %; with mean 0.5 std 0.5: 97 %",
        "accuracy 11 %; with --mean 0.5 --std 0.5: 97 %",
    ),
    (Hint(0.11, 0.97, mean=0.0, std=1 / 255), "accuracy 11 %; with mean 0 std 1/255: 97 %", None),
    (
        Hint(0.4, 1.0, color="bgr"),
        "accuracy 40 %; with color bgr: 100 %",
        "accuracy 40 %; with --color bgr: 100 %",
    ),
    (
        Hint(0.4, 1.0, color="gray"),
        "accuracy 40 %; with grey pictures (three equal planes): 100 %",
        None,
    ),
    (
        Hint(0.0, 1.0, labels=("cross", "circle")),
        "accuracy 0 %; with labels [cross, circle]: 100 %; labels are in the order of the "
        "model's scores",
        "accuracy 0 %; with --labels cross,circle: 100 %; labels are in the order of the "
        "model's scores",
    ),
    (
        Hint(0.0, 1.0, mean=0.5, std=0.5, color="bgr"),
        "accuracy 0 %; with mean 0.5 std 0.5 and color bgr: 100 %",
        "accuracy 0 %; with --mean 0.5 --std 0.5 and --color bgr: 100 %",
    ),
]


#: How the words of models.yaml become those of a command line, where no sentence is given.
AS_OPTIONS = {
    "preprocess.": "--",
    "name others under verify.images": "give others with --images",
    ": images": ": --images",
    "with mean 0 std": "with --mean 0 --std",
}


@pytest.mark.parametrize(("doubt", "chain", "options"), SAID)
def test_what_is_said(doubt: Doubt, chain: str, options: str | None) -> None:
    assert doubt.sentence(MODELS_YAML) == chain
    for words, others in AS_OPTIONS.items():
        if options is None:
            chain = chain.replace(words, others)
    assert doubt.sentence(OPTIONS) == (options or chain)


def test_json_keeps_every_kind() -> None:
    found = [doubt for doubt, _, _ in SAID]
    rows = json.loads(json.dumps(plain(found)))
    assert [read(AnyDoubt, row) for row in rows] == found  # type: ignore[arg-type]
    assert {type(doubt) for doubt in found} == set(get_args(AnyDoubt))
    assert [row["kind"] for row in rows] == [doubt.kind for doubt in found]


@pytest.mark.parametrize(
    ("mean", "std", "kinds"),
    [
        (0.0, 1.0, []), (0.5, 0.5, []), (0.0, 1 / 255, []), (0.5, 1 / 255, []),
        (0.449, 0.226, []), (1.0, -1.0, []), (128 / 255, 1 / 255, []), (0.5, 2.0, []),
        (None, None, ["unstated"]), (0.5, None, ["unstated"]),
        (127.5, 127.5, ["strange_mean", "strange_std"]), (127.5, 0.5, ["strange_mean"]),
        (0.5, 128.0, ["strange_std"]), (-0.1, 1.0, ["strange_mean"]), (0.0, 0.0, ["strange_std"]),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), []),
        ((123.7, 116.3, 103.5), (0.2, 300.0, 0.0), ["strange_mean", "strange_std"]),
        (127.5, None, ["unstated", "strange_mean"]), (0.0, 1e-5, ["strange_std"]),
    ],
)  # fmt: skip
def test_pairs_that_can_be_meant(
    mean: PerChannel | None, std: PerChannel | None, kinds: list[str]
) -> None:
    assert [doubt.kind for doubt in of_pair(mean, std)] == kinds


@pytest.mark.parametrize(
    ("labels", "shapes", "misfit"),
    [
        ("ab", [(3,)], (3, "o0")),
        ("abcd", [(3,)], (3, "o0")),
        ("abc", [(3,)], None),
        ("abc", [(3, 1, 1)], None),
        ("ab", [(3, 1, 1)], (3, "o0")),
        ("", [(3,)], None),
        ("ab", [(4,), (2,)], None),  # one of them is the scores
        ("ab", [(30, 7, 10)], None),  # a detector's map
        ("ab", [(1,)], None),  # one score, as a sigmoid's
    ],
)
def test_labels_and_scores(
    labels: str, shapes: list[tuple[int, ...]], misfit: tuple[int, str] | None
) -> None:
    found = of_labels(labels, [(f"o{i}", shape) for i, shape in enumerate(shapes)])
    assert found == ([] if misfit is None else [LabelsMisfit(tuple(labels), misfit[1], misfit[0])])
