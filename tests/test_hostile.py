"""Damaged models that made earlier versions crash, hang or fill memory, through the verbs that a
user would give them to: each a clear error or a right result, soon and in little memory."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from k210tasks.cli import main
from k210tasks.errors import K210Error
from k210tasks.steps.signature import read_signature

HOSTILE = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "hostile"
MODELS = sorted(HOSTILE.glob("*.tflite"))
pytestmark = pytest.mark.skipif(not MODELS, reason="no ../shared/fixtures/hostile")

SECONDS, BYTES = 2.0, 300e6


def ended(arguments: list[str], said: Path) -> tuple[int, float, float]:
    """Status, processor seconds and peak bytes of a verb in a process of its own."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            fd = os.open(said, os.O_WRONLY | os.O_CREAT)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
            status = main(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1e3


def samples(folder: Path, model: Path) -> Path:
    """A tensor of the shape that the model is said to take."""
    folder.mkdir()
    try:
        shape = read_signature(model.read_bytes(), model.name).input.shape
    except K210Error:
        shape = (1, 4, 4, 3)
    for number in range(2):
        random = np.random.default_rng(number)
        np.save(folder / f"{number}.npy", random.normal(size=shape[1:]).astype(np.float32))
    return folder


@pytest.mark.parametrize("verb", ["check", "convert"])
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_a_clear_error_or_a_result(model: Path, verb: str, tmp_path: Path) -> None:
    arguments = [verb, str(model)]
    made = tmp_path / "made.kmodel"
    if verb == "convert":
        arguments += ["--images", str(samples(tmp_path / "samples", model)), "-o", str(made)]
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1e3
    began = time.monotonic()
    status, seconds, peak = ended(arguments, tmp_path / "said")
    text = (tmp_path / "said").read_text("utf-8", "replace")
    assert status in (0, 1), text
    assert seconds < SECONDS, f"{seconds} s of processor time"
    assert time.monotonic() - began < 10 * SECONDS  # of a busy machine
    assert peak - min(base, peak) < BYTES
    assert text
    for bad in ("Traceback", "internal error", "unexpected", "\x1b[31m"):
        assert bad not in text
    assert made.exists() == (verb == "convert" and status == 0)
