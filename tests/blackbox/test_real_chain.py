"""The real chain on the real examples: TensorFlow, nncase, LiteRT, through the command line.

Skipped where the toolchains are not installed; continuous integration has them. Get them with
``doit toolchain:tensorflow toolchain:nncase-1.9.0``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.graph.processes import descendants, running

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFEST = """\
defaults: {compiler: nncase-1.9.0, firmware: canmv-kpu5}
models:
  nn_xo:
    source: workspace/nn_xo.pb
    inputs: {input: [1, 28, 28, 1]}
    outputs: [output]
    images: images/nn_xo/calibration
    preprocess: {color: gray, mean: 0.0, std: 1.0}
    calibrate: {samples: 20}
    verify: {images: images/nn_xo/verification, min_cosine: 0.98, min_top1: 0.98}
  digits:
    source: workspace/digits.pb
    images: images/digits/calibration
    preprocess: {color: gray, mean: 0.5, std: 0.5}
    calibrate: {samples: 20}
    verify: {images: images/digits/verification, min_cosine: 0.98, min_top1: 0.98}
"""
STEPS = ("calibrate", "convert", "kmodel", "verify")


def missing() -> str:
    from k210tasks import toolchains

    absent = [
        name
        for name in ("tensorflow", "nncase-1.9.0")
        if not toolchains.get(name, None, None).installed()
    ]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Real:
    def __init__(self, root: Path) -> None:
        self.root = root

    def popen(self, *args: str) -> subprocess.Popen[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("K210_STORE", "DOIT_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "doit", *args],
            cwd=self.root,
            env={**env, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, status: int = 0) -> tuple[list[str], str]:
        """What was computed, sorted, and what was said."""
        before = len(self.history())
        process = self.popen(*args)
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, out + err
        assert "Traceback" not in err
        return sorted(e["task"] for e in self.history()[before:] if e["did"] == "computed"), err

    def history(self) -> list[dict[str, Any]]:
        path = self.root / ".k210/history.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def verdict(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.root / f"build/{model}/verify.json").read_text("utf-8")
        )
        return found

    def edit(self, old: str, new: str) -> None:
        path = self.root / "models.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


def project(root: Path) -> Real:
    if reason := missing():
        pytest.skip(reason)
    for name in ("nn_xo", "digits"):
        (root / "workspace").mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / f"workspace/{name}.pb", root / "workspace")
        shutil.copytree(REPOSITORY / "images" / name, root / "images" / name)
    shutil.copy(REPOSITORY / "dodo.py", root)
    (root / "models.yaml").write_text(MANIFEST)
    return Real(root)


def doit_alone_ends_with_verified_models(real: Real) -> None:
    computed, err = real.run()
    assert computed == sorted(f"{s}:{m}" for s in STEPS for m in ("nn_xo", "digits"))
    for model in ("nn_xo", "digits"):
        found = real.verdict(model)
        assert found["verified"] is True
        assert found["held_out"] is True
        assert found["outputs"][0]["top1_agreement"] >= 0.98
        assert (real.root / f"workspace/{model}.kmodel").stat().st_size > 1000
    assert "accuracy: float 99" in err


def nothing_is_done_twice(real: Real) -> None:
    computed, err = real.run()
    assert computed == []
    assert err == ""


def a_real_threshold(real: Real) -> None:
    real.edit("min_cosine: 0.98", "min_cosine: 1.0")
    computed, err = real.run("verify:nn_xo", status=1)
    assert computed == []
    assert "below min_cosine 1" in err
    assert real.verdict("nn_xo")["verified"] is False
    real.edit("min_cosine: 1.0", "min_cosine: 0.98")
    assert real.run("verify:nn_xo")[0] == []
    assert real.verdict("nn_xo")["verified"] is True


def a_real_change_of_the_method(real: Real) -> None:
    real.edit("calibrate: {samples: 20}", "calibrate: {samples: 20, method: mse}")
    computed, err = real.run("verify:nn_xo")
    assert computed in (["kmodel:nn_xo"], ["kmodel:nn_xo", "verify:nn_xo"])
    assert "kmodel:nn_xo: method: no_clip → l2" in err


def real_results_come_back_from_the_store(real: Real) -> None:
    kept = (real.root / "workspace/digits.kmodel").read_bytes()
    shutil.rmtree(real.root / "build")
    for path in (real.root / "workspace").glob("*.[tk]*"):
        path.unlink()
    assert real.run()[0] == []
    assert (real.root / "workspace/digits.kmodel").read_bytes() == kept


def test_the_real_chain(tmp_path: Path) -> None:
    """One project, built once; each part starts where the one before it ended."""
    real = project(tmp_path)
    doit_alone_ends_with_verified_models(real)
    nothing_is_done_twice(real)
    a_real_threshold(real)
    a_real_change_of_the_method(real)
    real_results_come_back_from_the_store(real)


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["serial", "parallel"])
def test_no_worker_outlives_a_killed_doit(tmp_path: Path, args: tuple[str, ...]) -> None:
    process = project(tmp_path).popen(*args)
    end = time.monotonic() + 60
    workers: list[int] = []
    while not workers and time.monotonic() < end and process.poll() is None:
        workers = [p for p, what in descendants(process.pid).items() if "_worker.py" in what]
        time.sleep(0.05)
    assert workers
    family = [process.pid, *descendants(process.pid)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    end = time.monotonic() + 10
    while (left := [pid for pid in family if running(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    written = [p.name for p in (tmp_path / "workspace").iterdir()]
    assert not [name for name in written if name.startswith(".")]
