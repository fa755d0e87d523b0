"""The committed examples: their files, and that the whole chain proves them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from k210tasks import toolchains
from k210tasks.engine.job import Folder, Job
from k210tasks.engine.plan import FileInput, SamplesInput, StepPlan
from k210tasks.manifest import load
from k210tasks.manifest.model import Model
from k210tasks.samples.folder import evenly_spaced, scan
from k210tasks.steps import calibrate, convert, judge, kmodel, verify
from k210tasks.steps.chain import model_plans

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("digits", "nn_xo", "signs")


def models() -> dict[str, Model]:
    return {m.name: m for m in load(ROOT / "models.yaml").models}


def test_models_yaml_lists_them_all() -> None:
    found = models()
    names = ("nn_xo", "digits", "digits_nncase", "signs")
    assert [found[name].kmodel for name in names] == [3, 3, 5, 3]
    assert all(m.preprocess.stated and m.verify is not None for m in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_calibration_and_verification_share_no_picture(name: str) -> None:
    hashes = {
        kind: {
            hashlib.sha256((ROOT / "images" / name / kind / f).read_bytes()).hexdigest()
            for f in scan(ROOT / "images" / name / kind).files
        }
        for kind in ("calibration", "verification")
    }
    assert len(hashes["calibration"]) == 100
    assert len(hashes["verification"]) >= 100
    assert not hashes["calibration"] & hashes["verification"]


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_files_are_small(name: str) -> None:
    assert (ROOT / models()[name].source).stat().st_size < 1_000_000
    pictures = list((ROOT / "images" / name).rglob("*.png"))
    assert sum(p.stat().st_size for p in pictures) < 700_000


class Chain:
    """Carries out a model's plans in a folder, without store and state."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def path(self, shown: str) -> Path:
        mine = self.place / shown
        return mine if mine.exists() or not (ROOT / shown).exists() else ROOT / shown

    def job(self, plan: StepPlan, settings: Any, outputs: Any) -> Job:
        inputs: dict[str, Path | Folder] = {}
        for role, source in plan.inputs.items():
            if isinstance(source, SamplesInput):
                files = scan(ROOT / source.path).files
                chosen = files if source.count is None else evenly_spaced(files, source.count)
                inputs[role] = Folder(ROOT / source.path, chosen)
            else:
                assert isinstance(source, FileInput)
                inputs[role] = self.path(source.path)
        made = {role: self.place / shown for role, shown in outputs.items()}
        for path in made.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        return Job(plan.task, plan.subject, settings, inputs, made, io.StringIO(), Path(plan.log))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("nn_xo", 3),
        ("nn_xo", 4),
        ("digits", 3),
        ("digits", 4),
        ("digits_nncase", 5),
        ("signs", 3),
        ("signs", 4),
    ],
)
def test_the_chain_proves_them(name: str, version: int, tmp_path: Path) -> None:
    model = dataclasses.replace(models()[name], kmodel=version)
    plans = list(model_plans(model))
    for tool in {tool for plan in plans for tool in plan.tools}:
        if not toolchains.get(tool).installed():
            pytest.skip(f"the toolchain {tool} is not installed")
    chain = Chain(tmp_path)
    bodies = {"convert": convert, "calibrate": calibrate, "kmodel": kmodel, "verify": verify}
    for plan in plans:
        bodies[plan.step].run(chain.job(plan, plan.settings, plan.outputs))
    last = plans[-1]
    assert last.judge is not None
    job = chain.job(last, last.judge.settings, last.judge.outputs)
    inputs = {**job.inputs, "measurement": tmp_path / last.outputs["measurement"]}
    verdict = judge.run(
        Job(job.name, name, job.settings, inputs, job.outputs, job.log, job.log_path)
    )
    assert verdict.ok, verdict.message
    found = json.loads((tmp_path / last.judge.outputs["verify"]).read_text())
    assert found["verified"] is True
    assert found["held_out"] is True
    assert found["accuracy"]["float"] >= 0.97
    assert found["outputs"][0]["top1_agreement"] >= 0.98
