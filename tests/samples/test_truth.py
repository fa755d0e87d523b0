"""Boxes drawn by people: the three kinds of file, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k210tasks.samples.truth import Box, TruthError, numbered, read_truth

VOC = """<annotation><filename>a.jpg</filename>
<size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>100</xmax><ymax>50</ymax>
</bndbox></object></annotation>"""


def coco(**changes: Any) -> str:
    return json.dumps(
        {
            "images": [
                {"id": 7, "file_name": "in/a.jpg", "width": 200, "height": 100},
                {"id": 8, "file_name": "gone.jpg", "width": 200, "height": 100},
                {"id": 9, "file_name": "b.jpg", "width": 200, "height": 100},
            ],
            "annotations": [{"image_id": 7, "category_id": 3, "bbox": [20, 10, 80, 40]}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
            **changes,
        }
    )


def test_rows_of_yolo(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("2 0.5 0.25 0.5 0.25\n\n0 0.5 0.5 1 1\n")
    (tmp_path / "b.txt").write_text("")
    found = read_truth(tmp_path, ("in/a.jpg", "b.jpg", "c.jpg"), "pictures")
    assert found == {
        "in/a.jpg": (Box(2, 0.25, 0.125, 0.75, 0.375), Box(0, 0, 0, 1, 1)),
        "b.jpg": (),
    }


def test_objects_of_voc(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(VOC)
    found = read_truth(tmp_path, ("a.jpg",), "pictures")
    assert found == {"a.jpg": (Box("cat", 0.1, 0.1, 0.5, 0.5),)}


def test_annotations_of_coco(tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(coco())
    (tmp_path / "notes.json").write_text('{"by": "me"}')
    found = read_truth(tmp_path, ("in/a.jpg", "b.jpg", "c.jpg"), "pictures")
    assert found == {"in/a.jpg": (Box("cat", 0.1, 0.1, 0.5, 0.5),), "b.jpg": ()}
    # In another folder than the one it was written for: by the name alone.
    assert read_truth(tmp_path, ("there/a.jpg",), "pictures") == {"there/a.jpg": found["in/a.jpg"]}


def test_classes_get_their_numbers() -> None:
    box = Box("cat", 0, 0, 1, 1)
    truth = {"a.jpg": (box, Box("ant", 0, 0, 1, 1)), "b.jpg": (Box(1, 0, 0, 1, 1),)}
    assert [n for n, _ in numbered(truth, ("dog", "ant", "cat"), "p")["a.jpg"]] == [2, 1]
    assert [n for n, _ in numbered(truth, (), "p")["a.jpg"]] == [1, 0]  # in their order
    assert [n for n, _ in numbered(truth, (), "p")["b.jpg"]] == [1]


@pytest.mark.parametrize("label", ["cat", 2])
def test_a_class_that_has_no_label_is_told(label: str | int) -> None:
    with pytest.raises(TruthError) as caught:
        numbered({"a.jpg": (Box(label, 0, 0, 1, 1),)}, ("dog", "ant"), "p")
    assert str(caught.value) == (
        f"p/a.jpg: a box of class {label!r} is drawn in it; labels in models.yaml must name it; "
        "they are dog, ant"
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"cat 0 0 1 1", "p/a.txt: line 1 is 'cat 0 0 1 1'; a row a box is expected"),
        ("a.txt", b"0 0 0 1", "p/a.txt: line 1 is '0 0 0 1'; a row a box is expected"),
        ("a.txt", b"0 120 80 40 40", "p/a.txt: line 1 is '0 120 80 40 40'; a row a box is"),
        ("a.txt", b"-1 0 0 1 1", "p/a.txt: line 1 is '-1 0 0 1 1'; a row a box is expected"),
        ("a.txt", b"0 nan 0 1 1", "p/a.txt: line 1 is '0 nan 0 1 1'; a row a box is expected"),
        ("a.txt", b"\xff\xfe", "p/a.txt: it is no text in UTF-8; save it anew"),
        ("a.xml", b"<a>", "p/a.xml: it is no XML: "),
        ("a.xml", b"<a/>", "p/a.xml: width is None; size/width, size/height and of each object"),
        ("a.xml", VOC.replace("200", "0").encode(), "p/a.xml: the picture is 0x100; size/width"),
        ("a.xml", VOC.replace("cat", "").encode(), "p/a.xml: an object has no name; size/width"),
        ("b.json", b"{", "p/b.json: it is no JSON: "),
        ("b.json", coco(categories=[]).encode(), "p/b.json: KeyError: 3; COCO's images (id, "),
        ("b.json", coco(images=[]).encode(), "p/b.json: KeyError: 7; COCO's images (id, file"),
        ("b.json", coco(annotations=[3]).encode(), "p/b.json: TypeError: "),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TruthError) as caught:
        read_truth(tmp_path, ("a.jpg",), "p")
    assert str(caught.value).startswith(said)
