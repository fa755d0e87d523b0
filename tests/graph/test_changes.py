"""One change at a time: exactly what is computed again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.graph.conftest import Toy

ONE = ["calibrate:one", "convert:one", "kmodel:one", "verify:one"]


@pytest.fixture
def built(toy: Toy) -> Toy:
    assert toy.run() == sorted([*ONE, *(t.replace("one", "two") for t in ONE)])
    return toy


def rewrite_keeping_times(path: Path, text: str) -> None:
    """Other content of equal size and equal mtime."""
    before = path.stat()
    assert len(text.encode()) == before.st_size
    time.sleep(0.02)
    path.write_text(text, "utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_changed(built: Toy) -> None:
    assert built.run() == []
    lines = built.last.stdout.splitlines()
    assert all(line.startswith("-- ") for line in lines)
    assert len(lines) == 9  # the report too
    assert built.last.stderr == ""


def test_a_sampled_calibration_image(built: Toy) -> None:
    # 4 of 8, evenly spaced: 1, 3, 5, 7
    built.write("images/one/calibration/3.png", "another picture")
    assert built.run() == ["calibrate:one", "kmodel:one", "verify:one"]
    assert "calibrate:one: images/one/calibration/3.png (images) has other content: " in (
        built.last.stderr
    )


def test_verify_stays_when_the_bytes_of_the_kmodel_stay(toy: Toy) -> None:
    toy.wish(one_kmodel={"coarse": "always these bytes"})
    toy.run()
    toy.write("images/one/calibration/3.png", "another picture")
    assert toy.run() == ["calibrate:one", "kmodel:one"]


@pytest.mark.parametrize("how", ["content", "added", "removed", "renamed"])
def test_a_verification_image(built: Toy, how: str) -> None:
    folder = built.root / "images/one/verification/a"
    if how == "content":
        (folder / "0.png").write_text("another picture")
    elif how == "added":
        (folder / "9.png").write_text("one more")
    elif how == "removed":
        (folder / "0.png").unlink()
    else:
        (folder / "0.png").rename(folder / "00.png")
    assert built.run() == ["verify:one"]


def test_a_calibration_image_outside_of_the_sample(built: Toy) -> None:
    built.write("images/one/calibration/2.png", "another picture")
    assert built.run() == []


def test_mean(built: Toy) -> None:
    built.edit("mean: 0.0", "mean: 0.5")
    assert built.run() == ["calibrate:one", "kmodel:one", "verify:one"]
    assert "kmodel:one: preprocess.mean: 0.0 → 0.5; build/one/calibration.npz" in (
        built.last.stderr
    )


def test_method(built: Toy) -> None:
    built.edit("method: minmax", "method: kl")
    assert built.run() == ["kmodel:one", "verify:one"]
    assert "kmodel:one: method: no_clip → kld_m2" in built.last.stderr


def test_method_with_equal_bytes(toy: Toy) -> None:
    toy.wish(one_kmodel={"coarse": "always these bytes"})
    toy.run()
    toy.edit("method: minmax", "method: kl")
    assert toy.run() == ["kmodel:one"]


def test_a_threshold(built: Toy) -> None:
    lines = len(built.history())
    built.edit("min_cosine: 0.98", "min_cosine: 0.995")
    assert built.run(status=1) == []
    assert built.did("judged", lines) == ["verify:one"]
    assert json.loads(built.read("build/one/verify.json"))["verified"] is False
    built.edit("min_cosine: 0.995", "min_cosine: 0.9")
    assert built.run() == []
    assert json.loads(built.read("build/one/verify.json"))["verified"] is True


def test_nothing_that_matters(built: Toy) -> None:
    text = built.read("models.yaml")
    built.write("models.yaml", "# a comment\n" + text)
    assert built.run() == []
    swapped = text.replace(
        "    compiler: nncase-1.9.0\n    firmware: canmv-kpu5\n",
        "    firmware: canmv-kpu5\n    compiler: nncase-1.9.0\n",
    )
    assert swapped != text
    built.write("models.yaml", swapped)
    assert built.run() == []
    for path in built.root.rglob("*.*"):
        if ".k210" not in path.parts and path.is_file():
            os.utime(path)
    assert built.run() == []
    for folder in ("src", "images", "workspace", "build"):
        shutil.copytree(built.root / folder, built.root / "copy")
        shutil.rmtree(built.root / folder)
        (built.root / "copy").rename(built.root / folder)
    assert built.run() == []
    # Touched files are read once, not on every run: the stamps are up to date again.
    assert built.run() == []
    assert all(line.startswith("-- ") for line in built.last.stdout.splitlines())


def test_another_source_of_equal_size_and_mtime(built: Toy) -> None:
    rewrite_keeping_times(built.root / "src/one.pb", "graph of ONE\n")
    assert built.run() == ONE
    assert "convert:one: src/one.pb (source) has other content: " in built.last.stderr


def test_an_image_of_equal_size_and_mtime(built: Toy) -> None:
    rewrite_keeping_times(built.root / "images/one/calibration/3.png", "one calibration X")
    assert built.run() == ["calibrate:one", "kmodel:one", "verify:one"]


def test_another_graph_that_converts_to_the_same(built: Toy) -> None:
    built.write("src/one.pb", "# a new comment\ngraph of one\n")
    assert built.run() == ["convert:one"]


def test_another_compiler(built: Toy) -> None:
    built.edit(
        "compiler: nncase-1.9.0\n    firmware: canmv-kpu5",
        "compiler: ncc-0.2.0-beta4\n    firmware: maixpy",
    )
    assert built.run() == ["kmodel:one", "verify:one"]
    assert "kmodel:one: compiler: nncase-1.9.0 → ncc-0.2.0-beta4" in built.last.stderr


def test_another_family_of_compilers(built: Toy) -> None:
    built.edit(
        "compiler: nncase-1.9.0\n    firmware: canmv-kpu5",
        "compiler: builtin\n    firmware: maixpy",
    )
    assert built.run() == ["calibrate:one", "kmodel:one", "verify:one"]


def test_one_model_of_two(built: Toy) -> None:
    built.write("src/two.pb", "a new graph of two\n")
    assert built.run() == [t.replace("one", "two") for t in ONE]


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("workspace/one.tflite", "convert:one"),
        ("workspace/one.kmodel", "kmodel:one"),
        ("build/one/contract.json", "kmodel:one"),
        ("build/one/measurement.json", "verify:one"),
    ],
)
def test_a_target_overwritten_by_hand(built: Toy, path: str, task: str) -> None:
    good, lines = built.read(path), len(built.history())
    built.write(path, "scribbled")
    assert built.run() == []
    assert built.read(path) == good
    assert built.did("restored", lines) == [task]
    assert f"{task}: restored from the store ({path} is not what the step wrote: " in (
        built.last.stderr
    )


def test_a_target_removed(built: Toy) -> None:
    good = built.read("workspace/one.kmodel")
    (built.root / "workspace/one.kmodel").unlink()
    assert built.run() == []
    assert built.read("workspace/one.kmodel") == good
    assert "restored from the store (workspace/one.kmodel is missing)" in built.last.stderr


def test_a_verdict_overwritten_by_hand(built: Toy) -> None:
    good, lines = built.read("build/one/verify.json"), len(built.history())
    built.write("build/one/verify.json", '{"verified": true}')
    assert built.run() == []
    assert built.read("build/one/verify.json") == good
    assert built.did("judged", lines) == ["verify:one"]


def test_the_store_deleted(built: Toy) -> None:
    shutil.rmtree(built.root / ".k210/store")
    assert built.run() == []
    assert all(line.startswith("-- ") for line in built.last.stdout.splitlines())


def test_the_store_and_a_target_deleted(built: Toy) -> None:
    shutil.rmtree(built.root / ".k210/store")
    (built.root / "workspace/one.kmodel").unlink()
    assert built.run() == ["kmodel:one"]


def test_the_records_deleted(built: Toy) -> None:
    shutil.rmtree(built.root / ".k210/state")
    (built.root / ".k210/doit.json").unlink()
    assert built.run() == []
    assert len(built.did("restored")) == 8


def test_everything_but_the_store_deleted(built: Toy) -> None:
    before = {path: built.read(path) for path in built.files() if path.startswith("workspace/")}
    for folder in ("workspace", "build", ".k210/state", ".k210/stamps"):
        shutil.rmtree(built.root / folder)
    assert built.run() == []
    assert {path: built.read(path) for path in before} == before


def test_back_to_an_earlier_setting(built: Toy) -> None:
    built.edit("mean: 0.0", "mean: 0.5")
    assert built.run() == ["calibrate:one", "kmodel:one", "verify:one"]
    built.edit("mean: 0.5", "mean: 0.0")
    lines = len(built.history())
    assert built.run() == []
    assert built.did("restored", lines) == ["calibrate:one", "kmodel:one", "verify:one"]


def test_a_moved_project(built: Toy, tmp_path: Path) -> None:
    moved = tmp_path.parent / (tmp_path.name + "-moved")
    shutil.copytree(built.root, moved)
    built.root = moved
    assert built.run() == []
    assert built.did("restored") == []


def test_without_a_store(toy: Toy) -> None:
    first = toy.run(K210_STORE="off")
    assert len(first) == 8
    assert not (toy.root / ".k210/store").exists()
    assert toy.run(K210_STORE="off") == []
    toy.edit("min_cosine: 0.98", "min_cosine: 0.5")
    assert toy.run(K210_STORE="off") == []
    toy.write("workspace/one.kmodel", "scribbled")
    assert toy.run(K210_STORE="off") == ["kmodel:one"]


def test_a_store_elsewhere_serves_two_projects(toy: Toy, tmp_path: Path) -> None:
    store = str(tmp_path / "shared")
    assert len(toy.run(K210_STORE=store)) == 8
    other = Toy(tmp_path / "other")
    assert other.run(K210_STORE=store) == []
    assert len(other.did("restored")) == 8
    assert other.read("workspace/one.kmodel") == toy.read("workspace/one.kmodel")
