"""What vendors' messages mean, and what to do about them. A table, looked up by pattern."""

from __future__ import annotations

import re


def explain(printed: str, message: str = "") -> str:
    """The vendor's own last words, followed by what they mean where that is known."""
    return message.strip() or _last_words(printed)


def _last_words(printed: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]+", printed) if line.strip()]
    return lines[-1] if lines else ""
