"""The frame of the fuzz scripts: cases by seed, limits for each, what is a fault, and a tally.

A script gives ``seeds``, good files to damage, and ``target``, which is given one damaged file as
bytes and returns what a user would be shown, or raises :class:`~k210tasks.errors.K210Error`. A
fault is any other exception, a warning of numpy's that a user would meet on the terminal,
"internal error" or a raw control character in what is shown, a crash of the process, more than
:data:`SLOWEST` seconds or :data:`MEMORY` bytes beyond the start.

Cases run in child processes by the hundred, so that a crash is told with its case's number, and
so is one that hangs where no Python is run.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from k210tasks.errors import K210Error, visible

SLOWEST = 10  # seconds
MEMORY = 1 << 30
SILENT = 60  # seconds after which a case hangs that even the alarm does not reach
BACKSTOP = 4 * MEMORY  # where a case that runs away is stopped
BATCH = 100

Target = Callable[[bytes], str]
Mutate = Callable[[random.Random, bytes], bytes]

#: numbers, words and marks on which readers have failed
ODD = (
    b"0", b"-1", b"1", b"255", b"256", b"65536", b"4294967296", b"1e999", b"-1e999", b"NaN",
    b"9" * 5000, b"0.1", b"null", b"true", b"[]", b"{}", b'""', b'"\\u0000"', b'"\x1b[31m"',
    b"\x00", b"\xff", b"\xed\xa0\x80", b"..", b"../../x", b"/etc/passwd", b"C:\\x", b"[" * 3000,
    b'{"a":' * 3000, "\uff1a".encode(), "\u202e".encode(), b"&a [*a]", b"!!python/object:x",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    case: int
    kind: str
    text: str


def mutate_text(rng: random.Random, data: bytes) -> bytes:
    """A text damaged where its grammar has joints: tokens replaced, left out, doubled, moved."""
    if rng.random() < 0.15:
        return mutate_bytes(rng, data)
    marks = [i for i, c in enumerate(data) if c in b' \n\t,:[]{}"-']
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if len(marks) < 3:
            break
        a, b = sorted(rng.sample(marks, 2))
        if rng.random() < 0.7:  # the token at a
            b = marks[min(marks.index(a) + rng.randint(1, 3), len(marks) - 1)]
        piece = data[a:b]
        how = rng.randrange(5)
        new = (rng.choice(ODD), b"", piece + piece, piece[::-1], data[:1] + rng.choice(ODD))[how]
        data = data[: a + 1] + new + data[b:]
        marks = [i for i, c in enumerate(data) if c in b' \n\t,:[]{}"-']
    return data


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bits, bytes, 32-bit words and lengths of any file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        how = rng.randrange(6)
        if how == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            word = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)))
            changed[at : at + 4] = word.to_bytes(4, "little")
        elif how == 3:
            del changed[at : at + rng.choice((1, 4, 64, len(changed)))]
        elif how == 4:
            changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
        else:
            changed[at:at] = changed[rng.randrange(len(changed)) :][:64]
    return bytes(changed)


def case(number: int, seed: int, seeds: Sequence[bytes], mutate: Mutate) -> bytes:
    """Damaged file ``number`` of ``seed``."""
    rng = random.Random(f"{seed}/{number}")
    return mutate(rng, rng.choice(seeds))


def tried(target: Target, data: bytes) -> tuple[str, str]:
    """ "right", "refused", or the kind of a fault, and what was shown."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SLOWEST} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SLOWEST)
    before = _peak_from_now()
    try:
        kind, text = "right", target(data)
    except K210Error as error:
        kind, text = "refused", str(error)
    except TimeoutError as error:
        kind, text = "slow", str(error)
    except MemoryError:
        kind, text = "memory", traceback.format_exc()
    except BaseException:
        kind, text = "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
    if kind in ("right", "refused"):
        if "internal error" in text:
            kind = "internal error"
        elif text != visible(text):
            kind = "control character"
        elif (took := max(_memory("VmHWM") - before, _of_children())) > MEMORY:
            kind, text = "memory", f"{took >> 20} MiB; {text}"
    return kind, text


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))


def _peak_from_now() -> int:
    """The memory of this process, whose peak begins anew."""
    with contextlib.suppress(OSError):  # where it may not: the peak stays the highest so far
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _of_children() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def _batch(
    pipe: Connection, numbers: range, seed: int, seeds: Sequence[bytes], mutate: Mutate,
    target: Target, prepare: Callable[[], object],
) -> None:  # fmt: skip
    prepare()
    warnings.simplefilter("error", RuntimeWarning)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BACKSTOP, used + BACKSTOP))
    for number in numbers:
        pipe.send((number, "", ""))
        kind, text = tried(target, case(number, seed, seeds, mutate))
        pipe.send((number, kind, text if kind not in ("right", "refused") else ""))


def run(
    target: Target, seeds: Sequence[bytes], mutate: Mutate, cases: int, seed: int = 0,
    prepare: Callable[[], object] = lambda: None,
) -> tuple[Counter[str], list[Fault]]:  # fmt: skip
    """Try that many cases; what became of them, and the faults. ``prepare`` is called in each
    child before its cases."""
    tally, faults, first = Counter[str](), list[Fault](), 0
    fork = get_context("fork")
    while first < cases:
        here, there = fork.Pipe(duplex=False)
        numbers = range(first, min(first + BATCH, cases))
        given = (there, numbers, seed, seeds, mutate, target, prepare)
        child = fork.Process(target=_batch, args=given)
        child.start()
        there.close()
        number, done, ending = first, first - 1, "crash"
        try:
            while True:
                if not here.poll(SILENT):
                    ending = "hang"
                    child.kill()
                    break
                number, kind, text = here.recv()
                if kind:
                    done = number
                    tally[kind] += 1
                    if kind not in ("right", "refused"):
                        faults.append(Fault(number, kind, text))
        except EOFError:
            pass
        child.join()
        here.close()
        if done < number:
            tally[ending] += 1
            faults.append(Fault(number, ending, f"ended with {child.exitcode}"))
            done = number
        first = done + 1
    return tally, faults


def arguments(name: str, cases: int) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=f"Damages {name}.")
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the files of faults into this folder")
    return parser


def reported(
    name: str, target: Target, seeds: Sequence[bytes], mutate: Mutate, args: argparse.Namespace,
    prepare: Callable[[], object] = lambda: None,
) -> int:  # fmt: skip
    """Run and print as ``args`` of :func:`arguments` ask; the exit status."""
    began = time.monotonic()
    tally, faults = run(target, seeds, mutate, args.cases, args.seed, prepare)
    for fault in faults[:20]:
        print(f"case {fault.case}, {fault.kind}: {fault.text[-1500:]}")
    for fault in faults if args.keep is not None else ():
        args.keep.mkdir(parents=True, exist_ok=True)
        data = case(fault.case, args.seed, seeds, mutate)
        (args.keep / f"{name.replace(' ', '_')}_{args.seed}_{fault.case}").write_bytes(data)
    took = time.monotonic() - began
    print(f"{name}, seed {args.seed}, {args.cases} cases: {dict(tally)} in {took:.0f} s")
    return int(bool(faults))


def chosen(kinds: Sequence[str]) -> str:
    """The kind that the command line names first."""
    kind = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if kind not in kinds:
        raise SystemExit(f"one of {', '.join(kinds)}")
    return kind
