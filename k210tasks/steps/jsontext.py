"""JSON for files that people look at too: one line per record, however many there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def pretty(value: Mapping[str, Any]) -> str:
    """An object with each key on a line, and each element of a list of objects on its own."""
    lines = []
    for key, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            rows = ",\n  ".join(_compact(row) for row in item)
            text = f"[\n  {rows}\n ]"
        else:
            text = _compact(item)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
