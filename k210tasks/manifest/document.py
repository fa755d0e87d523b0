"""YAML text -> plain values, every one with its place in the text.

Built from the events of PyYAML's parser (the C one where there is one) rather than from
its composer: that one recurses in C and dies on deeply nested text, and it forgets where
an alias stood. Only what models.yaml needs is accepted: maps, lists and plain values. Keys
are text. What YAML 1.1 would read otherwise than most people expect is refused with the
reason, or kept with its text so that the schema can say why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from k210tasks.manifest.diagnostics import Mark, Problem, lines_of
from k210tasks.manifest.syntax import explain

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: Deeper than any models.yaml; see the module for why there is a limit.
_DEPTH = 16

_BOOLEAN = {
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+$")
_INT = re.compile(r"[-+]?(0|[1-9](_?[0-9])*|0x[0-9a-fA-F](_?[0-9a-fA-F])*|0b[01](_?[01])*)$")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$")
# The longest number taken as one; Python itself refuses very long ones with an exception.
_NUMBER_LENGTH = 40
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


class Int(int):
    """A whole number with the text it was written as."""

    text: str


class Float(float):
    """A number with the text it was written as."""

    text: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A YAML 1.1 boolean with the text it was written as: ``off`` is one."""

    value: bool
    text: str


class _Bad:
    """Stands for a value that was refused already."""


BAD = _Bad()


@dataclass(slots=True)
class Node:
    """A place in the text and what stands there."""

    start: tuple[int, int]  # line and column, from 0
    end: tuple[int, int]
    value: Any = None  # scalars only
    items: dict[str, tuple[Node, Node]] | None = None  # maps: key -> (key node, value node)
    entries: list[Node] | None = None  # lists
    flow: bool = False
    damaged: bool = False  # something in it was refused already

    def data(self) -> Any:
        """The plain value: dict, list, str, Int, Float, Flag, None or BAD."""
        if self.items is not None:
            return {key: node.data() for key, (_, node) in self.items.items()}
        if self.entries is not None:
            return [node.data() for node in self.entries]
        return self.value

    def child(self, step: Any) -> Node | None:
        """The value of a key, or the entry of an index; None where there is none."""
        if self.items is not None:
            return self.items[step][1] if step in self.items else None
        if self.entries is not None and isinstance(step, int) and step < len(self.entries):
            return self.entries[step]
        return None

    def mark(self, label: str = "") -> Mark:
        """The place, cut to its first line."""
        line, column = self.start
        end = self.end[1] if self.end[0] == line else 10**6
        if (self.items is not None or self.entries is not None) and not self.flow:
            end = column + 1
        return Mark(line + 1, column + 1, end + 1, label)


@dataclass(slots=True)
class _Open:
    """A map or list that is being read."""

    node: Node
    key: Node | None = None
    skip: bool = False  # the value that follows belongs to a refused key


@dataclass(slots=True)
class Document:
    """A parsed models.yaml: ``root`` is None where there is nothing to go on with."""

    text: str
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)

    def find(self, path: tuple[Any, ...]) -> tuple[Node | None, Node | None]:
        """Key and value node of the deepest part of ``path`` that is there."""
        key, node = None, self.root
        for step in path:
            child = node.child(step) if node is not None else None
            if node is None or child is None:
                break
            key, node = (node.items[step][0] if node.items is not None else None), child
        return key, node

    def mark(self, path: tuple[Any, ...], *, at_key: bool = False, label: str = "") -> Mark:
        """The place of a value: of its key where asked, or where the value is a block."""
        key, node = self.find(path)
        if node is None:
            return Mark(1, 1, 2, label)
        block = (node.items is not None or node.entries is not None) and not node.flow
        empty = node.start == node.end
        if key is not None and (at_key or block or empty):
            return key.mark(label)
        return node.mark(label)

    def damaged(self, path: tuple[Any, ...]) -> bool:
        """Whether something at ``path``, or on the way to it, was refused already."""
        node = self.find(path)[1]
        return node is not None and node.damaged


def parse(text: str) -> Document:
    """Read one YAML document. Never raises for bad text: see ``problems``."""
    document = Document(text)
    bad = _UNPRINTABLE.search(text)
    if bad:
        before = lines_of(text[: bad.start()])
        line, column = len(before), len(before[-1]) + 1
        document.problems.append(
            Problem(
                f"the character U+{ord(bad[0]):04X} may not stand in a YAML file",
                (Mark(line, column, column + 1),),
                "remove it",
            )
        )
        return document
    try:
        _Reader(document).read(yaml.parse(text, _Loader))
    except yaml.YAMLError as error:
        document.root = None
        document.problems.append(explain(error, text))
    return document


class _Reader:
    """Events -> nodes, with a stack of its own."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.stack: list[_Open] = []

    def refuse(self, node: Node, message: str, allowed: str, other: Node | None = None) -> None:
        marks: tuple[Mark, ...] = (node.mark(),)
        if other is not None:
            marks = (node.mark("again here"), other.mark("first here"))
        self.document.problems.append(Problem(message, marks, allowed))
        node.damaged = True

    def read(self, events: Any) -> None:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    at = Node(_place(event.start_mark), _place(event.end_mark))
                    self.refuse(
                        at, "a second document begins here", "models.yaml is one document: no ---"
                    )
                    return
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                if not self.begin(event):
                    return
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                node = self.stack.pop().node
                node.end = _place(event.end_mark)
                self.put(node)
            elif isinstance(event, yaml.ScalarEvent):
                self.put(self.scalar(event))
            elif isinstance(event, yaml.AliasEvent):
                node = Node(_place(event.start_mark), _place(event.end_mark), BAD)
                self.refuse(node, f"the alias *{event.anchor} is not supported", _NO_ANCHORS)
                self.put(node)

    def begin(self, event: Any) -> bool:
        node = Node(_place(event.start_mark), _place(event.end_mark), flow=bool(event.flow_style))
        if isinstance(event, yaml.MappingStartEvent):
            node.items = {}
        else:
            node.entries = []
        if len(self.stack) >= _DEPTH:
            self.refuse(node, f"nested more than {_DEPTH} deep", "maps and lists need far less")
            self.document.root = None
            return False
        self.odd(event, node)
        self.stack.append(_Open(node))
        return True

    def odd(self, event: Any, node: Node) -> None:
        """Refuse anchors and tags."""
        if event.anchor is not None:
            self.refuse(node, f"the anchor &{event.anchor} is not supported", _NO_ANCHORS)
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.refuse(
                node, f"the tag {tag} is not supported", "write the plain value, without a tag"
            )

    def scalar(self, event: Any) -> Node:
        node = Node(_place(event.start_mark), _place(event.end_mark), event.value)
        self.odd(event, node)
        if node.damaged:
            node.value = BAD
        elif not event.style and event.tag is None:
            node.value = plain(event.value)
            if node.value is BAD:
                number = event.value.lstrip("+-").replace("_", "").lstrip("0") or "0"
                self.refuse(
                    node,
                    f"{event.value} has a leading zero, which YAML 1.1 reads as octal",
                    f'write {number} for the number, or "{event.value}" in quotes for the text',
                )
        return node

    def put(self, node: Node) -> None:
        """Hand a finished node to the map or list it stands in."""
        if not self.stack:
            self.document.root = node
            return
        parent = self.stack[-1]
        if node.damaged:
            parent.node.damaged = True
        if parent.node.entries is not None:
            parent.node.entries.append(node)
        elif parent.key is None and not parent.skip:
            self.key(parent, node)
        else:
            if not parent.skip:
                assert parent.key is not None
                assert parent.node.items is not None
                parent.node.items[parent.key.value] = (parent.key, node)
            parent.key, parent.skip = None, False

    def key(self, parent: _Open, node: Node) -> None:
        assert parent.node.items is not None
        value = node.value
        if node.items is not None or node.entries is not None:
            self.refuse(node, "a map or list cannot be a key", "keys are plain text")
        elif isinstance(value, Flag):
            self.refuse(
                node,
                f"the key {value.text} is a boolean in YAML 1.1",
                f'put it in quotes if the text is meant: "{value.text}"',
            )
        elif value is None:
            self.refuse(node, "a key is empty", "keys are plain text")
        elif value == "<<":
            self.refuse(node, "the merge key << is not supported", _NO_ANCHORS)
        elif isinstance(value, (Int, Float)):
            node.value = value.text
        if not node.damaged and node.value in parent.node.items:
            first = parent.node.items[node.value][0]
            self.refuse(
                node, f'the key "{_short(node.value)}" is there twice', "keep one of them", first
            )
        if node.damaged:
            parent.node.damaged = parent.skip = True
        else:
            parent.key = node


_NO_ANCHORS = "what models share goes under defaults:"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


def _place(mark: Any) -> tuple[int, int]:
    return (mark.line, mark.column)


def plain(text: str) -> Any:
    """The value of an unquoted scalar; BAD for a number with a leading zero."""
    if text in _BOOLEAN:
        return Flag(_BOOLEAN[text], text)
    if text in _NULL:
        return None
    if len(text) > _NUMBER_LENGTH:
        return text
    if _LEADING_ZERO.match(text):
        return BAD
    if _INT.match(text):
        whole = Int(int(text.replace("_", ""), 0))
        whole.text = text
        return whole
    if _FLOAT.match(text):
        number = Float(text)
        number.text = text
        return number
    return text
