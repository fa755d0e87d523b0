"""Damages ``.tflite`` files by their grammar: each must be read, compiled or refused in words.

A case changes what the parsed file says (shapes, indices, types, settings, constants, counts,
whole ops), now and then bytes of it too. ``check`` is asked in the process itself, which must
survive; with ``--chain`` the float model is measured, the model compiled, simulated and compared,
as ``k210 convert`` would.

    python tests/fuzz_tflite.py [--cases 20000] [--seed 0] [--chain] [--keep FOLDER]
"""

from __future__ import annotations

import copy
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks import compiler
from k210tasks.compiler.options import Options
from k210tasks.reference.float_model import Given, Reference, measure_to
from k210tasks.steps.signature import read_signature
from tests import fuzzing
from tests.compiler.chains import chain, pruned

WHOLE = (-(2**31), -1, 0, 1, 2, 3, 5, 7, 8, 64, 127, 1024, 65535, 65536, 2**20, 2**31 - 1)
REAL = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e30, 3e38, 1e-45)


def seeds() -> list[bytes]:
    """Small networks of many structures."""
    nets = [pruned(chain(np.random.default_rng(n)).net) for n in range(40)]
    return [net.build(*net.outputs) for net in nets]


def mutate(source: random.Random, data: bytes) -> bytes:
    """One damaged copy."""
    rng = np.random.default_rng(source.getrandbits(64))
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
    """What ``check`` says of a file, for both kmodels."""
    reports = [compiler.check(data, kmodel) for kmodel in (3, 4)]
    return "\n".join(
        line
        for report in reports
        for line in (*report.problems, *(reason for op in report.ops for reason in op.reasons))
    )


def built(model: Given, shape: tuple[int, ...]) -> str:
    """What calibration, compiler, simulator and comparison make of a model fed with ``shape``."""
    from k210tasks.kmodel import parse
    from k210tasks.simulator import Simulator

    if int(np.prod(shape)) > 1 << 20:
        return "large"
    samples = list(np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "calibration.npz")
        measure_to(path, model, samples, fed="tensors")
        calibration = compiler.Calibration.from_npz(path)
    made = compiler.compile(model, calibration, Options(kmodel=4, effort="fast", fed="tensors"))
    simulator = Simulator(parse(made.kmodel))
    given = simulator.input
    simulator.run(np.zeros(given.nbytes // np.dtype(given.dtype).itemsize, given.dtype))
    Reference(model).run(samples[0])
    return "made"


def chained(data: bytes) -> str:
    return built(data, read_signature(data, "m.tflite").input.shape)


def run(name: str, whole: fuzzing.Target, made: Sequence[bytes], damage: fuzzing.Mutate) -> int:
    """The script: ``whole`` is what ``--chain`` asks for."""
    parser = fuzzing.arguments("models", 20_000)
    parser.add_argument("--chain", action="store_true", help="the whole chain, not only check")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    target, which = (whole, "chain") if args.chain else (checked, "check")
    return fuzzing.reported(f"{name} {which}", target, made, damage, args)


if __name__ == "__main__":
    sys.exit(run("tflite", chained, seeds(), mutate))
