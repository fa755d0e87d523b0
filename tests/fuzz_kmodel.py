"""Damages kmodels in many ways: every one must run, or end in a clean ``KmodelError``.

Each case is parsed under a memory limit (8 times the file's size and 16 MiB beyond what was
there before), listed, prepared and run. Anything else than success or a ``KmodelError`` with
offset and field, a case slower than ``SLOWEST`` seconds, or more memory is a failure and is
written to a file.

    python tests/fuzz_kmodel.py [--cases 100000] [--seed 0] [--runtime all]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks.kmodel import KmodelError, parse, write
from k210tasks.kmodel.lint import lint
from k210tasks.kmodel.listing import listing_text, summary
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.simulator import Simulator
from tests.kmodel import samples
from tests.simulator import models

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
#: Seconds one case may take on a busy machine.
SLOWEST = 30.0
#: Real files above this size are left out: one mutation in them costs many small ones.
LARGEST_SEED = 450_000

#: Values that have broken readers before.
ABSURD = (
    0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
    0xFFFFFFF8, 0x40000000, 1 << 20, 1 << 26, 4096,
)  # fmt: skip


def seeds() -> list[bytes]:
    """Files to damage: small models of our own, and real ones where they are there."""
    found = [write(model()) for model in (models.net_v3, models.cpu_net_v3, models.net_v4)] * 20
    found += [write(samples.model_v3(seed)) for seed in range(20)]
    found += [write(samples.model_v4(seed)) for seed in range(40)]
    if FIXTURES.is_dir():
        nodes = np.load(FIXTURES / "golden" / "v4_nodes.npz")
        found += [nodes[name].tobytes() for name in nodes.files if name.endswith(".kmodel")]
        for path in sorted(FIXTURES.glob("kmodel/v*/*.kmodel")):
            if path.stat().st_size <= LARGEST_SEED:
                found.append(path.read_bytes())
    return found


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """One damaged copy: bits, bytes, whole words, ranges, lengths."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        # Headers and field areas are hit more often than weights.
        reach = len(out) if rng.random() < 0.3 else min(len(out), 2048)
        if reach < 8:
            break
        at = int(rng.integers(0, reach - 4))
        kind = rng.random()
        if kind < 0.2:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind < 0.3:
            out[at] = int(rng.integers(0, 256))
        elif kind < 0.6:
            value = int(rng.choice(np.array(ABSURD, np.uint64)))
            at -= at % 4 if rng.random() < 0.8 else 0
            out[at : at + 4] = value.to_bytes(4, "little")
        elif kind < 0.7:
            at -= at % 4
            old = int.from_bytes(out[at : at + 4], "little")
            new = (old + int(rng.integers(-9, 10))) & 0xFFFFFFFF
            out[at : at + 4] = new.to_bytes(4, "little")
        elif kind < 0.8:
            del out[at:]
        elif kind < 0.85:
            del out[at : at + int(rng.integers(1, 64))]
        elif kind < 0.9:
            out[at:at] = rng.bytes(int(rng.integers(1, 64)))
        elif kind < 0.95:
            size = int(rng.integers(1, 64))
            out[at : at + size] = rng.bytes(len(out[at : at + size]))
        else:
            source = int(rng.integers(0, reach - 4))
            size = int(rng.integers(4, 200))
            out[at : at + size] = out[source : source + size]
    return bytes(out)


class Failed(Exception):
    """A case that is neither run nor refused cleanly."""


def check(data: bytes, runtime: str = "host") -> str:
    """ "ran", "not prepared" or "not parsed"; raises :class:`Failed` for everything else."""
    before = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    if tracemalloc.is_tracing():
        tracemalloc.reset_peak()
    try:
        model = parse(data)
    except KmodelError as error:
        if error.offset is None or not error.field:
            raise Failed(f"no offset or field: {error}") from error
        return "not parsed"
    finally:
        if tracemalloc.is_tracing():
            used, limit = tracemalloc.get_traced_memory()[1] - before, 8 * len(data) + (16 << 20)
            if used > limit:
                raise Failed(f"parsing took {used} bytes, {limit} are allowed")
    listing_text(summary(model))
    for finding in lint(model, runtime):
        str(finding)
    try:
        simulator = Simulator(model, runtime)
    except KmodelError as error:
        if error.offset is None or not error.field:
            raise Failed(f"no offset or field: {error}") from error
        return "not prepared"
    given = simulator.input
    simulator.run(np.full(given.nbytes // np.dtype(given.dtype).itemsize, 77, given.dtype))
    return "ran"


def fuzz(cases: int, seed: int, report: bool = False, runtime: str = "host") -> Counter[str]:
    """Run ``cases`` damaged files as ``runtime`` does ("all": each in turn); what became of them.

    Raises :class:`Failed`.
    """
    runtimes = list(RUNTIMES) if runtime == "all" else [runtime]
    rng = np.random.default_rng(seed)
    originals = seeds()
    outcomes: Counter[str] = Counter()
    slowest, start = 0.0, time.monotonic()
    tracemalloc.start()
    try:
        for case in range(cases):
            data = mutate(rng, originals[int(rng.integers(0, len(originals)))])
            began = time.monotonic()
            try:
                outcomes[check(data, runtimes[case % len(runtimes)])] += 1
            except Exception as error:
                name = Path(tempfile.gettempdir(), f"fuzz_kmodel_{seed}_{case}.kmodel")
                name.write_bytes(data)
                raise Failed(f"case {case} of seed {seed}, kept as {name}: {error!r}") from error
            took = time.monotonic() - began
            slowest = max(slowest, took)
            if took > SLOWEST:
                raise Failed(f"case {case} of seed {seed} took {took:.1f} s")
            if report and (case + 1) % 5000 == 0:
                print(f"{case + 1} cases, slowest {slowest:.2f} s, {dict(outcomes)}", flush=True)
    finally:
        tracemalloc.stop()
    if report:
        print(f"done in {time.monotonic() - start:.0f} s")
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runtime", choices=[*RUNTIMES, "all"], default="host")
    args = parser.parse_args()
    try:
        print(dict(fuzz(args.cases, args.seed, report=True, runtime=args.runtime)))
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
