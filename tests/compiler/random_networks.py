"""Thousands of random networks: each right, or refused with a reason; faults with their seed.

    python -m tests.compiler.random_networks --count 5000 --kmodel 3 --seed 1 -j 2

Network K of seed S is number ``S + K``; ``--count 1 --seed NUMBER`` judges it alone and with
``--keep FOLDER`` leaves its file there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.compiler.judging import Verdict

KINDS = ("right", "refused", "wrong", "check", "outside", "crashed")


def _judge(seed: int, kmodel: int, runtime: str, guards: bool) -> Verdict:
    from tests.compiler.judging import judge

    return judge(seed, kmodel, runtime, guards=guards)


def _reason(verdict: Verdict) -> str:
    """A refusal without the names and numbers of its network."""
    text = verdict.reason.splitlines()[-1].split(": ", 1)[-1]
    return re.sub(r"'[^']*'|\[[^\]]*\]|[0-9.]+", "…", text).strip()[:100]


def told(verdict: Verdict) -> str:
    lines = [f"{verdict.kind}: seed {verdict.seed}, kmodel {verdict.kmodel}: {verdict.reason}"]
    if verdict.kind == "wrong":
        pairs = zip(verdict.reached, verdict.bounds, strict=True)
        lines.append("  dB: " + ", ".join(f"{r:.1f} (at least {b:.1f})" for r, b in pairs))
    return "\n".join([*lines, f"  {', '.join(verdict.structures)}"])


def table(verdicts: Sequence[Verdict]) -> str:
    """How many networks of each structure came out how; then reasons of refusals, by number."""
    tally: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for verdict in verdicts:
        for name in ("all", *verdict.structures):
            tally.setdefault(name, Counter())[verdict.kind] += 1
        if verdict.kind == "refused":
            reasons[_reason(verdict)] += 1
    rows = [f"{'structure':<22}" + "".join(f"{kind:>9}" for kind in KINDS)]
    for name in sorted(tally, key=lambda n: (n != "all", n)):
        rows.append(f"{name:<22}" + "".join(f"{tally[name][kind]:>9}" for kind in KINDS))
    made = [verdict for verdict in verdicts if verdict.sharp is not None]
    sharp, told = (sum(getattr(v, name) for v in made) for name in ("sharp", "told"))
    rows.append(
        f"10 dB lost would be found in {told} of {len(made)}, by the bounds alone in {sharp}"
    )
    return "\n".join(rows + [f"{n:>6} refused: {reason}" for reason, n in reasons.most_common()])


def run(
    seeds: Iterable[int], kmodel: int, runtime: str, jobs: int, *, guards: bool = False
) -> list[Verdict]:
    """Judge all, faults told as they are found."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy is there
        os.environ[name] = "1"
    found = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn) as pool:  # which ends where native code ends a process
        one = partial(_judge, kmodel=kmodel, runtime=runtime, guards=guards)
        for verdict in pool.map(one, seeds, chunksize=4):
            found.append(verdict)
            if verdict.fault:
                print(told(verdict), flush=True)
            if len(found) % 500 == 0:
                print(f"{len(found)} judged", file=sys.stderr, flush=True)
    return found


def rates(seeds: Iterable[int], kmodel: int) -> str:
    """A line a fault: in how many networks the bounds find it, and where they do not."""
    from tests.compiler.mutants import killed

    tally: dict[str, dict[int, bool]] = {}
    for seed in seeds:
        for fault, found in killed(seed, kmodel).items():
            tally.setdefault(fault, {})[seed] = found
    return "\n".join(
        f"{fault:<22}{sum(found.values()):>5} of {len(found):>4}; not in "
        + (", ".join(str(seed) for seed, one in found.items() if not one) or "none")
        for fault, found in tally.items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kmodel", type=int, choices=(3, 4), default=3)
    parser.add_argument("--runtime", default="host", help="what the simulator stands for")
    parser.add_argument("--guards", action="store_true", help="look for accesses outside, too")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument(
        "--faults", action="store_true", help="how many put in on purpose are found"
    )
    parser.add_argument("--keep", type=Path, help="write the files of faulty networks here")
    parser.add_argument(
        "--record", action="store_true", help="keep the dB reached, below which others then fail"
    )
    args = parser.parse_args()
    began = time.monotonic()
    if args.faults:
        print(rates(range(args.seed, args.seed + args.count), args.kmodel))
        return 0
    seeds = range(args.seed, args.seed + args.count)
    verdicts = run(seeds, args.kmodel, args.runtime, args.jobs, guards=args.guards)
    if args.keep is not None:
        keep(args.keep, verdicts)
    if args.record:
        from tests.compiler.judging import record

        record(verdicts, args.kmodel)
    print(table(verdicts))
    print(f"{args.count} networks in {time.monotonic() - began:.0f} s")
    return int(any(v.fault for v in verdicts))


def keep(folder: Path, verdicts: Iterable[Verdict]) -> None:
    """The ``.tflite`` of every faulty network."""
    from tests.compiler.judging import network

    folder.mkdir(parents=True, exist_ok=True)
    for verdict in verdicts:
        if verdict.fault:
            Path(folder, f"{verdict.seed}.tflite").write_bytes(network(verdict.seed).tflite)


if __name__ == "__main__":
    sys.exit(main())
