"""Inputs and outputs of a model: what it offers, what was asked for, and what is inferred.

Knows nothing of TensorFlow beyond the shapes handed in, and raises :class:`Refused` with
the model's own candidates whenever a name or a shape is missing or wrong.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from serve import Refused


class Port(NamedTuple):
    """An input or output: ``shape`` None has an unknown rank, None inside an unknown size."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: Any = None

    @classmethod
    def of(cls, name: str, shape: Any, dtype: Any = None) -> Port:
        """From a tuple or a TensorShape."""
        if shape is not None and getattr(shape, "rank", len(shape) if shape else 0) is None:
            return cls(name, None, dtype)
        dims = None if shape is None else tuple(None if n is None else int(n) for n in shape)
        return cls(name, dims, dtype)

    def __str__(self) -> str:
        kind = " " + self.dtype.name if self.dtype is not None else ""
        return self.name + " " + show(self.shape) + kind


def show(shape: Any) -> str:
    """``[1, ?, ?, 3]``, or ``[unknown rank]``."""
    if shape is None:
        return "[unknown rank]"
    return "[" + ", ".join("?" if n is None or n < 0 else str(n) for n in shape) + "]"


def listed(ports: list[Port]) -> str:
    """One candidate a line, as many as fit a screen."""
    lines = ["\n  " + str(p) for p in ports[:20]]
    if len(ports) > 20:
        lines.append("\n  … and %d more" % (len(ports) - 20))
    return "".join(lines) or " none"


def unknown(what: str, name: str, known: list[str], candidates: list[Port]) -> Refused:
    """The refusal of a name that the graph does not have."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = " (did you mean %s?)" % close[0] if close else ""
    return Refused(
        "the graph has no %s %s%s; its candidates are:%s" % (what, name, hint, listed(candidates))
    )


def fixed_shapes(ports: list[Port], inputs: dict[str, list[int]] | None) -> dict[str, list[int]]:
    """The shape of each of ``ports``, with a batch of 1, from what was given and what is known."""
    given = {plain(name): shape for name, shape in (inputs or {}).items()}
    names = [p.name for p in ports]
    for name in given:
        if name not in names:
            raise unknown("input", name, names, ports)
    return {p.name: fixed_shape(p, given.get(p.name)) for p in ports}


def fixed_shape(port: Port, given: list[int] | None) -> list[int]:
    """One input's shape: dimensions known to the graph must not be contradicted."""
    own = port.shape
    if own is None:
        if not given:
            raise Refused(
                "the input %s has no known shape; give it, e.g. inputs: {%s: [1, 224, 224, 3]}"
                % (port.name, port.name)
            )
        own = tuple(None for _ in given)
    own = tuple(None if n is None or n < 0 else n for n in own)
    if given is not None and len(given) != len(own):
        raise Refused(
            "the input %s has %d dimensions %s, but inputs: gives %d: %s"
            % (port.name, len(own), show(own), len(given), show(given))
        )
    wanted = list(own) if given is None else [n if n > 0 else None for n in given]
    shape: list[int] = []
    for axis, (mine, theirs) in enumerate(zip(own, wanted)):
        size = mine if theirs is None else theirs
        if axis == 0 and len(own) > 1:
            if size not in (None, 1) or mine not in (None, 1):
                raise Refused(
                    "the input %s has a batch of %s; a K210 runs one sample at a time, "
                    "export the model with a batch of 1" % (port.name, mine or size)
                )
            size = 1
        elif mine is not None and size != mine:
            raise Refused(
                "the input %s is %s in the graph, but inputs: gives %s"
                % (port.name, show(own), show(given))
            )
        if size is None:
            example = ", ".join("1" if i == 0 else str(n or "N") for i, n in enumerate(own))
            raise Refused(
                "the input %s has the open shape %s; give every size, e.g. inputs: {%s: [%s]}"
                % (port.name, show(own), port.name, example)
            )
        shape.append(size)
    return shape


def pick_outputs(ports: list[Port], outputs: list[str] | None) -> list[str]:
    """The outputs asked for, in that order; all of the model's own where none is named."""
    names = [p.name for p in ports]
    if not outputs:
        return names
    for name in outputs:
        if plain(name) not in names:
            raise unknown("output", plain(name), names, ports)
    return [plain(name) for name in outputs]


def plain(name: str) -> str:
    """A node's name without the output number of a tensor's name, where that is 0."""
    return name[:-2] if name.endswith(":0") else name
