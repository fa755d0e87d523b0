"""Damages ``.tflite`` files by their grammar: each must be read, compiled or refused in words.

A case changes what the parsed file says (shapes, indices, types, settings, constants, counts,
whole ops), now and then bytes of it too. ``check`` is asked in the process itself, which must
survive; with ``--chain`` the float model is measured, the model compiled, simulated and compared,
as ``k210 convert`` would. A failure is anything but a result or a ``K210Error``: a traceback, an
"internal error", raw control characters, more than ten seconds or a gigabyte. Its file is kept.

    python -m tests.fuzz_tflite [--cases 20000] [--seed 0] [--chain]
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from k210tasks import compiler
from k210tasks.compiler.options import Options
from k210tasks.errors import K210Error
from k210tasks.reference.apart import Apart, EndedApart
from k210tasks.reference.float_model import Reference, measure_to
from k210tasks.steps.signature import read_signature
from tests.compiler.chains import chain, pruned

SLOWEST, MOST_BYTES = 10.0, 1 << 30
WHOLE = (-(2**31), -1, 0, 1, 2, 3, 5, 7, 8, 64, 127, 1024, 65535, 65536, 2**20, 2**31 - 1)
REAL = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e30, 3e38, 1e-45)


class Failed(Exception):
    """A case that is neither done nor refused in words."""


def seeds() -> list[bytes]:
    """Small networks of many structures."""
    nets = [pruned(chain(np.random.default_rng(n)).net) for n in range(40)]
    return [net.build(*net.outputs) for net in nets]


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """One damaged copy."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    for _ in range(int(rng.integers(1, 4))):
        _change(rng, model)
    try:
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        out = bytearray(builder.Output())
    except Exception:  # a number that its field cannot hold
        out = bytearray(data)
    if rng.random() < 0.15 or bytes(out) == data:
        at = int(rng.integers(0, len(out)))
        out[at] = int(rng.integers(0, 256))
    return bytes(out)


def _change(rng: np.random.Generator, model: Any) -> None:
    graph = model.subgraphs[0]
    kind = int(rng.integers(0, 9))
    tensor = graph.tensors[int(rng.integers(0, len(graph.tensors)))]
    op = graph.operators[int(rng.integers(0, len(graph.operators)))]
    if kind == 0:
        _field(rng, tensor)
    elif kind == 1:
        _field(rng, op)
    elif kind == 2 and op.builtinOptions is not None:
        _field(rng, op.builtinOptions)
    elif kind == 3:
        _field(rng, model.operatorCodes[int(rng.integers(0, len(model.operatorCodes)))])
    elif kind == 4:
        _constant(rng, model.buffers[int(rng.integers(0, len(model.buffers)))])
    elif kind == 5 and tensor.quantization is not None:
        _field(rng, tensor.quantization)
    elif kind == 6:
        code = model.operatorCodes[op.opcodeIndex % len(model.operatorCodes)]
        code.builtinCode = int(rng.integers(0, 210))
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    elif kind == 7:
        place = int(rng.integers(0, len(graph.operators)))
        if rng.random() < 0.5 and len(graph.operators) > 1:
            del graph.operators[place]
        else:
            graph.operators.insert(place, copy.deepcopy(op))
    else:
        tensor.shape = [int(rng.choice(np.array(WHOLE[2:]))) for _ in range(rng.integers(0, 6))]


def _field(rng: np.random.Generator, table: Any) -> None:
    names = sorted(name for name, value in vars(table).items() if _simple(value))
    if not names:
        return
    name = names[int(rng.integers(0, len(names)))]
    setattr(table, name, _other(rng, getattr(table, name)))


def _simple(value: Any) -> bool:
    return isinstance(value, (bool, int, float, bytes, str, list, np.ndarray)) and not (
        isinstance(value, list) and value and not isinstance(value[0], (int, float, np.number))
    )


def _other(rng: np.random.Generator, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return float(rng.choice(np.array(REAL)))
    if isinstance(value, int):
        if rng.random() < 0.5:
            return value + int(rng.integers(-3, 4))
        return int(rng.choice(np.array(WHOLE)))
    if isinstance(value, (bytes, str)):
        return b"\x1b[31m\x07\x00name\xff\n"
    found = list(value)
    choice = rng.random()
    if found and choice < 0.6:
        at = int(rng.integers(0, len(found)))
        found[at] = _other(
            rng, float(found[at]) if isinstance(found[at], float) else int(found[at])
        )
    elif found and choice < 0.8:
        del found[int(rng.integers(0, len(found)))]
    else:
        found.append(found[0] if found else 1)
    return found


def _constant(rng: np.random.Generator, buffer: Any) -> None:
    if buffer.data is None or not len(buffer.data):
        return
    data = bytearray(np.asarray(buffer.data, np.uint8).tobytes())
    if rng.random() < 0.15:
        del data[int(rng.integers(0, len(data))) :]
    elif len(data) >= 4:
        at = int(rng.integers(0, len(data) // 4)) * 4
        if rng.random() < 0.5:
            data[at : at + 4] = np.float32(rng.choice(np.array(REAL))).tobytes()
        else:
            data[at : at + 4] = np.array(rng.choice(np.array(WHOLE)), "<i8").tobytes()[:4]
    buffer.data = np.frombuffer(bytes(data), np.uint8)


def checked(data: bytes) -> str:
    """What ``check`` makes of a file, for both kmodels."""
    outcome = "refused"
    for kmodel in (3, 4):
        report = compiler.check(data, kmodel)
        _clean("\n".join((*report.problems, *(r for op in report.ops for r in op.reasons))))
        outcome = "supported" if report.supported else outcome
    return outcome


def chained(data: bytes) -> str:
    """What calibration, compiler, simulator and comparison make of it."""
    from k210tasks.kmodel import parse
    from k210tasks.simulator import Simulator

    shape = read_signature(data, "m.tflite").input.shape
    if int(np.prod(shape)) > 1 << 20:
        return "large"
    samples = list(np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calibration.npz")
        measure_to(path, data, samples, fed="tensors")
        calibration = compiler.Calibration.from_npz(path)
    made = compiler.compile(data, calibration, Options(kmodel=4, effort="fast", fed="tensors"))
    simulator = Simulator(parse(made.kmodel))
    given = simulator.input
    simulator.run(np.zeros(given.nbytes // np.dtype(given.dtype).itemsize, given.dtype))
    Reference(data).run(samples[0])
    return "made"


def _clean(text: str) -> None:
    if "internal error" in text:
        raise Failed(text)
    bad = [c for c in text if ord(c) < 32 and c != "\n"]
    if bad:
        raise Failed(f"raw control characters {bad!r}")


def outcome(data: bytes, *, whole: bool) -> str:
    """One case. Raises :class:`Failed`."""
    began = time.monotonic()
    try:
        found = chained(data) if whole else checked(data)
    except K210Error as error:
        _clean(str(error))
        found = type(error).__name__
    took = time.monotonic() - began
    if took > SLOWEST:
        raise Failed(f"took {took:.1f} s")
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    if peak << 10 > MOST_BYTES:
        raise Failed(f"took {peak >> 10} MiB")
    return found


def fuzz(cases: int, seed: int, *, whole: bool = False, report: bool = False) -> Counter[str]:
    """Outcomes of ``cases`` damaged files. Raises :class:`Failed` at the end, naming all."""
    originals = seeds()
    outcomes: Counter[str] = Counter()
    failures: list[str] = []

    def serve(inbox: Iterator[Any], reply: Any) -> None:
        for data in inbox:
            try:
                reply(outcome(data, whole=whole))
            except Exception as error:
                reply(error if isinstance(error, Failed) else Failed(repr(error)))

    child = Apart(serve, "fuzzing")
    for case in range(cases):
        rng = np.random.default_rng([seed, case])
        data = mutate(rng, originals[int(rng.integers(0, len(originals)))])
        try:
            found = child.ask(data)
        except EndedApart as error:
            found, child = Failed(str(error)), Apart(serve, "fuzzing")
        if isinstance(found, Failed):
            name = Path(tempfile.gettempdir(), f"fuzz_tflite_{seed}_{case}.tflite")
            name.write_bytes(data)
            failures.append(f"case {case} of seed {seed}, kept as {name}: {found}")
            outcomes["FAILED"] += 1
            if report:
                print(failures[-1][:600], flush=True)
        else:
            outcomes[found] += 1
        if report and (case + 1) % 1000 == 0:
            print(f"{case + 1} cases, {dict(outcomes)}", flush=True)
    child.close()
    if failures:
        raise Failed("\n".join(failures))
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chain", action="store_true", help="the whole chain, not only check")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        print(
            f"seed {args.seed}:", dict(fuzz(args.cases, args.seed, whole=args.chain, report=True))
        )
    except Failed as failure:
        print(len(str(failure).splitlines()), "failures", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
