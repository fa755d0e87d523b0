"""How often the hint is right, pinned loosely; ``python -m tests.steps.mistakes`` prints all."""

from __future__ import annotations

from tests.steps.mistakes import MISTAKES, run

SINGLE = ("pair", "odd pair", "colours", "grey training", "labels rotated", "two labels swapped")
HOPELESS = ("right", "noise", "chance", "grey pictures")


def test_hints_are_seldom_wrong_and_seldom_missing() -> None:
    found = run(rounds=14)
    count = {v: sum(n for k, n in found.items() if k[2] == v) for v in {k[2] for k in found}}
    hints = sum(n for k, n in found.items() if k[1] != "none")
    assert {k[0] for k in found} == set(MISTAKES)
    assert hints > 40
    # At most one in a hundred; of so few, one.
    assert count.get("wrong", 0) <= 1
    good = sum(count.get(v, 0) for v in ("right", "other", "as good", "part"))
    assert good / (good + count.get("missed", 0) + count.get("wrong", 0)) >= 0.9
    # Where one thing is wrong, that very thing is named.
    single = [k for k in found if k[0] in SINGLE and k[1] != "none"]
    right = sum(found[k] for k in single if k[2] == "right")
    assert right >= 0.8 * sum(found[k] for k in single)
    # And where nothing can be mended, nothing is said.
    assert all(k[1] == "none" for k in found if k[0] in HOPELESS)
