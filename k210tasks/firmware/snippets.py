"""The lines that load the models of an image on the board: MicroPython or C, by profile.

Calls as the firmwares' own sources define them: MaixPy's ``KPU`` module
(``sipeed/MaixPy-v1:components/micropython/port/src/Maix/Maix_kpu.c``), CanMV's ``maix.KPU``
class (``kendryte/canmv``, main and feat/kpu), and for C see :mod:`k210tasks.firmware.snippets_c`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from k210tasks.firmware.contract import Contract
from k210tasks.firmware.entry import Entry, Snippet, set_outputs_shape, suffix_of
from k210tasks.firmware.snippets_c import c_snippet
from k210tasks.profiles import Profile

#: Defaults of the boards' own examples; a detector's user tunes them.
THRESHOLD, NMS = 0.5, 0.3


def load_snippet(image: str, profile: Profile, entries: Sequence[Entry]) -> Snippet:
    """The lines for every model of the image."""
    if profile.language == "c":
        return c_snippet(image, profile, entries)
    imports, body = _DIALECTS.get(profile.name, _MAIXPY)
    if any(way(entry.contract, profile) == "codes in an image" for entry in entries):
        imports += "\nimport image"
    parts = [
        f"# Loads the models of firmware image {image!a} for profile {profile.name};"
        " made by k210tasks.",
        imports,
        *("\n".join(["", *_about(entry), *body(entry, profile)]) for entry in entries),
    ]
    return Snippet(suffix_of(profile), "\n".join(parts) + "\n")


def _about(entry: Entry) -> list[str]:
    contract = entry.contract
    lines = [
        f"# {contract.model!a}: kmodel {contract.kmodel} at {entry.address:#x},"
        f" {entry.nbytes} bytes",
        f"# input: {contract.input.sentence}",
        *(
            f"# output {i}: {out.name!a} {'x'.join(map(str, out.shape)) or '1'} {out.dtype}"
            for i, out in enumerate(contract.outputs)
        ),
    ]
    if contract.input.color == "bgr":
        lines.append(
            "# The model wants planes B, G, R; this firmware's images give R, G, B: swap them."
        )
    if not contract.input.stated:
        lines.append("# mean and std were not stated in models.yaml: 0 and 1 were used.")
    return lines


def _constants(entry: Entry) -> list[str]:
    lines = []
    if entry.contract.labels:
        lines.append(f"labels_{entry.symbol} = {_tuple(map(ascii, entry.contract.labels))}")
    if entry.boxes:
        lines.append(f"anchors_{entry.symbol} = {_tuple(map(repr, entry.boxes))}")
    return lines


def _limits(entry: Entry) -> tuple[float, float]:
    return entry.limits or (THRESHOLD, NMS)


def _tuple(items: Iterable[str]) -> str:
    texts = list(items)
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


Way = Literal["image", "numbers", "file", "codes in an image", "codes in a file", "none"]


def way(contract: Contract, profile: Profile) -> Way:
    """How MicroPython feeds a model: an image after ``pix_to_ai()``; a list of floats; a file of
    the raw bytes; codes, computed from a list of numbers, as a grey image or a file.

    MaixPy hands every list on as float32, so that codes must come as the pixels of an image,
    which only a grey one keeps as they are; CanMV's branch feat/kpu takes images alone.
    """
    given = contract.input
    if given.dtype == "uint8" and given.kind == "tensors":
        if given.formula is not None and profile.name == "canmv":
            return "codes in a file"
        grey = given.layout == "planar" and given.shape[0] == 1
        return "codes in an image" if given.formula is not None and grey else "none"
    if given.dtype == "uint8" and given.layout == "planar" and given.shape[0] in (1, 3):
        return "image"
    if profile.name == "canmv":
        return "file"
    images_only = profile.name == "canmv-kpu5" and given.kind == "tensors"
    return "none" if images_only else "numbers"


def _code(entry: Entry) -> list[str]:
    """The function that makes the code of a number."""
    given = entry.contract.input
    expression = str(given.formula).partition(" = ")[2]
    return [
        "",
        "",
        f"def code_{entry.symbol}(x):",
        f"    return max(0, min(255, int({expression})))",
    ]


def _codes(entry: Entry) -> str:
    """The codes of ``numbers``, filled up to what the input takes."""
    given = entry.contract.input
    rest = given.nbytes - math.prod(given.tensor_shape)
    filled = f" + [0] * {rest}" if rest else ""
    return f"[code_{entry.symbol}(x) for x in numbers]{filled}"


def _image_of_codes(entry: Entry) -> list[str]:
    """Lines of a function: ``img``, whose pixels are the codes of ``numbers``."""
    _, height, width = entry.contract.input.shape
    return [
        f"    img = image.Image(size=({width}, {height}))",
        "    img = img.to_grayscale()",
        f"    codes = {_codes(entry)}",
        f"    for i in range({width * height}):",
        f"        img.set_pixel(i % {width}, i // {width}, codes[i])",
        "    img.pix_to_ai()",
    ]


def _no_way(entry: Entry, profile: Profile) -> list[str]:
    """In place of a function that cannot be."""
    floats = "" if profile.name == "canmv-kpu5" else " or floats"
    return [
        f"# This firmware's MicroPython feeds images of 1 or 3 channels{floats}, which",
        "# this model does not take.",
        *(
            [
                "# A kmodel 4 of a model of tensors is fed with floats: set kmodel: 4, and leave",
                "# input: out.",
            ]
            if floats
            else []
        ),
    ]


def _maixpy(entry: Entry, profile: Profile) -> list[str]:
    it, contract = entry.symbol, entry.contract
    lines = [f"task_{it} = kpu.load({entry.address:#x})", *_constants(entry)]
    if contract.kmodel == 4:  # the format has sizes of outputs, no shapes
        for i, out in enumerate(contract.outputs):
            w, h, c = set_outputs_shape(out.shape)
            lines += [
                f"if not kpu.set_outputs(task_{it}, {i}, {w}, {h}, {c}):  # width height channels",
                f'    raise ValueError("the model at {entry.address:#x} is another one")',
            ]
    if entry.boxes:
        score, nms = _limits(entry)
        lines.append(
            f"kpu.init_yolo2(task_{it}, {score}, {nms}, {len(entry.boxes) // 2}, anchors_{it})"
        )
        return [
            *lines,
            "",
            "",
            f"def run_{it}(image):",
            f"    return kpu.run_yolo2(task_{it}, image) or []  # boxes: rect(), classid()",
        ]
    how = way(contract, profile)
    if how == "none":
        return [*lines, *_no_way(entry, profile)]
    given = "image" if how == "image" else "numbers"
    if how == "codes in an image":
        lines += _code(entry)
    lines += ["", "", f"def run_{it}({given}):"]
    if how == "codes in an image":
        lines += _image_of_codes(entry)
        given = "img"
    lines.append(f"    first = kpu.forward(task_{it}, {given})[:]")
    others = [f"kpu.get_output(task_{it}, {i})[:]" for i in range(1, len(contract.outputs))]
    return [*lines, f"    return {_tuple(['first', *others])}"]


def _canmv(entry: Entry, profile: Profile) -> list[str]:
    it, how = entry.symbol, way(entry.contract, profile)
    lines = [
        f"kpu_{it} = KPU()",
        f"kpu_{it}.load_kmodel({entry.address:#x}, {entry.nbytes})",
        *_constants(entry),
    ]
    if entry.boxes:
        net, out = entry.contract.input.shape, entry.contract.outputs[0].shape
        pairs = len(entry.boxes) // 2
        score, nms = _limits(entry)
        lines += [
            f"kpu_{it}.init_yolo2(anchors_{it}, anchor_num={pairs}, img_w={net[-1]},"
            f" img_h={net[-2]},",
            f"    net_w={net[-1]}, net_h={net[-2]}, layer_w={out[-1]}, layer_h={out[-2]},"
            f" threshold={score},",
            f"    nms_value={nms}, classes={_classes(entry, pairs)})",
        ]
    if entry.boxes:
        return [
            *lines,
            "",
            "",
            f"def run_{it}(image):",
            f"    kpu_{it}.run_with_output(image)",
            f"    return kpu_{it}.regionlayer_yolo2()  # boxes: x, y, w, h, class, probability",
        ]
    if how == "none":
        return [*lines, *_no_way(entry, profile)]
    if how == "codes in a file":
        return [
            *lines,
            *_code(entry),
            "",
            "",
            f'def run_{it}(numbers, path="/sd/input.bin"):',
            '    with open(path, "wb") as file:',
            f"        file.write(bytes({_codes(entry)}))",
            f"    return kpu_{it}.run_with_output(path, getlist=True)",
        ]
    given = "image" if how == "image" else "path"
    return [
        *lines,
        "",
        "",
        f"def run_{it}({given}):",
        f"    return kpu_{it}.run_with_output({given}, getlist=True)",
    ]


def _canmv_kpu5(entry: Entry, profile: Profile) -> list[str]:
    it, how = entry.symbol, way(entry.contract, profile)
    lines = [
        f"kpu_{it} = KPU()",
        f"kpu_{it}.load({entry.address:#x}, size={entry.nbytes})",
        *_constants(entry),
    ]
    if entry.boxes:
        score, nms = _limits(entry)
        lines += [
            f"yolo_{it} = kpu_{it}.Yolo2()",
            f"yolo_{it}.init(anchors_{it}, {score}, {nms})",
        ]
    if how == "none":
        return [*lines, *_no_way(entry, profile)]
    codes = how == "codes in an image"
    return [
        *lines,
        *(_code(entry) if codes else []),
        "",
        "",
        f"def run_{it}({'numbers' if codes else 'image'}):",
        *(_image_of_codes(entry) if codes else []),
        f"    kpu_{it}.run({'img' if codes else 'image'})",
        f"    return {f'yolo_{it}.run()' if entry.boxes else f'kpu_{it}.get_outputs()'}",
    ]


def _classes(entry: Entry, pairs: int) -> int:
    return len(entry.contract.labels) or entry.contract.outputs[0].shape[0] // pairs - 5


_Dialect = tuple[str, Callable[[Entry, Profile], list[str]]]
_MAIXPY: _Dialect = ("import KPU as kpu", _maixpy)

#: Profiles whose MicroPython is not MaixPy's.
_DIALECTS: dict[str, _Dialect] = {
    "canmv": ("from maix import KPU", _canmv),
    "canmv-kpu5": ("from maix import KPU", _canmv_kpu5),
}
