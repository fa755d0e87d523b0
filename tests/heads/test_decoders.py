"""Every decoder: a literal worked by hand, and beside code that is not ours where there is any."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.heads.centers import Centers
from k210tasks.heads.detections import Detections
from k210tasks.heads.grids import HeadMisfit, sigmoid
from k210tasks.heads.ssd import Ssd, priors
from k210tasks.heads.yolo2 import Yolo2
from k210tasks.heads.yolo3 import Yolo3, Yolo5
from k210tasks.heads.yolo8 import Yolo8
from k210tasks.heads.yunet import YuNet

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.exists(), reason="needs ../shared/fixtures, which is not there"
)

#: sigmoid(LOGIT_34) = 3/4
LOGIT_34 = math.log(3)


def test_yolo2_by_hand() -> None:
    """A map of 2 rows and 4 columns, one anchor of 1x2 cells, two classes; only the cell of row
    1 and column 2 speaks. Center (2 + 3/4, 1 + 1/2) of 4x2 cells; size (2 * 1, 1/2 * 2)."""
    at = np.full((7, 2, 4), -20.0, np.float32)
    at[:, 1, 2] = (LOGIT_34, 0, math.log(2), math.log(0.5), LOGIT_34, math.log(4), 0)
    found = Yolo2(((1, 2),), 2).decode([at], 0.1)
    assert found.boxes == pytest.approx(np.array([[1.75 / 4, 0.5, 3.75 / 4, 1.0]]), abs=1e-6)
    assert found.scores == pytest.approx([0.75 * 4 / 5])
    assert found.classes.tolist() == [0]


def test_yolo3_by_hand() -> None:
    """A map of 1x2 cells of an input of 64x32, an anchor of 16x8 pixels: class 1 alone."""
    at = np.full((7, 1, 2), -20.0, np.float32)
    at[:, 0, 1] = (0, LOGIT_34, math.log(2), 0, LOGIT_34, -20, 0)
    found = Yolo3((((16, 8),),), 2, (64, 32)).decode([at], 0.1)
    # center (1.5 / 2, 3/4), size (32/64, 8/32), score 3/4 * 1/2
    assert found.boxes == pytest.approx(np.array([[0.5, 0.625, 1.0, 0.875]]), abs=1e-6)
    assert found.scores == pytest.approx([0.375])
    assert found.classes.tolist() == [1]


def test_yolo5_by_hand() -> None:
    """The same map: centers reach from -1/2 to 3/2 of a cell, sizes to four anchors."""
    at = np.full((6, 1, 2), -20.0, np.float32)
    at[:, 0, 1] = (LOGIT_34, 0, LOGIT_34, 0, LOGIT_34, LOGIT_34)
    found = Yolo5((((16, 8),),), 1, (64, 32)).decode([at], 0.1)
    # center ((1 + 1.5 - 0.5) / 2, 1/2), size (2.25 * 16 / 64, 8 / 32)
    wanted = [1 - 0.28125, 0.375, 1 + 0.28125, 0.625]
    assert found.boxes == pytest.approx(np.array([wanted]), abs=1e-6)
    assert found.scores == pytest.approx([9 / 16])


def test_yolo8_by_hand() -> None:
    """Three bins: left is all bin 2, right 0 and 2 alike, the others bin 1; of 2x2 cells."""
    at = np.full((13, 2, 2), -40.0, np.float32)
    sides = [(-40, -40, 9), (-40, 9, -40), (9, -40, 9), (-40, 9, -40)]  # left, top, right, bottom
    at[:12, 1, 0] = np.array(sides).ravel()
    at[12, 1, 0] = LOGIT_34
    found = Yolo8(1, bins=3).decode([at], 0.5)
    # from the middle (0.5, 1.5): 2 to the left, 1 up, 1 to the right, 1 down
    assert found.boxes == pytest.approx(np.array([[-0.75, 0.25, 0.75, 1.25]]))
    assert found.scores == pytest.approx([0.75])


def test_ssd_by_hand() -> None:
    """One prior in the middle, 0.2x0.4; center moved by a tenth of its size, width doubled."""
    prior = np.array([[0.5, 0.5, 0.2, 0.4]])
    offsets = np.array([[1, -1, math.log(2) / 0.2, 0]])
    classes = np.array([[0.1, 0.2, 0.7]])
    points = np.array([[1, 2, -1, 0]])
    found = Ssd(prior, boxes=0, classes=1, points=2).decode([offsets, classes, points], 0.5)
    assert found.boxes == pytest.approx(np.array([[0.32, 0.26, 0.72, 0.66]]))
    assert (found.scores.tolist(), found.classes.tolist()) == ([0.7], [1])
    assert found.points == pytest.approx(np.array([[[0.52, 0.58], [0.48, 0.5]]]))


def test_ssd_with_curves_and_without_a_background() -> None:
    prior, offsets = np.array([[0.5, 0.5, 0.2, 0.4]]), np.zeros((1, 4))
    logits = np.array([[0, math.log(3)]])
    soft = Ssd(prior, 0, 1, scores="softmax").decode([offsets, logits], 0.1)
    curved = Ssd(prior, 0, 1, scores="sigmoid", background=False).decode([offsets, logits], 0.1)
    assert (soft.scores[0], soft.classes[0]) == (pytest.approx(0.75), 0)
    assert (curved.scores[0], curved.classes[0]) == (pytest.approx(0.75), 1)


def test_priors_by_hand() -> None:
    """An input of 12x8 with stride 8: 2 columns, for 12 is not divided, and one row."""
    found = priors((12, 8), (8,), ((4, 6),))
    wanted = [[4 / 12, 0.5, 4 / 12, 0.5], [4 / 12, 0.5, 0.5, 0.75]]
    assert found[:2] == pytest.approx(np.array(wanted))
    assert found[2:, :2] == pytest.approx(np.array([[1, 0.5], [1, 0.5]]))
    even = priors((12, 8), (8,), ((4, 6),), spread=True)
    assert even[::2, :2] == pytest.approx(np.array([[0.25, 0.5], [0.75, 0.5]]))


def test_yunet_by_hand() -> None:
    """An input of 16x8 and stride 8: the second of two cells."""
    classes, objects = np.array([[0.0], [0.64]]), np.array([[1.0], [2.0]])
    boxes = np.array([[0, 0, 0, 0], [0.5, 0.5, math.log(0.5), 0]])
    points = np.array([[0, 0], [-0.5, 1]])
    found = YuNet((16, 8), (8,), 1).decode([classes, objects, boxes, points], 0.5)
    assert found.scores == pytest.approx([0.8])  # sqrt(0.64 * 1): 2 is clipped
    assert found.boxes == pytest.approx(np.array([[0.625, 0, 0.875, 1]]))
    assert found.points == pytest.approx(np.array([[[0.25, 1]]]))


def test_centers_by_hand() -> None:
    heat = np.zeros((2, 3, 4))
    heat[1, 1, 1:3] = 0.6, 0.8  # the weaker neighbour is no peak
    heat[0, 0, 0] = 0.5
    sizes, offsets = np.full((2, 3, 4), 2.0), np.full((2, 3, 4), 0.25)
    found = Centers(0, sizes=1, offsets=2).decode([heat, sizes, offsets], 0.3)
    assert found.classes.tolist() == [0, 1]
    assert found.scores.tolist() == [0.5, 0.8]
    # center (2.25, 1.25), size 2x2 of 4x3 cells
    assert found.boxes[1] == pytest.approx(np.array([1.25 / 4, 0.25 / 3, 3.25 / 4, 2.25 / 3]))


def test_fomo_leaves_the_background_out_and_boxes_are_cells() -> None:
    heat = np.zeros((3, 2, 2))
    heat[0] = 0.9
    heat[2, 1, 0] = 0.7
    found = Centers(background=True).decode([heat], 0.5)
    assert (found.classes.tolist(), found.scores.tolist()) == ([1], [0.7])
    assert found.boxes.tolist() == [[0, 0.5, 0.5, 1]]


def test_numbers_far_out_are_no_warning_and_no_infinity() -> None:
    at = np.full((6, 1, 1), 1e30, np.float32)
    with np.errstate(all="raise", under="ignore"):
        for head in (Yolo2(((1, 1),), 1), Yolo3((((9, 9),),), 1, (9, 9))):
            assert np.isfinite(head.decode([at], 0.5).boxes).all()
            assert len(head.decode([-at], 0.5)) == 0


@pytest.mark.parametrize(
    ("head", "outputs", "message"),
    [
        (
            Yolo2(((1, 1), (2, 2)), 20),
            [(30, 7, 7)],
            "head yolo2: an output is 30x7x7, it must be 50xHEIGHTxWIDTH"
            " (2 anchors of 25 numbers a cell)",
        ),
        (
            Yolo5((((9, 9),),), 1, (64, 64)),
            [(6, 2, 2), (6, 1, 1)],
            "head yolo5: the number of outputs is 2, it must be one for each of the 1 lists of"
            " anchors",
        ),
        (
            Ssd(np.zeros((9, 4)), 0, 1),
            [(8, 4), (8, 2)],
            "head ssd: output 1 is 8x2, it must be 9xNUMBERS, a row for each of the 9 priors",
        ),
        (
            Ssd(np.zeros((9, 4)), 0, 1),
            [(9, 4), (9, 1)],
            "head ssd: output 1 is 9x1, it must be NUMBERS of two classes or more, the first of"
            " which is nothing",
        ),
        (
            YuNet((64, 64)),
            [(64, 1)],
            "head yunet: the number of outputs is 1, it must be 12: class, objectness, boxes and"
            " points of 3 strides",
        ),
        (
            Centers(0, sizes=1),
            [(1, 4, 4)],
            "head centers: the number of outputs is 1, it must be 2 or more, for one of them is"
            " output 1",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_told(
    head: Any, outputs: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(HeadMisfit) as caught:
        head.decode([np.ones(shape, np.float32) for shape in outputs], 0.5)
    assert str(caught.value) == message


def test_none_found_is_an_answer_of_every_head() -> None:
    heads: list[tuple[Any, list[tuple[int, ...]]]] = [
        (Yolo2(((1, 1),), 1), [(6, 2, 3)]),
        (Yolo3((((9, 9),),), 1, (64, 64)), [(6, 2, 3)]),
        (Yolo5((((9, 9),),), 1, (64, 64)), [(6, 2, 3)]),
        (Yolo8(1), [(65, 2, 3)]),
        (Ssd(np.ones((3, 4)), 0, 1, 2), [(3, 4), (3, 2), (3, 10)]),
        (YuNet((8, 8), (8,)), [(1, 1), (1, 1), (1, 4), (1, 10)]),
        (Centers(0, 1, 2), [(1, 2, 3), (2, 2, 3), (2, 2, 3)]),
    ]
    for head, shapes in heads:
        found = head.decode([np.zeros(shape, np.float32) for shape in shapes], 1.0)
        assert len(Detections.joined([found, found])) == 0


def darknet(layer: str, channels: int, cells: tuple[int, int], stride: int = 1) -> Any:
    """OpenCV's net of a layer behind a convolution that passes its input on; the picture is
    ``stride`` times as large, for which the first convolution skips pixels."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        pytest.skip("this OpenCV reads no Darknet models")
    height, width = cells
    text = f"""[net]
width={width * stride}
height={height * stride}
channels={channels}
[convolutional]
filters={channels}
size=1
stride={stride}
pad=0
activation=linear
{layer}
"""
    kernel = np.eye(channels, dtype=np.float32)
    header = np.array([0, 2, 0, 0, 0], np.int32).tobytes()
    weights = header + np.zeros(channels, np.float32).tobytes() + kernel.tobytes()
    buffers = (np.frombuffer(text.encode(), np.uint8), np.frombuffer(weights, np.uint8))
    return cv2.dnn.readNetFromDarknet(*buffers)


@pytest.mark.parametrize("kind", ["region", "yolo"])
def test_yolo2_and_yolo3_as_opencv_has_them(kind: str) -> None:
    """1000 random maps: every box of OpenCV's layer, and every score that it does not set to 0
    because it is small or a better box of the class is near."""
    anchors, classes, cells, stride = 3, 4, (5, 7), 8
    sides = tuple(0.5 + 0.75 * i for i in range(2 * anchors))
    head: Any
    if kind == "region":
        stride = 1
        settings = "coords=4\nsoftmax=1\nthresh=0.0001"
        head = Yolo2(tuple(zip(sides[::2], sides[1::2], strict=True)), classes)
    else:
        sides = tuple(12 * side for side in sides)
        settings = "mask=0,1,2"
        lists = (tuple(zip(sides[::2], sides[1::2], strict=True)),)
        head = Yolo3(lists, classes, (cells[1] * stride, cells[0] * stride))
    text = ",".join(map(str, sides))
    layer = f"[{kind}]\nanchors={text}\nclasses={classes}\nnum={anchors}\n{settings}"
    channels = anchors * (5 + classes)
    net = darknet(layer, channels, cells, stride)
    numbers, compared = np.random.default_rng(3), 0
    for _ in range(1000):
        at = numbers.normal(0, 1.5, (channels, *cells)).astype(np.float32)
        net.setInput(at.repeat(stride, 1).repeat(stride, 2)[None])
        rows = net.forward().reshape(*cells, anchors, 5 + classes)
        rows = rows.transpose(2, 0, 1, 3).reshape(-1, 5 + classes).astype(np.float64)
        theirs = np.concatenate(
            [rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1
        )
        found = head.decode([at], -1.0)
        assert found.boxes == pytest.approx(theirs, abs=1e-5, rel=1e-5)
        whole = rows[:, 5:].all(axis=1)
        assert found.scores[whole] == pytest.approx(rows[whole, 5:].max(axis=1), abs=1e-5)
        assert np.array_equal(found.classes[whole], rows[whole, 5:].argmax(axis=1))
        compared += int(whole.sum())
    assert compared > 10_000


@needs_fixtures
def test_ssd_as_the_model_decodes_its_own_boxes() -> None:
    """slim_320.onnx is slim_320_raw.onnx with the decoding of boxes in the graph: onnxruntime's
    answer for 20 random pictures of each."""
    onnxruntime = pytest.importorskip("onnxruntime")
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    raw, decoded = (
        onnxruntime.InferenceSession(FIXTURES / "onnx" / name, quiet)
        for name in ("slim_320_raw.onnx", "slim_320.onnx")
    )
    sides = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
    at = priors((320, 240), (8, 16, 32, 64), sides, spread=True, clip=True)
    head = Ssd(at, boxes=1, classes=0)
    numbers = np.random.default_rng(4)
    for _ in range(20):
        fed = {raw.get_inputs()[0].name: numbers.normal(0, 1, (1, 3, 240, 320)).astype("f4")}
        outputs = [y[0] for y in raw.run(None, fed)]
        scores, boxes = decoded.run(None, fed)
        found = head.decode(outputs, -1.0)
        assert found.boxes == pytest.approx(boxes[0].astype(np.float64), abs=1e-5)
        assert found.scores == pytest.approx(scores[0, :, 1], abs=1e-5)


@needs_fixtures
def test_yunet_as_opencv_has_it() -> None:
    """OpenCV's FaceDetectorYN runs the file itself: its faces, before any is dropped (it rounds
    boxes to pixels for that), are onnxruntime's outputs decoded; boxes and landmarks in pixels."""
    cv2 = pytest.importorskip("cv2")
    onnxruntime = pytest.importorskip("onnxruntime")
    from PIL import Image

    file = FIXTURES / "onnx" / "yunet_n_320.onnx"
    session = onnxruntime.InferenceSession(file)
    detector = cv2.FaceDetectorYN.create(str(file), "", (320, 320), 0.5, 1.0, 5000)
    pictures = sorted((FIXTURES / "images" / "faces").iterdir())
    total = 0
    for picture in pictures:
        with Image.open(picture) as opened:
            bgr = np.array(opened.convert("RGB").resize((320, 320)))[:, :, ::-1].copy()
        fed = bgr.transpose(2, 0, 1)[None].astype(np.float32)
        outputs = session.run(None, {session.get_inputs()[0].name: fed})
        found = YuNet((320, 320)).decode([y[0] for y in outputs], 0.5)
        found = found[np.argsort(-found.scores, kind="stable")]
        _, faces = detector.detect(bgr)
        theirs = np.zeros((0, 15)) if faces is None else faces.astype(np.float64)
        assert len(found) == len(theirs)
        theirs = theirs[np.argsort(-theirs[:, 14], kind="stable")]
        assert found.scores == pytest.approx(theirs[:, 14], abs=1e-4)
        sides = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
        assert sides * 320 == pytest.approx(theirs[:, :4], abs=0.02)
        assert found.points.reshape(-1, 10) * 320 == pytest.approx(theirs[:, 4:14], abs=0.02)
        total += len(found)
    assert total > 20


def test_sigmoid_by_hand() -> None:
    assert sigmoid(np.array([0, LOGIT_34, -LOGIT_34, -1e4])) == pytest.approx([0.5, 0.75, 0.25, 0])
