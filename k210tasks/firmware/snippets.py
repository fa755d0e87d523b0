"""The lines that load the models of an image on the board: MicroPython or C, by profile.

Calls as the firmwares' own sources define them: MaixPy's ``KPU`` module
(``sipeed/MaixPy-v1:components/micropython/port/src/Maix/Maix_kpu.c``), CanMV's ``maix.KPU``
class (``kendryte/canmv``, main and feat/kpu), and for C see :mod:`k210tasks.firmware.snippets_c`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from k210tasks.firmware.entry import Entry, Snippet, describe_input, set_outputs_shape, suffix_of
from k210tasks.firmware.snippets_c import c_snippet
from k210tasks.profiles import Profile

#: Defaults of the boards' own examples; a detector's user tunes them.
THRESHOLD, NMS = 0.5, 0.3


def load_snippet(image: str, profile: Profile, entries: Sequence[Entry]) -> Snippet:
    """The lines for every model of the image."""
    if profile.language == "c":
        return c_snippet(image, profile, entries)
    imports, body = _DIALECTS.get(profile.name, _MAIXPY)
    parts = [
        f"# Loads the models of firmware image {image!a} for profile {profile.name};"
        " made by k210tasks.",
        imports,
        *("\n".join(["", *_about(entry), *body(entry)]) for entry in entries),
    ]
    return Snippet(suffix_of(profile), "\n".join(parts) + "\n")


def _about(entry: Entry) -> list[str]:
    contract = entry.contract
    lines = [
        f"# {contract.model!a}: kmodel {contract.kmodel} at {entry.address:#x},"
        f" {entry.nbytes} bytes",
        f"# input: {describe_input(contract)}",
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


def _tuple(items: Iterable[str]) -> str:
    texts = list(items)
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def _maixpy(entry: Entry) -> list[str]:
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
        lines.append(
            f"kpu.init_yolo2(task_{it}, {THRESHOLD}, {NMS}, {len(entry.boxes) // 2}, anchors_{it})"
        )
    lines += ["", "", f"def run_{it}({_argument(entry)}):"]
    if entry.boxes:
        return [
            *lines,
            f"    return kpu.run_yolo2(task_{it}, image) or []  # boxes: rect(), classid()",
        ]
    lines.append(f"    first = kpu.forward(task_{it}, {_argument(entry)})[:]")
    others = [f"kpu.get_output(task_{it}, {i})[:]" for i in range(1, len(contract.outputs))]
    return [*lines, f"    return {_tuple(['first', *others])}"]


def _canmv(entry: Entry) -> list[str]:
    it = entry.symbol
    lines = [
        f"kpu_{it} = KPU()",
        f"kpu_{it}.load_kmodel({entry.address:#x}, {entry.nbytes})",
        *_constants(entry),
    ]
    if entry.boxes:
        net, out = entry.contract.input.shape, entry.contract.outputs[0].shape
        pairs = len(entry.boxes) // 2
        lines += [
            f"kpu_{it}.init_yolo2(anchors_{it}, anchor_num={pairs}, img_w={net[-1]},"
            f" img_h={net[-2]},",
            f"    net_w={net[-1]}, net_h={net[-2]}, layer_w={out[-1]}, layer_h={out[-2]},"
            f" threshold={THRESHOLD},",
            f"    nms_value={NMS}, classes={_classes(entry, pairs)})",
        ]
    lines += ["", "", f"def run_{it}({_argument(entry, 'path')}):"]
    if entry.boxes:
        return [
            *lines,
            f"    kpu_{it}.run_with_output(image)",
            f"    return kpu_{it}.regionlayer_yolo2()  # boxes: x, y, w, h, class, probability",
        ]
    return [
        *lines,
        f"    return kpu_{it}.run_with_output({_argument(entry, 'path')}, getlist=True)",
    ]


def _canmv_kpu5(entry: Entry) -> list[str]:
    it = entry.symbol
    lines = [
        f"kpu_{it} = KPU()",
        f"kpu_{it}.load({entry.address:#x}, size={entry.nbytes})",
        *_constants(entry),
    ]
    if entry.boxes:
        lines += [
            f"yolo_{it} = kpu_{it}.Yolo2()",
            f"yolo_{it}.init(anchors_{it}, {THRESHOLD}, {NMS})",
        ]
    return [
        *lines,
        "",
        "",
        f"def run_{it}(image):",
        f"    kpu_{it}.run(image)",
        f"    return {f'yolo_{it}.run()' if entry.boxes else f'kpu_{it}.get_outputs()'}",
    ]


def _argument(entry: Entry, other: str = "numbers") -> str:
    """What the run function takes: an image after ``pix_to_ai()``, or the numbers themselves."""
    given = entry.contract.input
    is_image = given.layout == "planar" and given.dtype == "uint8" and given.shape[0] in (1, 3)
    return "image" if is_image or entry.boxes else other


def _classes(entry: Entry, pairs: int) -> int:
    return len(entry.contract.labels) or entry.contract.outputs[0].shape[0] // pairs - 5


_Dialect = tuple[str, Callable[[Entry], list[str]]]
_MAIXPY: _Dialect = ("import KPU as kpu", _maixpy)

#: Profiles whose MicroPython is not MaixPy's.
_DIALECTS: dict[str, _Dialect] = {
    "canmv": ("from maix import KPU", _canmv),
    "canmv-kpu5": ("from maix import KPU", _canmv_kpu5),
}
