"""The plans of a manifest: what each step reads, writes and is known by."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from k210tasks.engine.decide import key_of
from k210tasks.engine.plan import FileInput, SamplesInput, StepPlan, TreeInput
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.manifest.model import Calibrate, Manifest, Model, Verify
from k210tasks.samples.preprocess import Preprocess
from k210tasks.steps.chain import chain_of, model_plans
from k210tasks.steps.versions import VERSIONS

MODEL = Model(
    name="m",
    source="src/m.pb",
    source_kind="pb",
    compiler="nncase-1.9.0",
    firmware="canmv-kpu5",
    kmodel=5,
    images="images/m",
    verify=Verify(images="images/v"),
)


def plans(model: Model = MODEL, **changes: object) -> dict[str, StepPlan]:
    return {p.step: p for p in model_plans(dataclasses.replace(model, **changes))}  # type: ignore[arg-type]


def changed(**changes: object) -> list[str]:
    """The steps whose key a change of the model alone changes (inputs' contents apart)."""
    before, after = plans(), plans(**changes)
    return [
        step
        for step in before
        if step not in after or known_by(before[step]) != known_by(after[step])
    ]


def known_by(plan: StepPlan) -> str:
    inputs = {role: {"files": {"": ["0" * 64, []]}} for role in plan.inputs}
    pins = {tool: {"name": tool} for tool in plan.tools}
    return key_of(plan, inputs, pins, dict.fromkeys(plan.libraries, "1"))


def test_the_files_of_the_chain() -> None:
    found = plans()
    assert list(found) == ["convert", "calibrate", "kmodel", "verify"]
    assert found["convert"].outputs == {"tflite": "workspace/m.tflite"}
    assert found["calibrate"].outputs == {
        "calibration": "build/m/calibration.npz",
        "seen": "build/m/calibration.json",
    }
    assert found["kmodel"].outputs == {
        "kmodel": "workspace/m.kmodel",
        "layers": "build/m/layers.json",
        "listing": "build/m/listing.txt",
        "contract": "build/m/contract.json",
    }
    assert found["verify"].judge is not None
    assert found["verify"].judge.outputs == {"verify": "build/m/verify.json"}
    assert found["kmodel"].log == "build/m/kmodel.log"
    assert found["calibrate"].inputs["images"] == SamplesInput("images/m", 100)
    assert found["verify"].inputs["images"] == SamplesInput("images/v", None)


def test_every_plan_can_be_pickled_and_is_json() -> None:
    for compiler in COMPILERS.values():
        for plan in plans(compiler=compiler.name, kmodel=compiler.kmodels[0]).values():
            assert pickle.loads(pickle.dumps(plan)) == plan
            assert json.loads(json.dumps(dict(plan.settings))) == plan.settings
            if plan.judge is not None:
                assert json.loads(json.dumps(dict(plan.judge.settings))) == plan.judge.settings


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"outputs": ("out",)}, ["convert"]),
        ({"inputs": (("in", (1, 2, 2, 1)),)}, ["convert"]),
        ({"preprocess": Preprocess(mean=0.5)}, ["calibrate", "kmodel", "verify"]),
        ({"preprocess": Preprocess(resize="exact")}, ["calibrate", "kmodel", "verify"]),
        # Stating the defaults changes the contract only.
        ({"preprocess": Preprocess(mean=0.0, std=1.0)}, ["kmodel"]),
        ({"calibrate": Calibrate(method="kl")}, ["kmodel"]),
        ({"calibrate": Calibrate(samples=5)}, ["calibrate"]),
        ({"labels": ("a", "b")}, ["kmodel", "verify"]),
        ({"verify": Verify(images="images/v", min_cosine=0.5, min_top1=0.9)}, []),
        ({"sram_free": 1000}, []),
        ({"optional": True}, []),
        ({"made_by": ("draw",)}, []),
        ({"line": 7}, []),
        (
            {"effort": "high", "weights": 16, "small_maps": "kpu"},
            [],
        ),  # the built-in compiler's alone
        ({"compiler": "ncc-0.2.0-beta4", "kmodel": 4}, ["kmodel", "verify"]),
        ({"compiler": "builtin", "kmodel": 4}, ["calibrate", "kmodel", "verify"]),
    ],
)
def test_what_a_setting_belongs_to(changes: dict[str, object], steps: list[str]) -> None:
    assert changed(**changes) == steps


def test_small_maps_are_a_setting_of_the_kmodel_alone() -> None:
    padded, kpu = (plans(compiler="builtin", kmodel=4, small_maps=m) for m in ("padded", "kpu"))
    assert {step for step in padded if padded[step] != kpu[step]} == {"kmodel"}
    assert kpu["kmodel"].settings["small_maps"] == "kpu"


def test_names_of_single_files_do_not_count() -> None:
    assert changed(source="elsewhere/other.pb") == []


def test_forms_of_a_source() -> None:
    assert plans(source_kind="savedmodel")["convert"].inputs["source"] == TreeInput("src/m.pb")
    in_place = plans(source="src/m.tflite", source_kind="tflite")
    assert list(in_place) == ["calibrate", "kmodel", "verify"]
    assert in_place["kmodel"].inputs["tflite"] == FileInput("src/m.tflite")
    assert in_place["calibrate"].after == ()


def test_without_images_nothing_is_calibrated() -> None:
    found = plans(images=None, verify=None, compiler="builtin", kmodel=3)
    assert list(found) == ["convert", "kmodel", "verify"]
    assert "calibration" not in found["kmodel"].inputs
    assert found["verify"].run is None


def test_the_calibration_images_stand_in_for_verification() -> None:
    verify = plans(verify=Verify())["verify"]
    assert verify.inputs["images"] == SamplesInput("images/m", 100)


def test_tools() -> None:
    assert plans()["convert"].tools == ("tensorflow",)
    assert plans()["verify"].tools == ("nncase-1.9.0",)
    ours = plans(compiler="ncc-0.2.0-beta4", kmodel=4)
    assert ours["kmodel"].tools == ("ncc-0.2.0-beta4",)
    assert ours["verify"].tools == ()


def test_every_version_is_in_the_table_once_used() -> None:
    for compiler in COMPILERS.values():
        assert f"kmodel:{compiler.name}" in VERSIONS


def test_the_prefix_is_in_the_names_of_tasks_only() -> None:
    chain = chain_of(Manifest("models.yaml", (MODEL,)), "my-")
    plan = chain.models["m"][1]
    assert plan.task == "my-calibrate:m"
    assert plan.id == "calibrate:m"
    assert plan.after == ("my-convert:m",)
