"""Boxes that people have drawn: YOLO's .txt, Pascal VOC's .xml or COCO's .json beside pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from k210tasks.bounded import read_bounded
from k210tasks.errors import K210Error


class TruthError(K210Error):
    """A file of boxes that cannot be used. ``file``: as the user has it."""

    def __init__(self, file: str, what: str, remedy: str) -> None:
        super().__init__(f"{file}: {what}; {remedy}")


@dataclass(frozen=True, slots=True)
class Box:
    """``label``: the class by its name, or by its number where the file has numbers. Corners are
    shares of the picture."""

    label: str | int
    left: float
    top: float
    right: float
    bottom: float


def read_truth(folder: Path, files: Sequence[str], shown: str) -> dict[str, tuple[Box, ...]]:
    """The boxes of those pictures of which any are told, by the picture's path in ``folder``.

    Beside ``a.jpg`` lies ``a.txt`` (a class by number, center and size as shares, a row a box;
    empty: nothing is there) or ``a.xml``; or a ``.json`` in the folder itself names all.
    ``shown``: the folder as the user has it.

    Raises:
        TruthError: a file that is none of what its suffix says.
    """
    found: dict[str, tuple[Box, ...]] = {}
    for path in sorted(folder.glob("*.json")):
        found.update(_coco(path, files, f"{shown}/{path.name}"))
    for file in files:
        for suffix, reader in (".txt", _yolo), (".xml", _voc):
            beside = (folder / file).with_suffix(suffix)
            if file not in found and beside.is_file():
                found[file] = tuple(reader(beside, f"{shown}/{Path(file).with_suffix(suffix)}"))
    return found


def numbered(
    truth: Mapping[str, Sequence[Box]], labels: Sequence[str], shown: str
) -> dict[str, list[tuple[int, Box]]]:
    """With each class by its number in ``labels``; where there are none, names are numbered in
    their order.

    Raises:
        TruthError: a class that is not among the labels.
    """
    names = sorted({b.label for boxes in truth.values() for b in boxes if isinstance(b.label, str)})
    index = {name: i for i, name in enumerate(labels or names)}
    found: dict[str, list[tuple[int, Box]]] = {}
    for file, boxes in truth.items():
        found[file] = []
        for box in boxes:
            number = index.get(box.label) if isinstance(box.label, str) else box.label
            if number is None or (labels and number >= len(labels)):
                raise TruthError(
                    f"{shown}/{file}",
                    f"a box of class {box.label!r} is drawn in it",
                    f"labels in models.yaml must name it; they are {', '.join(labels)}",
                )
            found[file].append((number, box))
    return found


_YOLO = "a row a box is expected: class number, center x, center y, width, height, as shares 0..1"


def _yolo(path: Path, shown: str) -> Iterator[Box]:
    for i, line in enumerate(_text(path, shown).splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            label, (x, y, width, height) = int(words[0]), map(float, words[1:])
        except ValueError:
            raise TruthError(shown, f"line {i} is {line[:60]!r}", _YOLO) from None
        if label < 0 or not all(0 <= v <= 1 for v in (x, y, width, height)):
            raise TruthError(shown, f"line {i} is {line[:60]!r}", _YOLO)
        yield Box(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)


_VOC = (
    "size/width, size/height and of each object name and bndbox/xmin, ymin, xmax, ymax are needed"
)


def _voc(path: Path, shown: str) -> Iterator[Box]:
    try:
        root = ElementTree.fromstring(_text(path, shown))
    except ElementTree.ParseError as error:
        raise TruthError(shown, f"it is no XML: {error}", "write Pascal VOC's") from None
    width, height = _sizes(root.find("size"), ("width", "height"), shown)
    if width <= 0 or height <= 0:
        raise TruthError(shown, f"the picture is {width:g}x{height:g}", _VOC)
    for item in root.iter("object"):
        name = item.findtext("name")
        if not name:
            raise TruthError(shown, "an object has no name", _VOC)
        edges = _sizes(item.find("bndbox"), ("xmin", "ymin", "xmax", "ymax"), shown)
        left, top, right, bottom = edges
        yield Box(name.strip(), left / width, top / height, right / width, bottom / height)


def _sizes(item: ElementTree.Element | None, names: Iterable[str], shown: str) -> tuple[float, ...]:
    found = []
    for name in names:
        text = None if item is None else item.findtext(name)
        try:
            found.append(float(text or ""))
        except ValueError:
            raise TruthError(shown, f"{name} is {text!r}", _VOC) from None
    return tuple(found)


_COCO = "COCO's images (id, file_name, width, height), annotations (image_id, category_id, bbox) \
and categories (id, name) are needed"


def _coco(path: Path, files: Sequence[str], shown: str) -> dict[str, tuple[Box, ...]]:
    """Of pictures by the path or, where that is not told, the name in ``file_name``. A .json that
    has nothing of the kind is somebody else's."""
    try:
        content = json.loads(_text(path, shown))
    except (ValueError, RecursionError) as error:
        raise TruthError(shown, f"it is no JSON: {error}", "write COCO's, or remove it") from None
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return {}
    try:
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        pictures = {image["id"]: image for image in content["images"]}
        boxes: dict[Any, list[Box]] = {key: [] for key in pictures}
        for row in content["annotations"]:
            image = pictures[row["image_id"]]
            wide, high = float(image["width"]), float(image["height"])
            x, y, width, height = map(float, row["bbox"])
            edges = (x / wide, y / high, (x + width) / wide, (y + height) / high)
            if not all(map(math.isfinite, edges)):
                raise ValueError(f"bbox {row['bbox']}")
            boxes[row["image_id"]].append(Box(names[row["category_id"]], *edges))
        by_name = {str(image["file_name"]): tuple(boxes[key]) for key, image in pictures.items()}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TruthError(shown, f"{type(error).__name__}: {error}", _COCO) from None
    by_end = {name.rsplit("/", 1)[-1]: boxes_ for name, boxes_ in by_name.items()}
    both = {file: by_name.get(file, by_end.get(file.rsplit("/", 1)[-1])) for file in files}
    return {file: known for file, known in both.items() if known is not None}


def _text(path: Path, shown: str) -> str:
    try:
        return read_bounded(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TruthError(shown, "it is no text in UTF-8", "save it anew") from None
    except OSError as error:
        raise TruthError(shown, f"it cannot be read: {error.strerror}", "mend it") from None
