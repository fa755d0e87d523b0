"""Forms are read as their annotations say, and JSON with a line a record is still JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest

from k210tasks.jsondata import (
    Misfit,
    Rule,
    known,
    known_of,
    loads,
    plain,
    pretty,
    read,
    sparse,
    spelled,
)


@dataclass(frozen=True, slots=True)
class Cat:
    kind: ClassVar[str] = "cat"
    lives: int


@dataclass(frozen=True, slots=True)
class Dog:
    kind: ClassVar[str] = "dog"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Circle:
    r: Annotated[float, Rule("above zero", lambda r: r > 0)]
    at: Point | None = sparse()


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoo:
    format: Literal[3] = 3
    title: str = spelled("class")
    pets: tuple[Cat | Dog, ...] = ()
    shapes: tuple[Point | Circle, ...] = ()
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    open: bool | Literal["off"] = True
    steps: float | tuple[float, ...] | None = None
    names: list[str] = field(default_factory=list)
    line: int = field(default=0, compare=False)


ZOO = Zoo(
    title="t",
    pets=(Dog(), Cat(9)),
    shapes=(Circle(2, Point(0.5, 1)), Point(1, 2), Circle(1.5)),
    sizes={"a": (1, 2)},
    open="off",
    steps=(0.5, 1),
    names=["n"],
    line=7,
)
AS_JSON: dict[str, Any] = {
    "format": 3,
    "class": "t",
    "pets": [{"kind": "dog", "name": None}, {"kind": "cat", "lives": 9}],
    "shapes": [{"r": 2, "at": {"x": 0.5, "y": 1}}, {"x": 1, "y": 2}, {"r": 1.5}],
    "sizes": {"a": [1, 2]},
    "open": "off",
    "steps": [0.5, 1],
    "names": ["n"],
    "line": 7,
}


def test_there_and_back() -> None:
    assert plain(ZOO) == AS_JSON
    assert list(plain(ZOO)) == list(AS_JSON)
    assert list(plain(ZOO)["pets"][0]) == ["kind", "name"]
    for again in (read(Zoo, AS_JSON), loads(Zoo, json.dumps(AS_JSON)), known_of(Zoo, AS_JSON)):
        assert again == ZOO
        assert again is not None
        assert (again.line, type(again.shapes[1].x)) == (7, int)  # type: ignore[union-attr]


def test_what_is_left_out() -> None:
    assert plain(Zoo(title="t"), changed=True) == {"class": "t", "sizes": {}, "names": []}
    assert "line" not in plain(ZOO, compared=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 4}, "format is 4; it must be 3"),
        ({"class": None}, "class is None; it must be a string"),
        ({"pets": [{"kind": "cow"}]}, "pets[0].kind is 'cow'; it must be one of cat, dog"),
        ({"pets": [{"kind": "cat"}]}, "pets[0].lives is None; it must be given"),
        ({"pets": [{"kind": "cat", "lives": True}]}, "pets[0].lives is True; it must be a whole "
         "number"),
        ({"shapes": [{"r": 0}]}, "shapes[0].r is 0; it must be above zero"),
        ({"shapes": [{"r": "0"}]}, "shapes[0].r is '0'; it must be above zero"),
        ({"shapes": {}}, "shapes is {}; it must be a list"),
        ({"sizes": {"a": [1]}}, "sizes.a is [1]; it must be a list of 2"),
        ({"steps": float("inf")}, "steps is inf; it must be a finite number"),
        ({"open": 1}, "open is 1; it must be \"off\""),
        ({"names": "abc"}, "names is 'abc'; it must be a list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Misfit) as error:
        read(Zoo, AS_JSON | change)
    assert str(error.value) == message


def test_no_object_and_no_json() -> None:
    with pytest.raises(Misfit, match=r"^the file is \[\]; it must be an object$"):
        loads(Zoo, "[]")
    for odd in ("{", "[" * 100_000, b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            loads(Zoo, odd)
        assert known(Zoo, odd) is None
    assert known(Zoo, None) is None


def test_what_is_odd_is_not_known_and_the_rest_is() -> None:
    odd = {
        "format": 2,
        "pets": [{"kind": "cow"}, {"kind": "cat", "lives": "9"}, {"kind": "cat", "lives": 1}, 3],
        "shapes": [{"r": 1, "at": {"x": 1}}],
        "sizes": {"a": [1, 2], "b": None},
        "open": None,
        "steps": "x",
        "later": 1,
    }
    found = known_of(Zoo, odd | {"class": "t"})
    assert found == Zoo(
        title="t", pets=(Cat(1),), shapes=(Circle(1),), sizes={"a": (1, 2)}, steps=None
    )
    assert known_of(Zoo, odd) is None  # it is nothing without its title


def test_a_line_a_record() -> None:
    value = {"a": 1.5, "none": None, "words": ["ä", "b"], "rows": [{"x": 1}, {"x": [2]}], "no": []}
    text = pretty(value)
    assert json.loads(text) == value
    assert text == (
        '{\n "a": 1.5,\n "none": null,\n "words": ["ä", "b"],\n "rows": [\n  {"x": 1},\n'
        '  {"x": [2]}\n ],\n "no": []\n}\n'
    )


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pretty({"a": float("nan")})
