"""``verify`` as a step: what it reads, logs and refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.engine.job import Folder, StepFailed
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.steps import verify
from k210tasks.steps.engines import NoSimulator
from tests.steps.jobs import folder, job

PLAIN = {"color": None, "mean": 0.0, "std": 1.0, "resize": "stretch"}


def run(tmp_path: Path, fixtures: Path, images: Folder, kmodel: int = 4) -> tuple[Any, str]:
    contract = Contract(
        "iris", kmodel, "maixpy", Input((4,), "flat", "float32"), (Output("output", (3,)),)
    )
    (tmp_path / "contract.json").write_text(contract.to_json())
    log = io.StringIO()
    verify.run(
        job(
            "verify",
            "iris",
            log,
            {
                "kmodel": fixtures / f"kmodel/v{kmodel}/iris.kmodel",
                "tflite": fixtures / "tflite/iris.tflite",
                "contract": tmp_path / "contract.json",
                "images": images,
            },
            {"measurement": tmp_path / "measurement.json"},
            {"kmodel": kmodel, "preprocess": PLAIN, "labels": None},
        )
    )
    return json.loads((tmp_path / "measurement.json").read_text()), log.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Folder:
    random = np.random.default_rng(4)
    for i, name in enumerate(("a", "b", "c") * 4):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "images" / name / f"{i}.npy", random.normal(size=4).astype(np.float32))
    return folder(tmp_path / "images")


@pytest.mark.parametrize("kmodel", [3, 4])
def test_real_kmodels_in_our_simulator(
    tmp_path: Path, fixtures: Path, images: Folder, kmodel: int
) -> None:
    found, log = run(tmp_path, fixtures, images, kmodel)
    assert (found["engine"], found["kmodel"], found["samples"]) == ("simulator", kmodel, 12)
    assert found["outputs"][0]["cosine_min"] > 0.99999
    assert found["outputs"][0]["top1_agreement"] == 1
    assert found["accuracy"]["float"] == found["accuracy"]["kmodel"]
    assert found["doubts"] == []
    assert (found["held_out"], found["shared"], found["runtime"]["name"]) == (None, None, "host")
    assert "12 samples, worst " in log
    assert "worst samples, by the cosine of their worst output:" in log


def test_no_sample(tmp_path: Path, fixtures: Path) -> None:
    with pytest.raises(StepFailed, match=r"images holds no sample to verify with$"):
        run(tmp_path, fixtures, Folder(tmp_path / "images", ()))


def test_a_version_nothing_here_runs() -> None:
    assert str(NoSimulator(6)) == (
        "kmodel 6 cannot be run here: kmodel 3 and 4 run in the project's own simulator, "
        "kmodel 5 in that of nncase-1.9.0"
    )
