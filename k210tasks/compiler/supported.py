"""SUPPORTED_OPS.md, from the constraint table: ``python -m k210tasks.compiler.supported``."""

from __future__ import annotations

from k210tasks.compiler.constraints import EVERY, RULES, Constraint, fitting_shapes

_HEAD = """\
# Supported TensorFlow Lite ops

Generated from `k210tasks/compiler/constraints.py` by
`python -m k210tasks.compiler.supported > SUPPORTED_OPS.md`; do not edit.
`k210 check FILE.tflite` says the same of one model, op by op.

"""


def _sentence(constraint: Constraint) -> str:
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
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    print(text(), end="")
