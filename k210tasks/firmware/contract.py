"""What a firmware must feed a kmodel and what it gets back, as JSON and as a C header.

The one preprocessing contract of models.yaml, completed with what the compiler decided,
handed to the people who write the firmware. Most boards that are "wrong while the PC is
right" break one of these lines: order of the colour planes, raw pixels or scaled ones,
the shape of an output.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from k210tasks.errors import K210Error
from k210tasks.samples.preprocess import Color

#: of the JSON; a reader refuses what it does not know
VERSION = 1

Dtype = Literal["uint8", "float32"]
Layout = Literal["planar", "flat"]

_ITEM_BYTES: dict[str, int] = {"uint8": 1, "float32": 4}


class ContractError(K210Error):
    """A contract.json that cannot be used."""

    def __init__(self, where: str, found: object, allowed: str) -> None:
        super().__init__(f"contract.json: {where} is {found!r}; it must be {allowed}")


class NotJson(ContractError):
    """No contract at all."""

    def __init__(self, why: str) -> None:
        K210Error.__init__(self, f"contract.json: it is no JSON written by k210tasks: {why}")


@dataclass(frozen=True, slots=True)
class Input:
    """The one input of a kmodel.

    ``shape``: ``(channels, height, width)`` where ``layout`` is "planar": one whole plane per
    colour, never interleaved pixels (docs/kpu-and-kmodel.md, section 5). A tensor of another
    rank has layout "flat": row-major, without the batch.
    ``dtype`` "uint8": raw pixels 0..255, which the firmware must not scale; the model itself
    computes ``(pixel / 255 - mean) / std``. "float32": numbers scaled that way already.
    ``scale``, ``zero_point``: real value = ``scale * (q - zero_point)`` of a uint8 input; None
    for float32. ``stated``: whether the user wrote mean and std down, or the defaults were used.
    """

    shape: tuple[int, ...]
    layout: Layout = "planar"
    dtype: Dtype = "uint8"
    mean: float = 0.0
    std: float = 1.0
    stated: bool = True
    scale: float | None = None
    zero_point: float | None = None
    color: Color | None = None
    name: str = "input"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Output:
    """One output, in the order of the file.

    ``shape``: without the batch; ``(channels, height, width)`` for a feature map, as both
    formats give it. ``scale``, ``zero_point``: as in :class:`Input`, where the output is
    uint8; None for float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype = "float32"
    scale: float | None = None
    zero_point: float | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything a firmware needs to know about one kmodel file.

    ``kmodel``: version of the file. ``profile``: firmware it was made for. ``nbytes`` and
    ``sha256``: of the kmodel file, so that a stale contract is found out. ``main_memory``:
    bytes of working memory the runtime allocates beside the file; None where the format does
    not say. ``labels``: by class index, empty where there are none.
    """

    model: str
    kmodel: int
    profile: str
    input: Input
    outputs: tuple[Output, ...]
    labels: tuple[str, ...] = ()
    nbytes: int | None = None
    sha256: str | None = None
    main_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; :meth:`from_dict` is its inverse."""
        given = self.input
        return {
            "version": VERSION,
            "model": self.model,
            "kmodel": {
                "version": self.kmodel,
                "bytes": self.nbytes,
                "sha256": self.sha256,
                "main_memory": self.main_memory,
            },
            "profile": self.profile,
            "input": {
                "name": given.name,
                "shape": list(given.shape),
                "layout": given.layout,
                "dtype": given.dtype,
                "bytes": given.nbytes,
                "color": given.color,
                "mean": float(given.mean),
                "std": float(given.std),
                "stated": given.stated,
                "scale": _optional_float(given.scale),
                "zero_point": _optional_float(given.zero_point),
            },
            "outputs": [
                {
                    "name": out.name,
                    "shape": list(out.shape),
                    "dtype": out.dtype,
                    "bytes": out.nbytes,
                    "scale": _optional_float(out.scale),
                    "zero_point": _optional_float(out.zero_point),
                }
                for out in self.outputs
            ],
            "labels": list(self.labels),
        }

    def to_json(self) -> str:
        """The text of contract.json: sorted keys, ASCII, one newline at the end."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Contract:
        """Read contract.json. Raises :class:`ContractError` naming what is wrong."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NotJson(str(error)) from None
        return Contract.from_dict(value)

    @staticmethod
    def from_dict(value: object) -> Contract:
        top = _Reader(value, "the file")
        if (version := top.get("version")) != VERSION:
            raise ContractError("version", version, f"{VERSION}; build the model again")
        kmodel = _Reader(top.get("kmodel"), "kmodel")
        given = _Reader(top.get("input"), "input")
        outputs = top.list("outputs")
        return Contract(
            model=top.text("model"),
            kmodel=kmodel.integer("version"),
            profile=top.text("profile"),
            input=Input(
                shape=given.shape("shape"),
                layout=given.one_of("layout", get_args(Layout)),
                dtype=given.one_of("dtype", get_args(Dtype)),
                mean=given.number("mean"),
                std=given.number("std"),
                stated=given.one_of("stated", (True, False)),
                scale=given.optional_number("scale"),
                zero_point=given.optional_number("zero_point"),
                color=given.one_of("color", (*get_args(Color), None)),
                name=given.text("name"),
            ),
            outputs=tuple(
                Output(
                    name=out.text("name"),
                    shape=out.shape("shape"),
                    dtype=out.one_of("dtype", get_args(Dtype)),
                    scale=out.optional_number("scale"),
                    zero_point=out.optional_number("zero_point"),
                )
                for out in (_Reader(o, f"outputs[{i}]") for i, o in enumerate(outputs))
            ),
            labels=top.texts("labels"),
            nbytes=kmodel.optional_integer("bytes"),
            sha256=None if kmodel.get("sha256") is None else kmodel.text("sha256"),
            main_memory=kmodel.optional_integer("main_memory"),
        )

    def c_header(self) -> str:
        """The contract as preprocessor lines every C and C++ compiler takes, ASCII only."""
        prefix = c_identifier(self.model)
        given = self.input
        names = ("CHANNELS", "HEIGHT", "WIDTH") if given.layout == "planar" else ()
        lines = [
            ("KMODEL_VERSION", str(self.kmodel)),
            *([("KMODEL_BYTES", str(self.nbytes))] if self.nbytes is not None else []),
            *([("MAIN_MEMORY", str(self.main_memory))] if self.main_memory is not None else []),
            ("INPUT_NAME", c_string(given.name)),
            ("INPUT_RANK", str(len(given.shape))),
            ("INPUT_SHAPE", _braces(map(str, given.shape))),
            *((f"INPUT_{n}", str(size)) for n, size in zip(names, given.shape, strict=False)),
            ("INPUT_BYTES", str(given.nbytes)),
            ("INPUT_IS_UINT8", str(int(given.dtype == "uint8"))),
            *([("INPUT_COLOR", c_string(given.color))] if given.color is not None else []),
            ("INPUT_MEAN", _c_float(given.mean)),
            ("INPUT_STD", _c_float(given.std)),
            *_c_quantised("INPUT", given.scale, given.zero_point),
            ("OUTPUT_COUNT", str(len(self.outputs))),
        ]
        for i, out in enumerate(self.outputs):
            lines += [
                (f"OUTPUT{i}_NAME", c_string(out.name)),
                (f"OUTPUT{i}_RANK", str(len(out.shape))),
                (f"OUTPUT{i}_SHAPE", _braces(map(str, out.shape))),
                (f"OUTPUT{i}_BYTES", str(out.nbytes)),
                (f"OUTPUT{i}_IS_UINT8", str(int(out.dtype == "uint8"))),
                *_c_quantised(f"OUTPUT{i}", out.scale, out.zero_point),
            ]
        lines.append(("LABEL_COUNT", str(len(self.labels))))
        if self.labels:
            lines.append(("LABELS", _braces(map(c_string, self.labels))))
        defines = "\n".join(f"#define {prefix}_{name} {value}" for name, value in lines)
        return (
            f"/* What the kmodel {_c_comment(self.model)} is fed and what it gives; made by"
            " k210tasks.\n"
            f" * Input: {_c_comment(_sentence(given))}\n"
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


def _c_quantised(
    prefix: str, scale: float | None, zero_point: float | None
) -> list[tuple[str, str]]:
    if scale is None or zero_point is None:
        return []
    return [(f"{prefix}_SCALE", _c_float(scale)), (f"{prefix}_ZERO_POINT", _c_float(zero_point))]


def _braces(items: Any) -> str:
    return "{" + ", ".join(items) + "}"


def _sentence(given: Input) -> str:
    shape = "x".join(map(str, given.shape))
    if given.layout == "flat":
        return f"{shape} {given.dtype}, row-major."
    color = f" {given.color}" if given.color else ""
    if given.dtype == "uint8":
        return f"{shape} planar{color} uint8, raw pixels 0..255; do not scale them."
    return f"{shape} planar{color} float32, (pixel / 255 - MEAN) / STD."


def _optional_float(value: float | None) -> float | None:
    return None if value is None else float(value)


class _Reader:
    """Fields of one JSON object, each checked; the name of the object goes into the errors."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ContractError(where, value, "an object")
        self._value: dict[str, Any] = value
        self._where = "" if where == "the file" else f"{where}."

    def get(self, key: str) -> Any:
        if key not in self._value:
            raise ContractError(f"{self._where}{key}", None, "given")
        return self._value[key]

    def _fail(self, key: str, allowed: str) -> ContractError:
        return ContractError(f"{self._where}{key}", self._value[key], allowed)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self._fail(key, "a string")
        return value

    def list(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self._fail(key, "a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.list(key)
        if not all(isinstance(item, str) for item in value):
            raise self._fail(key, "a list of strings")
        return tuple(value)

    def integer(self, key: str) -> int:
        value = self.get(key)
        if type(value) is not int or value < 0:
            raise self._fail(key, "a whole number, 0 or more")
        return value

    def optional_integer(self, key: str) -> int | None:
        return None if self.get(key) is None else self.integer(key)

    def number(self, key: str) -> float:
        value = self.get(key)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._fail(key, "a finite number")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        return None if self.get(key) is None else self.number(key)

    def shape(self, key: str) -> tuple[int, ...]:
        value = self.list(key)
        if not all(type(size) is int and size > 0 for size in value):
            raise self._fail(key, "a list of sizes, each 1 or more")
        return tuple(value)

    def one_of(self, key: str, allowed: tuple[Any, ...]) -> Any:
        value = self.get(key)
        if not any(type(value) is type(item) and value == item for item in allowed):
            raise self._fail(key, " or ".join(json.dumps(item) for item in allowed))
        return value
