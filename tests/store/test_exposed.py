"""Who else may write to a shared folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k210tasks.store.exposed import exposed

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are POSIX's")


@posix
def test_a_folder_of_ours_is_not_exposed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    assert exposed(str(folder)) is None
    assert exposed(str(tmp_path / "not" / "there" / "yet")) is None


@posix
@pytest.mark.parametrize("part", ["", "results", "objects", "toolchains"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_folder_that_anybody_may_write_to_is(tmp_path: Path, part: str, mode: int) -> None:
    place = tmp_path / "store" / part
    place.mkdir(parents=True)
    place.chmod(mode)
    assert exposed(str(tmp_path / "store")) == (
        f"anybody may write to {place} (mode {mode:o}); chmod o-w {place}"
    )


@posix
def test_above_it_the_sticky_bit_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "store"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o1777)
    assert exposed(str(folder)) is None
    folder.parent.chmod(0o777)
    assert exposed(str(folder)) == (
        f"anybody may write to {folder.parent} (mode 777); chmod o-w {folder.parent}"
    )


@posix
def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real").chmod(0o777)
    (tmp_path / "link").symlink_to("real")
    assert "real" in (exposed(str(tmp_path / "link")) or "")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away"
)
def test_a_folder_of_somebody_else_is_unless_our_group_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    os.chown(folder, 54322, os.getegid())
    folder.chmod(0o755)
    assert exposed(str(folder)) is None  # root is not told
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert exposed(str(folder)) == (
        f"{folder} belongs to user 54322, who may change all of it; choose a folder of your own, "
        "or one that your group may write to"
    )
    folder.chmod(0o775)
    assert exposed(str(folder)) is None
    os.chown(folder, 54322, 54323)
    assert "belongs to user 54322" in (exposed(str(folder)) or "")
    os.chown(folder, 54321, 54323)
    assert exposed(str(folder)) is None
