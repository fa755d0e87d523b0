"""JSON as declared types: what a file holds is a dataclass, and its annotations are the form.

A form is made of None, bool, int, float, str, Literal, tuples and lists, dictionaries by text,
dataclasses and unions of these. Dataclasses of a union are told apart by their class variable
``kind``, which is written first; where there is none, the first one that fits is taken. Keys that
a form does not know are left alone, so that a later version may add some.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")
_Reader = Callable[[Any], Any]


class Misfit(ValueError):
    """A value that is not what its form says. ``where``: "outputs[1].scale", "" for the whole."""

    def __init__(self, found: object, allowed: str, where: str = "") -> None:
        self.found, self.allowed, self.where = found, allowed, where
        super().__init__(f"{where or 'the file'} is {found!r}; it must be {allowed}")

    def inside(self, key: str) -> Misfit:
        """The same, seen from what holds it."""
        dot = "." if self.where and not self.where.startswith("[") else ""
        return Misfit(self.found, self.allowed, f"{key}{dot}{self.where}")


class Rule(NamedTuple):
    """What has to hold of an ``Annotated`` value besides its type, and how that is said."""

    allowed: str
    holds: Callable[[Any], bool]


def spelled(key: str) -> Any:
    """A field whose key in JSON is no name in Python."""
    return field(metadata={"key": key})


def sparse(key: str = "", default: object = None) -> Any:
    """A field that is left out at its default."""
    return field(default=default, metadata={"key": key, "sparse": True})


def plain(value: Any, *, changed: bool = False, compared: bool = False) -> Any:
    """JSON values; :func:`read` is the inverse.

    ``changed``: fields of a dataclass that are at their default are left out. ``compared``: those
    that play no part in comparing it are.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {k: plain(v, changed=changed, compared=compared) for k, v in value.items()}
    if kind is list or kind is tuple:
        return [plain(item, changed=changed, compared=compared) for item in value]
    form: Any = kind
    tag, values = _written(form)
    whole = values is not None and not changed and not compared
    found = values(value) if whole else _chosen(value, changed, compared)
    for key, item in found.items():
        if type(item) not in _PLAIN:
            found[key] = plain(item, changed=changed, compared=compared)
    return {"kind": tag, **found} if tag else found


@cache
def _written(kind: Any) -> tuple[str, Any]:
    """The tag of a dataclass, and what gives all its fields; None where they are not the keys."""
    names = [f.name for f in fields(kind)]
    if any(f.metadata for f in fields(kind)):
        return _tag(kind), None
    if "__slots__" not in vars(kind):
        return _tag(kind), lambda value: value.__dict__.copy()
    return _tag(kind), lambda value: {name: getattr(value, name) for name in names}


def _chosen(value: Any, changed: bool, compared: bool) -> dict[str, Any]:
    found = {}
    for f in fields(value):
        item = getattr(value, f.name)
        at_default = (changed or "sparse" in f.metadata) and item == f.default
        if not at_default and not (compared and not f.compare):
            found[_key(f)] = item
    return found


def _key(f: Field[Any]) -> str:
    return f.metadata.get("key") or f.name


def read(kind: type[T], value: object) -> T:
    """A value of the form ``kind`` out of JSON values. Raises :class:`Misfit`."""
    form: Any = kind
    made: T = _reader(form, False)(value)
    return made


def loads(kind: type[T], text: str | bytes) -> T:
    """The same out of JSON. Raises :class:`Misfit`, or ValueError for what is no JSON."""
    try:
        return read(kind, json.loads(text))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def known(kind: type[T], text: str | bytes | None) -> T | None:
    """What can be known of a file that may be missing, damaged or of another version.

    A value that does not fit is as good as none: it is None where it may be, at its default
    where it has one, left out of a list; otherwise what it is part of is not known.
    """
    try:
        return None if text is None else known_of(kind, json.loads(text))
    except (ValueError, RecursionError):
        return None


def known_of(kind: type[T], value: object) -> T | None:
    """The same of JSON values."""
    form: Any = kind
    try:
        made: T = _reader(form, True)(value)
        return made
    except Misfit:
        return None


def pretty(value: object) -> str:
    """JSON for files that people look at too: each key on a line, and each element of a list of
    objects on its own, however many there are."""
    lines = []
    for key, item in plain(value).items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            rows = ",\n  ".join(_compact(row) for row in item)
            text = f"[\n  {rows}\n ]"
        else:
            text = _compact(item)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# -- readers, one for each form, made once -----------------------------------------------------

_PLAIN = frozenset((str, int, float, bool, NoneType))


@cache
def _reader(kind: Any, lenient: bool) -> _Reader:
    """``kind``: an annotation."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if is_dataclass(kind):
        return _object(kind, lenient)
    if origin is Annotated:
        return _ruled(_reader(args[0], lenient), args[1])
    if origin is Literal:
        return _literal(args)
    if origin in (Union, UnionType):
        return _union(args, lenient)
    if origin is tuple and args[-1] is not Ellipsis:
        return _exactly(tuple(_reader(arg, lenient) for arg in args))
    if origin in (tuple, list):
        return _list(_reader(args[0], lenient), origin, lenient)
    if origin is dict:
        return _dictionary(_reader(args[1], lenient), lenient)
    return _SCALARS[kind]


def _scalar(allowed: str, *kinds: type) -> _Reader:
    def read_scalar(value: Any) -> Any:
        if type(value) not in kinds:
            raise Misfit(value, allowed)
        return value

    return read_scalar


def _number(value: Any) -> Any:
    """As it was written, whole or not."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Misfit(value, "a finite number")
    return value


_SCALARS: dict[Any, _Reader] = {
    str: _scalar("a string", str),
    int: _scalar("a whole number", int),
    bool: _scalar("true or false", bool),
    float: _number,
    NoneType: _scalar("null", NoneType),
}


def _ruled(base: _Reader, rule: Rule) -> _Reader:
    def read_ruled(value: Any) -> Any:
        try:
            made = base(value)
        except Misfit as misfit:
            allowed = misfit.allowed if misfit.allowed == "a list" else rule.allowed
            raise Misfit(value, allowed) from None
        if not rule.holds(made):
            raise Misfit(value, rule.allowed)
        return made

    return read_ruled


def _literal(allowed: tuple[Any, ...]) -> _Reader:
    known_values = {(type(item), item) for item in allowed}

    def read_literal(value: Any) -> Any:
        if type(value) not in _PLAIN or (type(value), value) not in known_values:
            raise Misfit(value, " or ".join(json.dumps(item) for item in allowed))
        return value

    return read_literal


def _union(args: tuple[Any, ...], lenient: bool) -> _Reader:
    # Lists first, whatever the order: unions compare equal in any, so that one reader serves all,
    # and of what is neither list nor number the number is asked for.
    others = sorted(
        (arg for arg in args if arg is not NoneType),
        key=lambda arg: not _is_list(arg),
    )
    optional = len(others) < len(args)
    readers = [_reader(arg, lenient) for arg in others]
    tags = [_tag(arg) for arg in others]
    tagged = dict(zip(tags, readers, strict=True)) if all(tags) else {}

    def read_one(value: Any) -> Any:
        if tagged:
            tag = value.get("kind") if isinstance(value, dict) else None
            if not isinstance(tag, str) or tag not in tagged:
                raise Misfit(tag, f"one of {', '.join(tagged)}", "kind")
            return tagged[tag](value)
        for reader in readers[:-1]:
            with suppress(Misfit):
                return reader(value)
        return readers[-1](value)

    def read_optional(value: Any) -> Any:
        if value is None:
            return None
        try:
            return read_one(value)
        except Misfit:
            if lenient:
                return None
            raise

    return read_optional if optional else read_one


def _is_list(kind: Any) -> bool:
    return get_origin(kind) in (tuple, list)


def _tag(kind: Any) -> str:
    """The class variable ``kind`` of a dataclass; of one that has a field of that name, none."""
    own = is_dataclass(kind) and any(f.name == "kind" for f in fields(kind))
    return "" if own else str(getattr(kind, "kind", ""))


def _list(each: _Reader, kind: type, lenient: bool) -> _Reader:
    def read_list(value: Any) -> Any:
        if type(value) not in (list, tuple):
            raise Misfit(value, "a list")
        made = []
        for i, item in enumerate(value):
            try:
                made.append(each(item))
            except Misfit as misfit:
                if not lenient:
                    raise misfit.inside(f"[{i}]") from None
        return kind(made)

    return read_list


def _exactly(readers: tuple[_Reader, ...]) -> _Reader:
    def read_exactly(value: Any) -> tuple[Any, ...]:
        if type(value) not in (list, tuple) or len(value) != len(readers):
            raise Misfit(value, f"a list of {len(readers)}")
        return tuple(reader(item) for reader, item in zip(readers, value, strict=True))

    return read_exactly


def _dictionary(each: _Reader, lenient: bool) -> _Reader:
    def read_dictionary(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(value, "an object")
        made = {}
        for key, item in value.items():
            try:
                made[key] = each(item)
            except Misfit as misfit:
                if not lenient:
                    raise misfit.inside(key) from None
        return made

    return read_dictionary


def _object(kind: Any, lenient: bool) -> _Reader:
    hints = get_type_hints(kind, include_extras=True)
    table = {_key(f): (f.name, _reader(hints[f.name], lenient)) for f in fields(kind)}
    needed = {
        f.name: _key(f)
        for f in fields(kind)
        if f.default is MISSING and f.default_factory is MISSING
    }

    def read_object(value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(value, "an object")
        given = {}
        for key, item in value.items():
            if key in table:
                name, reader = table[key]
                try:
                    given[name] = reader(item)
                except Misfit as misfit:
                    if not lenient or name in needed:
                        raise misfit.inside(key) from None
        for name, key in needed.items():
            if name not in given:
                raise Misfit(None, "given", key)
        return kind(**given)

    return read_object
