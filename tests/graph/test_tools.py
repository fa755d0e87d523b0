"""Toolchains: fetched when something is really computed, and else left alone."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.graph.conftest import Toy

NCC_TWO = "compiler: nncase-1.9.0\n    firmware: canmv-kpu5\n    images: images/two"


class Tools:
    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        toy.env["TOY_TOOLS"] = "1"
        self.wish()

    def wish(self, **tools: dict[str, Any]) -> None:
        names = {"tensorflow": "tensorflow", "nncase": "nncase-1.9.0", "ncc": "ncc-0.2.0-beta4"}
        self.toy.write("tools.json", json.dumps({names[k]: v for k, v in tools.items()}))

    def installs(self) -> list[str]:
        path = self.toy.root / "installs.log"
        return path.read_text().splitlines() if path.exists() else []

    def remove(self) -> None:
        shutil.rmtree(self.toy.root / "tools")


@pytest.fixture
def tools(toy: Toy) -> Tools:
    return Tools(toy)


@pytest.mark.parametrize("args", [(), ("-n", "4")])
def test_fetched_once_when_needed(toy: Toy, tools: Tools, args: tuple[str, ...]) -> None:
    done = toy.doit(*args)
    assert sorted(tools.installs()) == ["nncase-1.9.0", "tensorflow"]
    assert ".  toolchain:tensorflow" in done.stdout
    assert "   fetching tensorflow\n" in done.stderr
    assert len(toy.computed()) == 8


def test_not_fetched_when_all_is_up_to_date(toy: Toy, tools: Tools) -> None:
    toy.doit()
    tools.remove()
    done = toy.doit()
    assert all(line.startswith("-- ") for line in done.stdout.splitlines())
    assert len(tools.installs()) == 2


def test_not_fetched_when_the_results_are_in_the_store(toy: Toy, tools: Tools) -> None:
    toy.doit()
    tools.remove()
    shutil.rmtree(toy.root / "workspace")
    done = toy.doit()
    assert len(tools.installs()) == 2
    assert toy.did("restored") == ["convert:one", "convert:two", "kmodel:one", "kmodel:two"]
    assert "-- toolchain:tensorflow" in done.stdout
    # One computes, the other is restored: fetched for the one.
    toy.write("src/one.pb", "a new graph\n")
    (toy.root / "workspace/two.tflite").unlink()
    toy.doit()
    assert tools.installs()[2:] == ["tensorflow", "nncase-1.9.0"]


def test_fetched_though_another_only_restores_first(toy: Toy, tools: Tools) -> None:
    toy.doit()
    tools.remove()
    (toy.root / "workspace/one.tflite").unlink()
    toy.write("src/two.pb", "a new graph\n")
    toy.doit("convert:*")
    assert tools.installs()[2:] == ["tensorflow"]
    assert toy.computed()[8:] == ["convert:two"]


def test_asked_for_by_name(toy: Toy, tools: Tools) -> None:
    toy.doit("toolchain:ncc-0.2.0-beta4")
    assert tools.installs() == ["ncc-0.2.0-beta4"]
    assert "-- toolchain:ncc-0.2.0-beta4" in toy.doit("toolchain:ncc-0.2.0-beta4").stdout


def test_clean_leaves_them(toy: Toy, tools: Tools) -> None:
    toy.doit()
    toy.doit("clean")
    toy.doit("clean", "toolchain")
    assert (toy.root / "tools/tensorflow").exists()


def test_a_failed_fetch_is_told_once_and_tried_once(toy: Toy, tools: Tools) -> None:
    tools.wish(nncase={"broken": "the server says no"})
    done = toy.doit(status=2)
    assert tools.installs() == ["tensorflow", "nncase-1.9.0"]
    assert done.stderr.count("!! toolchain:nncase-1.9.0: the server says no\n") == 1
    for m in ("one", "two"):
        assert (
            f"!! kmodel:{m}: needs the toolchain nncase-1.9.0, which could not be had "
            "(see toolchain:nncase-1.9.0)\n"
        ) in done.stderr
    tools.wish()
    toy.doit()
    assert len(toy.computed()) == 8


def test_an_optional_model_is_skipped(toy: Toy, tools: Tools) -> None:
    toy.edit(NCC_TWO, f"optional: true\n    {NCC_TWO}")
    toy.edit(
        "compiler: nncase-1.9.0\n    firmware: canmv-kpu5\n    images: images/one",
        "compiler: ncc-0.2.0-beta4\n    firmware: maixpy\n    images: images/one",
    )
    tools.wish(nncase={"unavailable": "no Python 3.10 here"})
    done = toy.doit()
    skipped = "   kmodel:two: skipped, it is optional: no Python 3.10 here\n"
    assert done.stderr.count(skipped) == 1
    assert "verify:two" not in done.stderr
    assert toy.did("skipped") == ["kmodel:two", "verify:two"]
    assert "kmodel:one" in toy.computed()
    assert "workspace/two.kmodel" not in toy.files()
    # Still so the next time, and made as soon as it can be.
    assert toy.doit().stderr.count(skipped) == 1
    tools.wish()
    toy.doit()
    assert toy.computed()[-2:] == ["kmodel:two", "verify:two"]
    done = toy.doit()
    assert all(line.startswith("-- ") for line in done.stdout.splitlines())


def test_an_old_kmodel_of_a_skipped_model_is_not_verified_as_if_new(toy: Toy, tools: Tools) -> None:
    toy.edit(NCC_TWO, f"optional: true\n    {NCC_TWO}")
    toy.doit()
    tools.wish(nncase={"unavailable": "no Python 3.10 here"})
    tools.remove()
    toy.write("images/two/calibration/3.png", "another picture")
    done = toy.doit("model:two")
    assert "kmodel:two: skipped, it is optional: no Python 3.10 here" in done.stderr
    assert toy.did("skipped") == ["kmodel:two", "verify:two"]
    tools.wish()
    toy.doit("model:two")
    assert toy.computed()[8:] == ["calibrate:two", "kmodel:two", "verify:two"]
    assert ".  kmodel:two" not in toy.doit("model:two").stdout


def test_optional_excuses_no_other_failure(toy: Toy, tools: Tools) -> None:
    toy.edit(NCC_TWO, f"optional: true\n    {NCC_TWO}")
    toy.wish(two_kmodel={"fail": "no room"})
    done = toy.doit("model:two", status=2)
    assert "!! kmodel:two: no room\n" in done.stderr


def test_a_model_that_is_not_optional_fails(toy: Toy, tools: Tools) -> None:
    tools.wish(nncase={"unavailable": "no Python 3.10 here"})
    done = toy.doit("model:one", status=2)
    assert "!! toolchain:nncase-1.9.0: no Python 3.10 here\n" in done.stderr


def test_another_version_of_a_tool(toy: Toy, tools: Tools) -> None:
    toy.doit()
    tools.wish(nncase={"version": "2"})
    done = toy.doit()
    assert sorted(toy.computed()[8:]) == ["kmodel:one", "kmodel:two", "verify:one", "verify:two"]
    assert "   kmodel:one: toolchain nncase-1.9.0, version: 1 → 2\n" in done.stderr


def test_a_hash_learnt_by_the_first_download_is_in_the_key(toy: Toy, tools: Tools) -> None:
    tools.wish(nncase={"tells": True})
    toy.doit("model:one")
    record = json.loads(toy.read(".k210/state/kmodel.one.json"))
    assert record["tools"]["nncase-1.9.0"]["sha256"] == "abc"
    assert "-- kmodel:one" in toy.doit("model:one").stdout
    assert len(toy.computed()) == 4
