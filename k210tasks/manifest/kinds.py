"""The kinds of value a key of models.yaml may have, each with the sentence that refuses another.

A :class:`Kind` is at once the validation of a pydantic field, its JSON Schema and the
text "what is allowed" that errors and the documentation show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from k210tasks.manifest.diagnostics import did_you_mean
from k210tasks.manifest.document import Flag, Float, Int

#: a part of the JSON Schema of models.yaml
JsonSchema = dict[str, Any]


class Refused(Exception):
    """A value that is not of its kind: why, and at which index of a list."""


class Kind:
    """One kind of value. ``check`` returns the value to keep or raises :class:`Refused`."""

    def __init__(self, allowed: str, check: Callable[[Any], Any], json: JsonSchema) -> None:
        self.allowed = allowed
        self.check = check
        self.json = json

    def run(self, value: Any) -> Any:
        try:
            return self.check(value)
        except Refused as refused:
            # The sentence goes through the context: braces in a template would be replaced.
            raise PydanticCustomError(
                "refused", "{message}", {"message": str(refused), "allowed": self.allowed}
            ) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.run)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return {**self.json, "x-allowed": self.allowed}


def shown(value: Any) -> str:
    """A value in a sentence."""
    if isinstance(value, str):
        return f'"{value if len(value) <= 60 else value[:59] + "…"}"'
    if isinstance(value, Flag):
        return f"{value.text} (a boolean in YAML 1.1)"
    if isinstance(value, (Int, Float)):
        return value.text
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    return str(value)


def wrong(value: Any, expected: str) -> Refused:
    """``VALUE is not EXPECTED``, with the reason where YAML 1.1 is to blame."""
    if value is None:
        return Refused("is empty")
    return Refused(f"{shown(value)} is not {expected}")


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (Int, Float)):
        return value.text
    if isinstance(value, Flag):
        raise Refused(f'{value.text} is a boolean in YAML 1.1; as text it is "{value.text}"')
    raise wrong(value, "text")


def text(what: str) -> Kind:
    """Any text that is not empty; an unquoted number is taken as it is written."""

    def check(value: Any) -> str:
        found = _as_text(value)
        if not found.strip():
            raise Refused("is empty")
        if any(not c.isprintable() for c in found):
            raise Refused("holds a line break or another character that cannot be shown")
        return found

    # YAML 1.2, which editors follow, takes an unquoted 0 for a number.
    return Kind(f"allowed: {what}", check, {"type": ["string", "number"], "minLength": 1})


def path(what: str) -> Kind:
    """A path with ``/`` between folders; normalised later, against the project's folder."""

    def check(value: Any) -> str:
        found: str = text(what).check(value)
        if "\\" in found:
            raise Refused(f"{shown(found)} has a backslash; write / between folders")
        if found.startswith("~"):
            raise Refused(f"{shown(found)}: ~ is not expanded; write the whole path")
        return found

    return Kind(
        f"allowed: {what}, relative to the folder of models.yaml",
        check,
        {"type": "string", "minLength": 1},
    )


def choice(*options: Any) -> Kind:
    """One of a few words or numbers."""
    words = {str(option): option for option in options}

    def check(value: Any) -> Any:
        if isinstance(value, (Int, Float)):
            found = value.text
        elif isinstance(value, str):
            found = value
        else:
            raise wrong(value, "one of these")
        if found not in words:
            raise Refused(f"{shown(value)} is not one of these{did_you_mean(found, words)}")
        return words[found]

    return Kind(f"allowed: {', '.join(words)}", check, {"enum": list(options)})


def whole(low: int, high: int, what: str = "a whole number") -> Kind:
    """A whole number within limits, both included."""
    allowed = f"{what} from {low} to {high}"

    def check(value: Any) -> int:
        if not isinstance(value, int):
            quoted = isinstance(value, str) and value.strip().lower().startswith("0x")
            raise wrong(value, "a whole number" + ("; leave the quotes away" if quoted else ""))
        if not low <= value <= high:
            limit = f"less than {low}" if value < low else f"more than {high}"
            raise Refused(f"{shown(value)} is {limit}")
        return int(value)

    return Kind(f"allowed: {allowed}", check, {"type": "integer", "minimum": low, "maximum": high})


def number(low: float = -math.inf, high: float = math.inf, *, above_zero: bool = False) -> Kind:
    """A finite number within limits, both included."""
    allowed = "a number"
    json: JsonSchema = {"type": "number"}
    if above_zero:
        allowed = "a number above 0"
        json["exclusiveMinimum"] = 0
    elif math.isfinite(low):
        allowed = f"a number from {low:g} to {high:g}"
        json |= {"minimum": low, "maximum": high}

    def check(value: Any) -> float:
        if not isinstance(value, (int, float)):
            raise wrong(value, "a number")
        found = float(value)
        if not math.isfinite(found) or not low <= found <= high or (above_zero and found <= 0):
            raise wrong(value, allowed)
        return found

    return Kind(f"allowed: {allowed}", check, json)


def per_channel(kind: Kind) -> Kind:
    """A number, or a list of one or three, one a channel; equal ones are as one."""

    def check(value: Any) -> float | tuple[float, ...]:
        if not isinstance(value, list):
            one: float = kind.check(value)
            return one
        if len(value) not in (1, 3):
            raise Refused(f"holds {len(value)} numbers; pictures have 1 channel or 3")
        found = tuple(float(_entry(kind, i, v)) for i, v in enumerate(value, 1))
        return found[0] if len(set(found)) == 1 else found

    return Kind(
        f"{kind.allowed}, or a list of one a channel",
        check,
        {
            "anyOf": [
                kind.json,
                *(
                    {"type": "array", "items": kind.json, "minItems": n, "maxItems": n}
                    for n in (1, 3)
                ),
            ]
        },
    )


def flag() -> Kind:
    """A YAML boolean."""

    def check(value: Any) -> bool:
        if not isinstance(value, Flag):
            raise wrong(value, "true or false")
        return value.value

    return Kind("allowed: true or false", check, {"type": "boolean"})


def texts(what: str) -> Kind:
    """A list of texts, each there once."""
    kind = text(what)

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            hint = f"; write [{value}]" if isinstance(value, str) else ""
            raise Refused(
                f"{shown(value)} is not a list{hint}" if value is not None else "is empty"
            )
        if not value:
            raise Refused("is empty")
        found = tuple(_entry(kind, i, v) for i, v in enumerate(value, 1))
        if len(set(found)) < len(found):
            twice = next(f for f in found if found.count(f) > 1)
            raise Refused(f"{shown(twice)} is there twice")
        return found

    return Kind(
        f"allowed: a list of {what}",
        check,
        {"type": "array", "items": kind.json, "minItems": 1, "uniqueItems": True},
    )


def _entry(kind: Kind, index: int, value: Any) -> Any:
    try:
        return kind.check(value)
    except Refused as refused:
        raise Refused(f"entry {index}: {refused}") from None


#: No input can be larger than the memory of the chip (docs/kpu-and-kmodel.md, section 1.1).
_SRAM_BYTES = 6 * 2**20


def shape() -> Kind:
    """The shape of a model's input: the batch, which is 1, then one to three dimensions."""

    def check(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list):
            raise wrong(value, "a shape")
        for i, dim in enumerate(value, 1):
            if not isinstance(dim, int):
                raise Refused(f"dimension {i}: {shown(dim)} is not a whole number")
            if dim < 1:
                raise Refused(f"dimension {i}: {shown(dim)} is not positive")
        dims = tuple(int(dim) for dim in value)
        text_ = f"[{', '.join(map(str, dims))}]"
        if not 2 <= len(dims) <= 4:
            raise Refused(f"{text_} has {len(dims)} dimension{'s'[: len(dims) != 1]}, not 2 to 4")
        if dims[0] != 1:
            raise Refused(f"{text_} has a batch of {dims[0]}; the K210 runs one at a time")
        if math.prod(dims) > _SRAM_BYTES:
            raise Refused(
                f"{text_} is {math.prod(dims)} values; the K210 has {_SRAM_BYTES} bytes of memory"
            )
        return dims

    return Kind(
        "allowed: [1, height, width, channels] or [1, values], positive whole numbers",
        check,
        {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "minItems": 2,
            "maxItems": 4,
        },
    )


def anchors() -> Kind:
    """Pairs of width and height, flat."""

    def check(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise wrong(value, "a list of numbers")
        positive = number(above_zero=True)
        found = tuple(_entry(positive, i, v) for i, v in enumerate(value, 1))
        if not found or len(found) % 2:
            raise Refused(f"holds {len(found)} numbers; anchors are pairs of width and height")
        return found

    return Kind(
        "allowed: a list of numbers above 0, width and height in turn",
        check,
        {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 2},
    )


def wholes(low: int, high: int) -> Kind:
    """A list of whole numbers."""
    return _listed(whole(low, high), "whole numbers")


def numbers(count: int) -> Kind:
    """A list of so many numbers above 0."""
    return _listed(number(above_zero=True), f"{count} numbers above 0", count)


def _listed(kind: Kind, what: str, count: int | None = None) -> Kind:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise wrong(value, "a list of numbers")
        if not value or len(value) != (count or len(value)):
            raise Refused(f"holds {len(value)} numbers")
        return tuple(_entry(kind, i, v) for i, v in enumerate(value, 1))

    size = {"minItems": count or 1, **({"maxItems": count} if count else {})}
    return Kind(f"allowed: a list of {what}", check, {"type": "array", "items": kind.json, **size})


def lists(*, above_zero: bool = False, pairs: bool = False) -> Kind:
    """A list of numbers, or several such lists; ``pairs``: of an even number each. The value is
    a list of lists always."""
    one = anchors() if pairs else _listed(number(above_zero=above_zero), "numbers above 0")

    def check(value: Any) -> tuple[tuple[float, ...], ...]:
        if isinstance(value, list) and value and all(isinstance(v, list) for v in value):
            return tuple(_entry(one, i, v) for i, v in enumerate(value, 1))
        return (one.check(value),)

    return Kind(
        f"{one.allowed}, or a list of such lists",
        check,
        {"anyOf": [one.json, {"type": "array", "items": one.json, "minItems": 1}]},
    )


def matching(what: str, check_text: Callable[[str], str | None], json: JsonSchema) -> Kind:
    """Text that ``check_text`` has nothing against; it returns why not."""

    def check(value: Any) -> str:
        found: str = text(what).check(value)
        why = check_text(found)
        if why:
            raise Refused(f"{shown(found)} {why}")
        return found

    return Kind(f"allowed: {what}", check, {"type": "string", **json})


class OrOff:
    """A map, or ``off``: a wrapper round the schema of the map. The value of off is False."""

    allowed = "allowed: off, or a map"

    def run(self, value: Any, inner: Callable[[Any], Any]) -> Any:
        if value == "off" or (isinstance(value, Flag) and not value.value):
            return False
        if isinstance(value, Flag):
            raise PydanticCustomError(
                "refused",
                "{message}",
                {
                    "message": f"{value.text} is the default",
                    "allowed": "leave the key out, or write {} to undo verify: off of defaults",
                },
            )
        if not isinstance(value, dict):
            message = "is empty" if value is None else f"{shown(value)} is neither off nor a map"
            raise PydanticCustomError(
                "refused", "{message}", {"message": message, "allowed": self.allowed}
            )
        return inner(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self.run, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return {"anyOf": [handler(schema["schema"]), {"enum": [False, "off"]}]}


def listed(names: Iterable[str]) -> str:
    """``a, b or c``."""
    words = list(names)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
