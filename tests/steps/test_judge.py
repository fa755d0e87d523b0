"""Judging: the literal text of every verdict, and that none of it needs numpy."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k210tasks.artifacts.doubts import (
    ChanceLevel,
    ClassesMisfit,
    Copies,
    Hint,
    LabelsMisfit,
    NotHeldOut,
    Unstated,
)
from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import Measurement
from k210tasks.artifacts.verification import Thresholds
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.firmware.sram import fit
from k210tasks.jsondata import plain, pretty, read
from k210tasks.profiles import PROFILES
from k210tasks.steps import judge as module
from k210tasks.steps.judge import Facts, Judgement, fixed, judge, percent
from tests.steps.jobs import job

STRICT = Thresholds(0.98, 0.98)
HOST = {"name": "host", "title": "the host build", "recorded": True}


def image(file: str, cosine: float | None, pick: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    return {
        "file": file,
        "class": file.split("/")[0],
        "cosine": [cosine],
        "max_abs_error": [0.1],
        "top1": [list(pick)],
    }


def measured(**changes: Any) -> dict[str, Any]:
    output = {
        "name": "scores",
        "shape": [1, 2],
        "cosine_mean": 0.9993,
        "cosine_min": 0.91,
        "cosine_min_file": "cross/7.png",
        "snr_db": 33.26,
        "max_abs_error": 0.2,
        "max_abs_error_file": "cross/7.png",
        "top1_agreement": 0.995,
        "non_finite": 0,
        "non_finite_file": None,
    }
    result: dict[str, Any] = {
        "kmodel": 4,
        "samples": 200,
        "outputs": [output | {k: v for k, v in changes.items() if k in output}],
        "images": [image("cross/7.png", 0.91, (1, 0)), image("circle/1.png", 0.99)],
        "folder": "images/xo",
        "kind": "images",
        "engine": "simulator",
        "runtime": HOST,
        "held_out": True,
        "shared": 0,
        "copies": 0,
        "doubts": [],
        "accuracy": None,
        "layers": [],
    }
    return result | {k: v for k, v in changes.items() if k not in output}


def accuracy(float_model: float, kmodel: float) -> dict[str, Any]:
    return {
        "float": float_model,
        "kmodel": kmodel,
        "classes": 2,
        "labels": ["circle", "cross"],
        "output": "scores",
    }


def form(measurement: dict[str, Any]) -> Measurement:
    return read(Measurement, measurement)


def of(**changes: Any) -> Judgement:
    return judge(form(measured(**changes)), STRICT, Facts())


def test_good() -> None:
    found = of(accuracy=accuracy(0.995, 0.99))
    assert found == Judgement(
        True,
        "cosine 0.9993, SNR 33.3 dB, top-1 agreement 99.5 %, 200 images; "
        "accuracy: float 99.5 %, kmodel 99 %; held out, runtime host",
    )
    assert found.message("   verify:xo: ") == (
        "cosine 0.9993, SNR 33.3 dB, top-1 agreement 99.5 %, 200 images;\n"
        "        accuracy: float 99.5 %, kmodel 99 %; held out, runtime host"
    )


def test_low_cosine_names_the_worst_image() -> None:
    found = of(cosine_mean=0.97996)
    assert found.verified is False
    assert found.failures == (
        "output scores: mean cosine 0.9799 is below min_cosine 0.98; "
        "worst image images/xo/cross/7.png (cosine 0.9100)",
    )
    assert found.message("   verify:xo: ") == (
        "output scores: mean cosine 0.9799 is below min_cosine 0.98; worst\n"
        "        image images/xo/cross/7.png (cosine 0.9100)\n"
        "      cosine 0.9799, SNR 33.3 dB, top-1 agreement 99.5 %, 200 images; held out,\n"
        "        runtime host"
    )


def test_low_cosine_names_the_weakest_layer() -> None:
    layers = [
        {
            "index": 2,
            "name": "K210Conv2d",
            "source": ["CONV_2D #1"],
            "snr_db": 31.0,
            "cosine_mean": 1.0,
        },
        {
            "index": 4,
            "name": "K210Conv2d",
            "source": ["CONV_2D #3"],
            "snr_db": 4.25,
            "cosine_mean": 0.7,
        },
    ]
    assert (
        of(cosine_mean=0.9, layers=layers)
        .failures[0]
        .endswith("(cosine 0.9100); weakest layer 4 K210Conv2d (CONV_2D #3): 4.2 dB")
    )


def test_the_worst_of_several_outputs_is_judged_and_named() -> None:
    two = measured(cosine_mean=0.5)
    two["outputs"].insert(0, measured()["outputs"][0] | {"name": "boxes", "top1_agreement": None})
    found = judge(form(two), Thresholds(0.98), Facts())
    assert found.headline.startswith("scores: cosine 0.5000, ")
    assert found.failures[0].startswith("output scores: mean cosine 0.5000 is below min_cosine")


def test_low_top1() -> None:
    assert of(top1_agreement=0.975).failures == (
        "output scores: float model and kmodel agree on the class of 97.5 % of the images, "
        "min_top1 is 98 %; worst image that differs images/xo/cross/7.png",
    )


def test_top1_without_scores() -> None:
    assert of(top1_agreement=None).failures == (
        "min_top1 0.98 is asked for, but no output is a row of class scores; leave min_top1 out",
    )


def test_non_finite_fails_whatever_the_cosine() -> None:
    assert of(non_finite=3, non_finite_file="cross/9.png").failures == (
        "output scores is infinite or not a number for 3 of 200 images, "
        "first images/xo/cross/9.png",
    )


def test_all_non_finite() -> None:
    found = of(
        non_finite=200, non_finite_file="a.png", cosine_mean=0.0, cosine_min_file=None,
        top1_agreement=1.0,
    )  # fmt: skip
    assert len(found.failures) == 1


def test_few_images_and_not_held_out() -> None:
    found = of(samples=4, held_out=False, shared=4)
    assert found.verified is True
    assert found.headline.endswith("4 images; not held out, runtime host")
    assert found.warnings == (
        "only 4 images: too few to prove much, 10 are the least",
        "not held out: measured on the calibration images; name others under verify.images",
    )
    assert "only 1 image: too few" in of(samples=1).warnings[0]


def test_what_another_step_found_is_said_too() -> None:
    hint = Hint(0.11, 0.97, mean=0.0, std=1 / 255)
    found = of(accuracy=accuracy(0.11, 0.11), doubts=plain([hint]))
    assert found.warnings == ("accuracy 11 %; with mean 0 std 1/255: 97 %",)
    assert found.doubts == (hint,)
    found = judge(form(measured()), STRICT, Facts((Unstated(),)))
    assert found.verified is True
    assert found.message("   verify:xo: ") == (
        "cosine 0.9993, SNR 33.3 dB, top-1 agreement 99.5 %, 200 images;\n"
        "        held out, runtime host\n"
        "      warning: mean and std are not stated, 0 and 1 are used: the commonest\n"
        "        fault is a wrong pair; state preprocess.mean and preprocess.std"
    )


def test_what_was_simulated_is_named() -> None:
    arduino = {"name": "maixduino", "title": "Maixduino", "recorded": False}
    assert of(runtime=arduino).headline.endswith("; held out, runtime maixduino (not recorded)")
    # A vendor's own simulator is no board's runtime.
    vendor = of(runtime=None, engine="nncase-1.9.0")
    assert vendor.headline.endswith("; held out, runtime nncase-1.9.0")


def test_labels_that_do_not_fit_are_said_once() -> None:
    misfit = LabelsMisfit(("a", "b"), "scores", 3)
    found = judge(form(measured(doubts=plain([ClassesMisfit(2, (3,))]))), STRICT, Facts((misfit,)))
    assert found.doubts == (misfit,)


def test_samples_that_are_not_held_out_or_count_twice() -> None:
    found = of(held_out=False, shared=12, copies=3)
    assert found.headline.endswith("200 images; not held out, runtime host")
    assert found.doubts == (Copies("image", 3, 200), NotHeldOut("image", 12, 200))
    unknown = of(held_out=None, shared=None)
    assert unknown.headline.endswith("; held out or not is not known, runtime host")
    assert unknown.doubts == ()


def answered(*counts: tuple[str, int, int]) -> dict[str, Any]:
    """A measurement of ``n`` samples of class ``name`` that the float model gives ``pick``."""
    images = [
        image(f"{name}/{i}.png", 1.0, (pick, pick)) for name, pick, n in counts for i in range(n)
    ]
    labels = sorted({"a", "b", *(name for name, _, _ in counts)})
    right = sum(n for name, pick, n in counts if labels[pick] == name)
    share = right / len(images)
    return measured(
        images=images,
        samples=len(images),
        accuracy=accuracy(share, share) | {"labels": labels, "classes": len(labels)},
        top1_agreement=1.0,
    )


@pytest.mark.parametrize(
    ("counts", "chance"),
    [
        ([("a", 0, 16), ("a", 1, 14), ("b", 0, 15), ("b", 1, 15)], True),
        ([("a", 0, 90), ("b", 0, 10)], True),  # always the same answer, right on 90 %
        ([("a", 0, 85), ("a", 1, 5), ("b", 0, 2), ("b", 1, 8)], False),
        ([("a", 1, 30), ("b", 0, 30)], True),  # always wrong
        ([("a", 0, 25), ("a", 1, 5), ("b", 0, 5), ("b", 1, 25)], False),
        ([("a", 0, 3), ("a", 1, 1), ("b", 0, 1), ("b", 1, 3)], True),  # too few to tell
        ([("a", 0, 10), ("b", 1, 10)], False),
        ([("a", 0, 1), ("b", 1, 1)], False),  # no mistake: only few
        ([("a", 0, 16), ("a", 1, 14)], True),  # one class
        ([("a", 0, 28), ("a", 1, 2)], False),
    ],
)
def test_an_accuracy_no_better_than_chance(counts: list[Any], chance: bool) -> None:
    found = judge(form(answered(*counts)), Thresholds(0.9), Facts())
    assert found.verified is True
    assert any(isinstance(d, ChanceLevel) for d in found.doubts) == chance


def test_sram() -> None:
    small = fit("xo", 9_000_000, 5, PROFILES["maixpy"])
    found = judge(form(measured()), STRICT, Facts(fit=small))
    assert found.verified is False
    assert found.failures[0].startswith(
        "model xo needs 9000005 bytes of SRAM (file 9000000, working memory 5); "
        "profile maixpy leaves 4374528, 4625477 too few"
    )
    # Where nobody knows what is free, only a model of a size that matters is doubted.
    doubted = judge(form(measured()), STRICT, Facts(fit=fit("xo", 4_000_000, 5, PROFILES["canmv"])))
    assert doubted.verified is True
    assert "is not known" in doubted.warnings[0]
    assert (
        judge(form(measured()), STRICT, Facts(fit=fit("xo", 9, 5, PROFILES["canmv"]))).warnings
        == ()
    )


def test_off() -> None:
    found = judge(None, None, Facts())
    assert (found.verified, found.message()) == ("off", "not verified (verify: off)")


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.9999, "99.9 %"), (0.97, "97 %"), (0.975, "97.5 %"), (0, "0 %")],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0000"), (0.99999999, "1.0000"), (0.99996, "0.9999"), (0.9799999, "0.9799"),
     (-0.25, "-0.2500")],
)  # fmt: skip
def test_fixed(value: float, text: str) -> None:
    assert fixed(value) == text


MADE = LayerTable(
    compiler="c", kmodel=5, bytes=9, kpu_bytes=None, main_bytes=None, doubts=(Unstated(),)
)


def run(tmp_path: Path, measurement: dict[str, Any] | None, **changes: Any) -> tuple[Any, Any]:
    contract = Contract("xo", 5, "canmv-kpu5", Input((1, 28, 28)), (Output("s", (2,)),), nbytes=9)
    (tmp_path / "contract.json").write_text(contract.to_json())
    (tmp_path / "layers.json").write_text(pretty(MADE))
    inputs = {name: tmp_path / f"{name}.json" for name in ("contract", "layers")}
    if measurement is not None:
        (tmp_path / "measurement.json").write_text(json.dumps(measurement))
        inputs["measurement"] = tmp_path / "measurement.json"
    settings = {
        "verify": "on", "min_cosine": 0.98, "min_top1": None,
        "firmware": "canmv-kpu5", "kmodel": 5, "sram_free": None,
    }  # fmt: skip
    out = tmp_path / "verify.json"
    verdict = module.run(
        job("verify", "xo", io.StringIO(), inputs, {"verify": out}, settings | changes)
    )
    return verdict, json.loads(out.read_text())


def test_verify_json_is_written_also_when_it_fails(tmp_path: Path) -> None:
    verdict, written = run(tmp_path, measured(cosine_mean=0.5))
    assert not verdict.ok
    assert verdict.message.startswith("output scores: mean cosine 0.5000 is below min_cosine")
    assert written["verified"] is False
    assert written["thresholds"] == {"min_cosine": 0.98, "min_top1": None}
    assert written["images"] == measured()["images"]
    assert written["sram"]["fits"] is True
    assert written["doubts"] == [{"kind": "unstated"}]
    assert written["warnings"][0].startswith("mean and std are not stated")


def test_off_is_no_failure(tmp_path: Path) -> None:
    verdict, written = run(tmp_path, None, verify="off")
    assert verdict.ok
    assert written["verified"] == "off"
    assert written["doubts"] == [{"kind": "unstated"}]


def test_the_users_sram_free_counts(tmp_path: Path) -> None:
    verdict, written = run(tmp_path, measured(), sram_free=5)
    assert not verdict.ok
    assert written["sram"]["fits"] is False


def test_judging_imports_no_numpy() -> None:
    code = "import sys, k210tasks.steps.judge; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
