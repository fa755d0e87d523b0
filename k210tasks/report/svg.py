"""Elements of a drawing, every attribute and text escaped."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """``<tag …>children</tag>``. ``class_`` is ``class``, ``_`` in a name is ``-``; None: left out.

    Numbers are written with one decimal at most. A child that is not Markup is text.
    """
    parts = [Markup("<"), Markup(tag)]
    for name, value in attributes.items():
        if value is not None:
            key = name.rstrip("_").replace("_", "-")
            parts.append(Markup(' {}="{}"').format(Markup(key), _written(value)))
    parts.append(Markup(">"))
    parts += [escape(child) for child in children]
    parts.append(Markup("</{}>").format(Markup(tag)))
    return Markup("").join(parts)


def _written(value: Any) -> Any:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def drawing(width: float, height: float, *children: Any, label: str, **attributes: Any) -> Markup:
    """A whole drawing of ``width`` by ``height`` units; ``label`` is read aloud."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {_written(float(width))} {_written(float(height))}",
        role="img",
        aria_label=label,
        **attributes,
    )
