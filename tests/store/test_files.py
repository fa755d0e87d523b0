"""Stamps and atomic writes."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from k210tasks.store import files as store_io
from k210tasks.store.files import (
    copy_file,
    hash_file,
    hash_stamped,
    move_into_place,
    stamp_of,
    write_atomically,
)


def test_a_stamp_sees_what_an_mtime_hides(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("aaaa")
    before, times = stamp_of(str(path)), path.stat()
    time.sleep(0.02)
    path.write_text("bbbb")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = stamp_of(str(path))
    assert before[:2] == after[:2]
    assert before != after


def test_a_young_stamp_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    digest, stamp = hash_stamped(str(path))
    assert digest == hashlib.sha256(b"x").hexdigest()
    assert stamp[1] == -1
    old = time.time_ns() - 10**10
    os.utime(path, ns=(old, old))
    time.sleep(0.08)
    assert hash_stamped(str(path)) == (digest, stamp_of(str(path)))


def test_a_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub/f"
    write_atomically(str(path), b"first")
    assert path.read_bytes() == b"first"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_io.os, "replace", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(str(path), b"second")
    assert path.read_bytes() == b"first"
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_copying_hashes_and_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    digest = copy_file(str(tmp_path / "a"), str(tmp_path / "b"), sync=True)
    assert digest == hash_file(str(tmp_path / "b")) == hash_file(str(tmp_path / "a"))
    with pytest.raises(FileExistsError):
        copy_file(str(tmp_path / "a"), str(tmp_path / "b"))


def test_moving_between_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    real, calls = os.replace, []

    def replace(source: str, target: str) -> None:
        calls.append(Path(source).name)
        if len(calls) == 1:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(store_io.os, "replace", replace)
    move_into_place(str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / ".beside"))
    assert calls == ["a", ".beside"]
    assert (tmp_path / "b").read_text() == "new"
    assert not (tmp_path / ".beside").exists()
