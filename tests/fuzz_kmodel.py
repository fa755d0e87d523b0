"""Damages kmodels in many ways: every one must run, or end in a clean ``KmodelError``.

Each case is parsed under a memory limit (8 times the file's size and 16 MiB beyond what was
there before), listed, prepared and run. Anything else than success or a ``KmodelError`` with
offset and field, or what the frame of all fuzz scripts counts as one, is a fault.

    python tests/fuzz_kmodel.py [--cases 100000] [--seed 0] [--runtime all] [--keep FOLDER]
"""

from __future__ import annotations

import functools
import random
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks.kmodel import KmodelError, parse, write
from k210tasks.kmodel.lint import lint
from k210tasks.kmodel.listing import listing_text, summary
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.simulator import Simulator
from tests import fuzzing
from tests.kmodel import samples
from tests.simulator import models

T = TypeVar("T")
FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
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


def mutate(source: random.Random, data: bytes) -> bytes:
    """One damaged copy: bits, bytes, whole words, ranges, lengths."""
    rng = np.random.default_rng(source.getrandbits(64))
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
            start = int(rng.integers(0, reach - 4))
            size = int(rng.integers(4, 200))
            out[at : at + size] = out[start : start + size]
    return bytes(out)


def check(data: bytes, runtime: str = "host") -> str:
    """What is shown of a kmodel that runs. Raises ``KmodelError`` with offset and field."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        model = _clean(parse, data)
        used, limit = tracemalloc.get_traced_memory()[1] - before, 8 * len(data) + (16 << 20)
        assert used <= limit, f"parsing took {used} bytes, {limit} are allowed"
    finally:
        tracemalloc.stop()
    text = listing_text(summary(model))
    text += "\n".join(map(str, lint(model, runtime)))
    simulator = _clean(Simulator, model, runtime)
    given = simulator.input
    simulator.run(np.full(given.nbytes // np.dtype(given.dtype).itemsize, 77, given.dtype))
    return text


def _clean(make: Callable[..., T], *given: object) -> T:
    """What ``make`` gives, or its error, which says where in the file and in which field."""
    try:
        return make(*given)
    except KmodelError as error:
        if error.offset is None or not error.field:
            raise AssertionError(f"no offset or field: {error}") from error
        raise


def turning(runtime: str) -> fuzzing.Target:
    """The target for a runtime; "all": for one after another, as the bytes of a file choose."""
    if runtime != "all":
        return functools.partial(check, runtime=runtime)
    names = list(RUNTIMES)
    return lambda data: check(data, names[zlib.crc32(data) % len(names)])


def main() -> int:
    parser = fuzzing.arguments("kmodels", 100_000)
    parser.add_argument("--runtime", choices=[*RUNTIMES, "all"], default="host")
    args = parser.parse_args()
    name = f"kmodel as {args.runtime} runs it"
    return fuzzing.reported(name, turning(args.runtime), seeds(), mutate, args)


if __name__ == "__main__":
    sys.exit(main())
