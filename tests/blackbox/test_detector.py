"""A detector through the command line: what is said of its head is what it is proved by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from k210tasks.heads.detections import suppress
from k210tasks.heads.yolo2 import Yolo2
from tests.blackbox.onnx_files import floats, saved
from tests.blackbox.projects import Project

MANIFEST = """\
models:
  spots:
    source: spots.onnx
    images: pictures
    preprocess: {mean: 0.5, std: 0.5}
    effort: fast
    head: {type: yolo2, anchors: [0.5, 0.5, 1, 0.75], score: 0.3}
"""


class Spots(Project):
    """A network of two anchors and two classes on 4x4 cells, which sees boxes in most pictures."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, MANIFEST)
        numbers = np.random.default_rng(7)
        head = floats(14, 16, 1, 1) * 3
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["a"], pads=[1] * 4, strides=[2, 2]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("Conv", ["r", "v"], ["c"], pads=[1] * 4, strides=[4, 4]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Conv", ["d", "h"], ["scores"]),
        ]
        saved(
            root / "spots.onnx", nodes, "image", [1, 3, 32, 32], False,
            w=floats(8, 3, 3, 3) * 2, v=floats(16, 8, 3, 3) * 2, h=head,
        )  # fmt: skip
        (root / "pictures").mkdir()
        for k in range(12):
            coarse = numbers.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(coarse).resize((32, 32)).save(root / f"pictures/{k:02}.png")

    def measured(self) -> dict[str, Any]:
        return dict(json.loads(self.read("build/spots/measurement.json"))["boxes"])


@pytest.fixture
def project(tmp_path: Path) -> Spots:
    return Spots(tmp_path)


def test_a_detector_is_judged_by_its_boxes(project: Spots) -> None:
    computed, said = project.doit()
    assert computed == ["calibrate:spots", "kmodel:spots", "verify:spots"]
    boxes = project.measured()
    assert boxes["wanted"] > 30
    assert 0.9 < boxes["f1"] <= 1
    assert boxes["f1"] == pytest.approx(2 * boxes["matched"] / (boxes["found"] + boxes["wanted"]))
    assert 0.8 < boxes["mean_overlap"] < 1
    assert boxes["mean_points"] is None
    verdict = json.loads(project.read("build/spots/verify.json"))
    assert verdict["thresholds"] == {"min_cosine": None, "min_top1": None, "min_f1": 0.9}
    assert f"F1 {int(boxes['f1'] * 1e4) / 1e4:.4f}, mean IoU" in " ".join(said.split())
    assert f"{boxes['found']} boxes for {boxes['wanted']} of the float model" in " ".join(
        verdict["headline"].split()
    )
    page = project.read("build/report/models/spots.html")
    assert "anchors_spots = (0.5, 0.5, 1.0, 0.75)" in page
    assert "min_f1 0.9" in page
    measured = json.loads(project.read("build/spots/measurement.json"))
    answers = measured["answers"]
    shown = [box for entry in answers for by in ("float", "kmodel") for box in entry["boxes"][by]]
    assert page.count('<rect class="') == len(shown) > 100
    worst = next(i for i in measured["images"] if i["file"] == boxes["worst_file"])
    assert (answers[0]["file"], worst["f1"]) == (boxes["worst_file"], boxes["worst_f1"])
    assert "kpu.init_yolo2(task_spots, 0.3, 0.45, 2, anchors_spots)" in page

    # Another limit is judged, another score is measured: nothing else is made again.
    project.edit("score: 0.3}", "score: 0.3}\n    verify: {min_f1: 0.5}")
    assert project.doit("model:spots")[0] == []
    verdict = json.loads(project.read("build/spots/verify.json"))
    assert verdict["thresholds"]["min_f1"] == 0.5
    project.edit("score: 0.3", "score: 0.6")
    assert project.doit("model:spots")[0] == ["verify:spots"]
    assert project.measured()["wanted"] < boxes["wanted"]


def test_boxes_that_differ_fail_the_build_and_say_where(project: Spots) -> None:
    """Weights of the kmodel's boxes moved by hand are not to be had; a limit above what is
    reached is: the build ends, and names the figures and the worst picture."""
    project.edit("score: 0.3}", "score: 0.02, nms: 1}\n    verify: {min_f1: 1}")
    _, said = project.doit(status=1)
    boxes = project.measured()
    assert boxes["f1"] < 1
    text = " ".join(said.split())
    assert f"is below min_f1 1: of {boxes['wanted']} of the float model the kmodel finds" in text
    assert f"{boxes['matched']}, and {boxes['found'] - boxes['matched']} others" in text
    assert f"worst image pictures/{boxes['worst_file']} (F1" in text


def test_drawn_boxes_beside_the_pictures_are_found_again(project: Spots) -> None:
    """What onnxruntime's outputs say above the score, drawn as YOLO writes it: the float model
    finds all of it, the kmodel a little less."""
    session = onnxruntime.InferenceSession(project.root / "spots.onnx")
    drawn = 0
    for picture in sorted((project.root / "pictures").glob("*.png")):
        with Image.open(picture) as opened:
            pixels = np.asarray(opened, np.float32).transpose(2, 0, 1)[None] / 255
        (outputs,) = session.run(None, {"image": ((pixels - 0.5) / 0.5).astype(np.float32)})
        found = suppress(Yolo2(((0.5, 0.5), (1, 0.75)), 2).decode([outputs[0]], 0.3), 0.45)
        inside = found[np.all(found.boxes[:, 2:] - found.boxes[:, :2] <= 1, axis=1)]
        rows = []
        for (left, top, right, bottom), of in zip(inside.boxes, inside.classes, strict=True):
            center = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            rows.append(" ".join(map(repr, (int(of), *map(float, center)))))
        picture.with_suffix(".txt").write_text("\n".join(rows))
        drawn += len(rows)
    _, said = project.doit()
    truth = project.measured()["truth"]
    assert (truth["pictures"], truth["boxes"]) == (12, drawn)
    assert 0.5 < truth["kmodel"]["ap"] < truth["float"]["ap"] <= 1
    assert f"of {drawn} drawn: mAP50 {int(truth['kmodel']['ap50'] * 1e4) / 1e4:.4f}" in " ".join(
        said.split()
    )

    # Other boxes are measured anew, a lower limit fails.
    (project.root / "pictures/00.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    project.edit("score: 0.3}", "score: 0.3}\n    verify: {max_map_loss: 0.0}")
    computed, said = project.doit(status=1)
    assert computed == ["verify:spots"]
    assert "max_map_loss is 0" in " ".join(said.split())
    (project.root / "pictures/00.txt").write_text("1 50% 0.5 0.25 0.25\n")
    _, said = project.doit(status=1)
    assert (
        "pictures/00.txt: line 1 is '1 50% 0.5 0.25 0.25'; a row a box is expected: class number, "
        "center x, center y, width, height, as shares 0..1"
    ) in " ".join(said.split())


def test_a_loss_of_precision_needs_drawn_boxes(project: Spots) -> None:
    project.edit("score: 0.3}", "score: 0.3}\n    verify: {max_map_loss: 0.01}")
    _, said = project.doit(status=1)
    assert "no drawn boxes lie beside the pictures of pictures: a .txt (YOLO)" in " ".join(
        said.split()
    )


def test_a_head_that_does_not_fit_is_told(project: Spots) -> None:
    project.edit("anchors: [0.5, 0.5, 1, 0.75]", "anchors: [1, 1, 2, 2, 3, 3]")
    _, said = project.doit(status=1)
    assert (
        "head yolo2: an output is 14x4x4, it must be CHANNELSxHEIGHTxWIDTH with 5 numbers and one "
        "a class for each of 3 anchors"
    ) in " ".join(said.split())


def test_a_float_model_that_sees_nothing_proves_nothing(project: Spots) -> None:
    project.edit("score: 0.3", "score: 1")
    _, said = project.doit()
    text = " ".join(said.split())
    assert "F1 1.0000, 0 boxes for 0 of the float model" in text
    assert "the float model finds no box above score 1 in 12 images" in text
