"""File systems whose times are whole seconds: what could have changed unseen is hashed again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from k210tasks.store.files import (
    COARSE_NS,
    RACY_NS,
    grain_of,
    hash_stamped,
    is_racy,
    stamp_of,
    stamp_of_placed,
)
from tests.graph.conftest import Toy

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("mtime", "ctime", "read_at", "racy"),
    [
        (10.0, 10.0, 10.9, True),  # written in the same second as it was read
        (10.0, 10.0, 11.9, True),  # FAT keeps every other second
        (10.0, 10.0, 12.0, False),
        (3.0, 10.0, 11.0, True),  # the time of writing was set back
        (10.0, 10.5, 10.54, True),  # an unpacked archive has whole seconds, its disk has not
        (10.0, 10.5, 10.56, False),
        (10.3, 10.3, 10.32, True),
        (10.3, 10.3, 10.4, False),
    ],
)
def test_what_proves_nothing(mtime: float, ctime: float, read_at: float, racy: bool) -> None:
    stamp = [1, round(mtime * SECOND), round(ctime * SECOND), 7]
    assert is_racy(stamp, round(read_at * SECOND)) == racy
    assert grain_of(stamp) == (COARSE_NS if ctime == 10.0 else RACY_NS)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file system keeps whole seconds."""
    real = os.stat

    def stat(*args: object, **more: object) -> object:
        found = real(*args, **more)  # type: ignore[arg-type]
        fields = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        for name in ("st_atime", "st_mtime", "st_ctime"):
            fields[name] = float(int(fields[name]))
            fields[f"{name}_ns"] = int(fields[name]) * SECOND
        return SimpleNamespace(**fields)

    monkeypatch.setattr(os, "stat", stat)


def _early() -> None:
    """Wait for the first tenth of a second."""
    while time.time() % 1 > 0.1:
        time.sleep(0.01)


@pytest.mark.usefixtures("seconds")
def test_a_file_is_hashed_again_until_its_stamp_is_older_than_the_grain(tmp_path: Path) -> None:
    path = tmp_path / "f"
    _early()
    path.write_text("aaaa")
    time.sleep(2 * RACY_NS / SECOND)
    first, stamp = hash_stamped(str(path))
    path.write_text("bbbb")
    same = stamp_of(str(path))  # as far as anybody can see
    assert stamp[1] == -1
    assert same != stamp
    assert stamp_of_placed(str(path))[1] == -1
    time.sleep(COARSE_NS / SECOND)
    second, stamp = hash_stamped(str(path))
    assert second != first
    assert stamp == same == stamp_of_placed(str(path))


@pytest.mark.usefixtures("seconds")
def test_a_change_within_the_second_of_a_build_is_built(tmp_path: Path) -> None:
    toy = Toy(tmp_path, ("one",))
    toy.run()
    for turn in range(3):
        _early()
        path = toy.write("images/one/calibration/1.png", f"one calibration {turn}a")
        assert toy.run("calibrate:one") == ["calibrate:one"]
        path.write_text(f"one calibration {turn}b")
        assert toy.run("calibrate:one") == ["calibrate:one"]


@pytest.fixture
def old_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk as ext3 had them: inodes of 128 bytes have no room for fractions."""
    if os.geteuid():
        pytest.skip("only root may mount")
    image, folder = tmp_path / "disk", tmp_path / "mounted"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    try:
        make = ["mkfs.ext4", "-q", "-I", "128", str(image)]
        subprocess.run(make, check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def test_a_real_disk_with_whole_seconds(old_disk: Path) -> None:
    toy = Toy(old_disk / "project", ("one",))
    toy.run()
    path = toy.write("images/one/calibration/1.png", "one calibration xa")
    assert stamp_of(str(path))[2] % SECOND == 0
    for turn in range(4):
        _early()
        path.write_text(f"one calibration {turn}a")
        assert toy.run("calibrate:one") == ["calibrate:one"]
        path.write_text(f"one calibration {turn}b")
        assert toy.run("calibrate:one") == ["calibrate:one"]
        kmodel = toy.root / "build/one/calibration.npz"
        wanted = kmodel.read_bytes()
        kmodel.write_bytes(bytes(len(wanted)))  # within the second in which it was placed
        assert toy.run("calibrate:one") == []
        assert kmodel.read_bytes() == wanted
    time.sleep(COARSE_NS / SECOND)
    toy.run()
    toy.run()
    before = {p: p.stat().st_ctime_ns for p in (toy.root / ".k210/state").iterdir()}
    assert toy.run() == []
    assert {p: p.stat().st_ctime_ns for p in (toy.root / ".k210/state").iterdir()} == before
