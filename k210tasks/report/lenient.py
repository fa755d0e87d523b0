"""Reading files that may be missing, damaged or of another version: what is odd is not known.

A report is most needed when something went wrong, so nothing here raises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: an object out of a file, whatever its values are
Json = Mapping[str, Any]


def read_bytes(path: Path) -> bytes | None:
    """The content of a file; None where there is none to be had."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def read_json(path: Path) -> Json:
    """A JSON object; empty for anything else."""
    return parse_json(read_bytes(path))


def parse_json(data: bytes | None) -> Json:
    """A JSON object out of bytes; empty for anything else."""
    if data is None:
        return {}
    try:
        return mapping(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def mapping(value: Any) -> Json:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Json]:
    """The objects of a list; nothing for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def whole(value: Any) -> int | None:
    """A whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: Any) -> str:
    """A string, or an empty one."""
    return value if isinstance(value, str) else ""


def texts(value: Any) -> tuple[str, ...]:
    """The strings of a list."""
    return tuple(item for item in listed(value) if isinstance(item, str))


def at(values: Any, index: int) -> Any:
    """One element of a list, or None."""
    return values[index] if isinstance(values, list) and 0 <= index < len(values) else None


def shape(sizes: Iterable[Any] | None) -> str:
    """``1x3x240x320``; "?" where it is not known."""
    return "?" if sizes is None else "x".join(str(size) for size in sizes) or "1"


def lowest(values: Iterable[float | None]) -> float | None:
    """The least of the numbers; None where one is none, or there are none."""
    found = list(values)
    if not found or any(value is None for value in found):
        return None
    return min(value for value in found if value is not None)


def nested(value: Json, *keys: str) -> Any:
    """``value[k1][k2]…``, or None."""
    found: Any = value
    for key in keys:
        found = mapping(found).get(key)
    return found
