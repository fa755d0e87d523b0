"""Inputs behind links that lead elsewhere while a step runs, and back: what was read is what was
hashed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from k210tasks.engine import bodies, pinning
from tests.graph.conftest import Toy

ROUNDS = 60


def swap(link: Path, target: Path) -> None:
    beside = link.with_name(f"{link.name}.new")
    beside.symlink_to(target)
    beside.replace(link)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_result_belongs_to_what_the_link_led_to(what: str, tmp_path: Path) -> None:
    """The link is swapped all the time; afterwards the store is asked about both targets.

    How often is found by trying: as fast as this machine still gets a build done now and then.
    """
    toy = Toy(tmp_path / "project", ("one",))
    link = toy.root / ("src" if what == "folder" else "src/one.pb")
    targets = [tmp_path / side / "src" for side in "ab"]
    for target in targets:
        target.mkdir(parents=True)
    ends = [t if what == "folder" else t / "one.pb" for t in targets]
    link.rename(tmp_path / "old")
    link.symlink_to(ends[0])
    stop, turned = threading.Event(), threading.Event()

    def turn() -> None:
        while not stop.is_set():
            for end in (ends[1], ends[0]):
                swap(link, end)
                turned.wait(pause)

    done, pause = 0, 0.0007
    for number in range(ROUNDS):
        for side, target in zip("ab", targets, strict=True):
            (target / "one.pb").write_text(f"graph {side}, round {number}\n")
        stop.clear()
        thread = threading.Thread(target=turn)
        thread.start()
        try:
            status = toy.inside("convert:one").returncode
        finally:
            stop.set()
            thread.join()
        done += not status
        pause *= 1.5 if status else 0.7
        for side, end in zip("ba", reversed(ends), strict=True):
            swap(link, end)
            toy.run("convert:one")
            assert toy.read("workspace/one.tflite") == f"graph {side}, round {number}"
    assert done > ROUNDS / 10


def led_away(toy: Toy, tmp_path: Path, real: Callable[..., object]) -> Callable[..., object]:
    """``real``, while which a linked source leads from graph a to b."""
    for side in "ab":
        (tmp_path / side).write_text(f"graph {side}")
    link = toy.root / "src/one.pb"
    link.unlink()
    link.symlink_to(tmp_path / "a")

    def swapped(*args: object) -> object:
        swap(link, tmp_path / "b")
        try:
            return real(*args)
        finally:
            swap(link, tmp_path / "a")

    return swapped


def test_swapped_there_and_back_before_it_is_read(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the worst moment: hashed as a, the link leads to b while the step runs, then to a."""
    monkeypatch.setattr("k210tasks.engine.runner.call", led_away(toy, tmp_path, bodies.call))
    assert toy.run("convert:one") == ["convert:one"]
    assert toy.read("workspace/one.tflite") == "graph a"


def test_swapped_between_hash_and_hand_over(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "pinned", led_away(toy, tmp_path, pinning.pinned))
    assert toy.run("convert:one", status=1) == []
    assert "src/one.pb changed while the step was reading it; nothing was rec" in toy.last.stderr


def test_linked_samples_keep_their_names_and_errors_the_users(toy: Toy, tmp_path: Path) -> None:
    images = toy.root / "images/one/calibration"
    images.rename(tmp_path / "pictures")
    images.symlink_to(tmp_path / "pictures")
    plain = Toy(tmp_path / "plain", ("one",))
    assert toy.run("calibrate:one") == plain.run("calibrate:one")
    made = "build/one/calibration.npz"
    assert toy.read(made) == plain.read(made)
    (tmp_path / "graph").write_bytes(b"\xff")
    (toy.root / "src/two.pb").unlink()
    (toy.root / "src/two.pb").symlink_to(tmp_path / "graph")
    toy.run("convert:two", status=1)
    assert ".k210/tmp" not in toy.last.stderr
