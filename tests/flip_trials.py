"""Flips bits in what k210tasks keeps under ``.k210``: the next build gives the same bytes.

    python tests/flip_trials.py [--every 1] [--seed 0] [--removed]

A small project is built; then one bit of every byte of every file is changed, one at a time, and
doit runs, with all outputs in place or, ``--removed``, without any. Each run must end well, leave
the outputs as they were, and show no traceback. ``--every`` takes one byte in so many.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.graph.conftest import Toy

#: what is no result: when something ran, and how it was told
LOGS = (".log", "toy.json")


def results(toy: Toy) -> dict[str, bytes]:
    """Every file that the steps write."""
    return {
        path: (toy.root / path).read_bytes()
        for path in toy.files()
        if path.startswith(("workspace/", "build/")) and not path.endswith(LOGS)
        if not path.startswith("build/report/")
    }


def kept(toy: Toy) -> list[Path]:
    """Every file of ours that a later run may read."""
    hidden = toy.root / ".k210"
    return sorted(p for p in hidden.rglob("*") if p.is_file() and "locks" not in p.parts)


def flip(path: Path, at: int, bit: int) -> bytes:
    """Change one bit in place; returns what was there."""
    before = path.read_bytes()
    changed = bytearray(before)
    changed[at] ^= 1 << bit
    path.chmod(0o644)
    path.write_bytes(changed)
    return before


def trials(toy: Toy, every: int, rng: random.Random, *, removed: bool) -> Iterator[str]:
    """One after the other; "" for each that went well, else what went wrong."""
    toy.run()
    toy.run()
    wanted = results(toy)
    for path in kept(toy):
        shown = path.relative_to(toy.root).as_posix()
        for at in range(rng.randrange(every), path.stat().st_size if path.exists() else 0, every):
            if not path.exists() or at >= path.stat().st_size:
                break
            before = flip(path, at, rng.randrange(8))
            if removed:
                for name in wanted:
                    (toy.root / name).unlink(missing_ok=True)
            yield f"{shown}, byte {at}: {wrong}" if (wrong := _wrong(toy, wanted)) else ""
            if path.exists() and path.read_bytes() != before:
                path.write_bytes(before)  # nobody looked at it, or it was written anew
            toy.run(status=None)


def _wrong(toy: Toy, wanted: dict[str, bytes]) -> str:
    try:
        done = toy.inside()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if done.returncode or "Traceback" in done.stdout + done.stderr:
        return (done.stdout + done.stderr)[-500:]
    now = results(toy)
    differ = [name for name in {**wanted, **now} if wanted.get(name) != now.get(name)]
    return f"other bytes in {', '.join(differ)}" if differ else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--removed", action="store_true", help="remove all outputs before each run")
    args = parser.parse_args()
    began, tally = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        toy = Toy(Path(folder).resolve(), ("one",))
        found = trials(toy, args.every, random.Random(args.seed), removed=args.removed)
        for wrong in found:
            tally["wrong" if wrong else "right"] += 1
            if wrong:
                print(wrong, flush=True)
    print(f"seed {args.seed}: {dict(tally)} in {time.monotonic() - began:.0f} s")
    return int(tally["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
