"""The plans of vectors and images, from models.yaml."""

from __future__ import annotations

from k210tasks.engine.plan import FileInput, SamplesInput
from k210tasks.manifest.model import Firmware, Manifest, Model, Part, Verify
from k210tasks.steps.chain import chain_of

MODELS = (
    Model("a", "a.tflite", "tflite", "builtin", "maixpy", 3, images="i", verify=Verify("v")),
    Model("b", "b.tflite", "tflite", "builtin", "maixpy", 3, images="i", verify=None, sram_free=9),
    Model("c", "c.tflite", "tflite", "nncase-1.9.0", "sdk-develop", 5, optional=True),
)
IMAGES = (
    Firmware(
        "one",
        "maixpy",
        (
            Part(bin="fw.bin", address=0, made_by=("make",)),
            Part(model="a", address=0x400000),
            Part(model="b"),
        ),
    ),
    Firmware("two", "sdk-develop", (Part(model="c"),)),
)
PLANS = {p.task: p for p in chain_of(Manifest("models.yaml", MODELS, IMAGES), "x-").beyond}


def test_vectors_know_where_the_model_will_lie() -> None:
    addresses = {n: PLANS[f"x-vectors:{n}"].settings["address"] for n in "abc"}
    assert addresses == {"a": 0x400000, "b": 0x300000, "c": 0xA00000}


def test_vectors_take_verify_images_else_the_calibration_images() -> None:
    images = {n: PLANS[f"x-vectors:{n}"].inputs.get("images") for n in "abc"}
    assert images == {"a": SamplesInput("v", 3), "b": SamplesInput("i", 3), "c": None}


def test_only_kmodel_5_needs_a_toolchain_for_its_vectors() -> None:
    tools = {n: PLANS[f"x-vectors:{n}"].tools for n in "abc"}
    assert tools == {"a": (), "b": (), "c": ("nncase-1.9.0",)}
    assert PLANS["x-vectors:c"].optional


def test_an_image_waits_for_each_verdict_and_for_the_users_tasks() -> None:
    one = PLANS["x-firmware:one"]
    assert one.after == ("x-verify:a", "x-verify:b")
    assert one.made_by == ("make",)
    assert not one.optional
    assert one.inputs == {
        "part0": FileInput("fw.bin"),
        "part1": FileInput("workspace/a.kmodel"),
        "contract1": FileInput("build/a/contract.json"),
        "part2": FileInput("workspace/b.kmodel"),
        "contract2": FileInput("build/b/contract.json"),
    }
    assert one.outputs == {"kfpkg": "build/one.kfpkg", "load": "build/one.firmware/load.py"}
    assert one.judge is not None
    assert one.judge.settings == {
        "profile": "maixpy",
        "unverified": ["b"],
        "sram_free": {"a": None, "b": 9},
    }
    assert PLANS["x-firmware:two"].outputs["load"] == "build/two.firmware/load.c"
    assert PLANS["x-firmware:two"].optional
