"""SUPPORTED_OPS.md, from the constraint tables: ``python -m k210tasks.compiler.supported``."""

from __future__ import annotations

from typing import Any

from k210tasks.compiler.constraints import EVERY, RULES, fitting_shapes
from k210tasks.compiler.reading.onnx import onnx_rules as onnx
from k210tasks.compiler.reading.onnx.file import NEWEST, OLDEST

_HEAD = """\
# Supported ops

Generated from `k210tasks/compiler/constraints.py` and
`k210tasks/compiler/reading/onnx/onnx_rules.py` by
`python -m k210tasks.compiler.supported > SUPPORTED_OPS.md`; do not edit.
`k210 check FILE.tflite` or `k210 check FILE.onnx` says the same of one model, op by op.

# TensorFlow Lite

"""

_ONNX = f"""
# ONNX

Opsets {OLDEST} to {NEWEST}. One input of floats, sizes that are fixed (or given by `inputs:`), a
batch of 1, at most four dimensions but for what is only moved. Functions of exporters are put in
place, arithmetic on shapes is done while reading. Of the nodes that ONNX tests its own ops with,
those with one float output, ops of this table and at most four dimensions: 363 of 485 are computed
as ONNX says, 122 are refused, none is computed otherwise.

| op | inputs | kmodel 3 | kmodel 4 | what is asked of it |
|---|---|---|---|---|
"""


def _sentence(constraint: Any) -> str:
    return " ".join((constraint.__doc__ or "").split())


def text() -> str:
    """The whole file."""
    lines = [_HEAD, "## For every op", ""]
    lines += [f"* {_sentence(c)}" for c in (*EVERY, fitting_shapes)]
    lines += ["", "## Op by op", ""]
    lines += [
        "| op | versions | kmodel 3 | kmodel 4 | what is asked of it |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(RULES):
        rule = RULES[name]
        asked = " ".join(_sentence(c) for c in rule.constraints) or "–"
        lines.append(f"| `{name}` | 1–{rule.version} | {rule.v3} | {rule.v4} | {asked} |")
    tflite = "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
    rows = [*sorted(onnx.RULES.items()), *sorted(onnx.MICROSOFT.items())]
    return tflite + _ONNX + "".join(f"{_onnx_row(name, rule)}\n" for name, rule in rows)


def _onnx_row(name: str, rule: onnx.Rule) -> str:
    least, most = rule.inputs
    count = str(least) if least == most else f"{least}–{most}"
    asked = " ".join(_sentence(c) for c in rule.constraints) or "–"
    return f"| `{name}` | {count} | {rule.v3} | {rule.v4} | {asked} |"


if __name__ == "__main__":
    print(text(), end="")
