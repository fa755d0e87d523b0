"""The contract of a kmodel as a header for C and C++."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from k210tasks.firmware.contract import Contract, Input
from k210tasks.samples.preprocess import PerChannel


def c_header(contract: Contract) -> str:
    """The contract as preprocessor lines every C and C++ compiler takes, ASCII only."""
    prefix = c_identifier(contract.model)
    given = contract.input
    names = ("CHANNELS", "HEIGHT", "WIDTH") if given.layout == "planar" else ()
    lines = [
        ("KMODEL_VERSION", str(contract.kmodel)),
        *([("KMODEL_BYTES", str(contract.nbytes))] if contract.nbytes is not None else []),
        *([("MAIN_MEMORY", str(contract.main_memory))] if contract.main_memory is not None else []),
        ("INPUT_NAME", c_string(given.name)),
        ("INPUT_RANK", str(len(given.shape))),
        ("INPUT_SHAPE", _braces(map(str, given.shape))),
        *((f"INPUT_{n}", str(size)) for n, size in zip(names, given.shape, strict=False)),
        ("INPUT_BYTES", str(given.nbytes)),
        ("INPUT_IS_UINT8", str(int(given.dtype == "uint8"))),
        *([("INPUT_COLOR", c_string(given.color))] if given.color is not None else []),
        *(_c_scaling(given) if given.kind == "images" else []),
        *_c_quantised("INPUT", given.scale, given.zero_point),
        ("OUTPUT_COUNT", str(len(contract.outputs))),
    ]
    for i, out in enumerate(contract.outputs):
        lines += [
            (f"OUTPUT{i}_NAME", c_string(out.name)),
            (f"OUTPUT{i}_RANK", str(len(out.shape))),
            (f"OUTPUT{i}_SHAPE", _braces(map(str, out.shape))),
            (f"OUTPUT{i}_BYTES", str(out.nbytes)),
            (f"OUTPUT{i}_IS_UINT8", str(int(out.dtype == "uint8"))),
            *_c_quantised(f"OUTPUT{i}", out.scale, out.zero_point),
        ]
    lines.append(("LABEL_COUNT", str(len(contract.labels))))
    if contract.labels:
        lines.append(("LABELS", _braces(map(c_string, contract.labels))))
    defines = "\n".join(f"#define {prefix}_{name} {value}" for name, value in lines)
    return (
        f"/* What the kmodel {_c_comment(contract.model)} is fed and what it gives; made by"
        " k210tasks.\n"
        f" * Input: {_c_comment(given.sentence)}.\n"
        " * real value = SCALE * (stored - ZERO_POINT). */\n"
        f"#ifndef {prefix}_CONTRACT_H\n#define {prefix}_CONTRACT_H\n\n"
        f"{defines}\n\n#endif\n"
    )


def c_identifier(name: str) -> str:
    """``K210_NAME``: a valid macro prefix, different for different names.

    Model names hold letters of any script and ``._-``. What C does not take becomes ``_``,
    and then four digits of a hash keep ``a-b`` and ``a.b`` apart.
    """
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name).upper()
    if not re.fullmatch(r"[A-Za-z0-9_]*", name):
        plain += "_" + hashlib.sha256(name.encode(errors="replace")).hexdigest()[:4].upper()
    return f"K210_{plain}"


def c_string(text: str) -> str:
    """A C string literal of the UTF-8 bytes: ASCII, without trigraphs.

    Octal escapes of three digits, because a hexadecimal one would swallow the digits after it.
    """
    keep = {
        byte: chr(byte) for byte in range(0x20, 0x7F) if chr(byte) not in '"\\?'
    }  # `?` could begin a trigraph
    return '"' + "".join(keep.get(b, f"\\{b:03o}") for b in text.encode(errors="replace")) + '"'


def _c_comment(text: str) -> str:
    """ASCII that cannot end the comment it stands in."""
    return text.encode("ascii", "backslashreplace").decode().replace("*/", "* /")


def _c_float(value: float) -> str:
    return f"{float(value)!r}f"


def _c_floats(value: PerChannel) -> str:
    """A number, or an initialiser of one a channel."""
    return _braces(map(_c_float, value)) if isinstance(value, tuple) else _c_float(value)


def _c_scaling(given: Input) -> list[tuple[str, str]]:
    return [("INPUT_MEAN", _c_floats(given.mean)), ("INPUT_STD", _c_floats(given.std))]


def _c_quantised(
    prefix: str, scale: PerChannel | None, zero_point: PerChannel | None
) -> list[tuple[str, str]]:
    if scale is None or zero_point is None:
        return []
    return [(f"{prefix}_SCALE", _c_floats(scale)), (f"{prefix}_ZERO_POINT", _c_floats(zero_point))]


def _braces(items: Iterable[str]) -> str:
    return "{" + ", ".join(items) + "}"
