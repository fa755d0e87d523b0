"""Short runs of the fuzz scripts, tests/fuzz_*.py; long ones are in CONTRIBUTING.md."""

from __future__ import annotations

import os
import random
import time

import numpy as np
import pytest

from k210tasks import toolchains
from k210tasks.errors import K210Error
from tests import (
    fuzz_files,
    fuzz_graphs,
    fuzz_kmodel,
    fuzz_onnx,
    fuzz_texts,
    fuzz_tflite,
    fuzzing,
)  # fmt: skip


@pytest.mark.parametrize("kind", fuzz_texts.TARGETS)
def test_every_damaged_text_is_read_or_refused(kind: str) -> None:
    target, seeds = fuzz_texts.TARGETS[kind], fuzz_texts.SEEDS[kind]
    for seed in seeds:
        assert fuzzing.tried(target, seed)[0] == "right"
    tally, faults = fuzzing.run(target, seeds, fuzz_texts.mutate, 200, seed=1)
    assert faults == [], tally


@pytest.mark.parametrize("kind", fuzz_files.KINDS)
def test_every_damaged_file_is_read_or_refused(kind: str) -> None:
    made = fuzz_files.KINDS[kind]
    found = [fuzzing.tried(made.target, seed)[0] for seed in made.seeds()]
    assert found.count("right") >= len(found) - 1  # of samples, one that is a renamed .npz
    tally, faults = fuzzing.run(made.target, made.seeds(), made.mutate, 200, seed=1)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 10, tally


@pytest.mark.parametrize("runtime", ["host", "all"])
def test_damaged_kmodels_run_or_are_refused(runtime: str) -> None:
    target, seeds = fuzz_kmodel.turning(runtime), fuzz_kmodel.seeds()
    tally, faults = fuzzing.run(target, seeds, fuzz_kmodel.mutate, 600, seed=7)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 50


def test_damaged_models_are_checked_or_refused() -> None:
    seeds = fuzz_tflite.seeds()
    tally, faults = fuzzing.run(fuzz_tflite.checked, seeds, fuzz_tflite.mutate, 150, seed=11)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 20


def test_damaged_models_go_through_the_chain_or_are_refused() -> None:
    seeds = fuzz_tflite.seeds()
    tally, faults = fuzzing.run(fuzz_tflite.chained, seeds, fuzz_tflite.mutate, 60, seed=12)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 3


@pytest.mark.parametrize("target", [fuzz_tflite.checked, fuzz_onnx.chained])
def test_damaged_onnx_models_are_built_or_refused(target: fuzzing.Target) -> None:
    tally, faults = fuzzing.run(target, fuzz_onnx.seeds(), fuzz_onnx.mutate, 150, seed=13)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 3


@pytest.mark.toolchain
def test_damaged_graphs_are_converted_or_refused() -> None:
    if not toolchains.get("tensorflow").installed():
        pytest.skip("TensorFlow is not installed")
    target, made, warm_up = fuzz_graphs.converted, fuzz_graphs.seeds(), fuzz_graphs.warm_up
    tally, faults = fuzzing.run(target, made, fuzz_graphs.mutate, 60, 4, warm_up)
    assert faults == [], tally
    assert min(tally["right"], tally["refused"]) > 5


def _as_told(data: bytes) -> str:
    """Does what its file says."""
    if data == b"status":
        raise SystemExit(3)
    if data == b"error":
        raise IndexError(data)
    if data == b"end":
        os._exit(3)
    if data == b"memory":
        return str(len(bytearray(b"x") * (2 * fuzzing.MEMORY)))
    if data == b"more":
        bytearray(fuzzing.BACKSTOP * 2)
    if data == b"late":
        time.sleep(60)
    if data == b"refuse":
        raise K210Error("no")
    return {b"escape": "\x1b[2J", b"internal": "internal error"}.get(data, "fine")


WORDS = {
    b"status": "traceback", b"error": "traceback", b"end": "crash", b"memory": "memory",
    b"more": "memory", b"late": "slow", b"refuse": "refused", b"escape": "control character",
    b"internal": "internal error", b"fine": "right",
}  # fmt: skip


def test_a_fault_of_each_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "SLOWEST", 2)
    monkeypatch.setattr(fuzzing, "MEMORY", 64 << 20)
    monkeypatch.setattr(fuzzing, "BACKSTOP", 256 << 20)
    seeds = tuple(WORDS)
    tally, faults = fuzzing.run(_as_told, seeds, lambda rng, data: data, 30)
    assert set(tally) == set(WORDS.values())
    told = {fault.case: fault.kind for fault in faults}
    for number in range(30):
        wanted = WORDS[fuzzing.case(number, 0, seeds, lambda rng, data: data)]
        assert told.get(number, wanted if wanted in ("right", "refused") else None) == wanted
    assert len(faults) == 30 - tally["right"] - tally["refused"]


def test_a_case_that_hangs_in_native_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(data: bytes) -> str:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60 if data == b"hang" else 0)
        return "fine"

    monkeypatch.setattr(fuzzing, "SILENT", 1)
    seeds = [b"hang", *[b"fine"] * 9]
    tally, faults = fuzzing.run(deaf, seeds, lambda rng, data: data, 15, seed=2)
    hangs = [n for n in range(15) if random.Random(f"2/{n}").choice(seeds) == b"hang"]
    assert hangs
    assert [(fault.case, fault.kind) for fault in faults] == [(n, "hang") for n in hangs]
    assert tally["right"] == 15 - len(hangs)


def test_a_warning_of_numpy_is_a_fault() -> None:
    def target(data: bytes) -> str:
        return str(np.full(1, 3e38, np.float32) * len(data))

    tally, _ = fuzzing.run(target, [b"0123456789"], lambda rng, data: data, 1)
    assert tally == {"traceback": 1}
