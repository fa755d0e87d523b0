"""Folders in the system's temporary one, also of processes that were killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from k210tasks.store.scratch import scratch_folder

HOLDER = """
import time
from k210tasks.store.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_goes_with_its_block(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.is_relative_to(temporary)
        assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert [p for p in temporary.rglob("*") if p.is_file()] == []


def test_that_of_a_killed_process_goes_with_the_next_of_the_living_stays() -> None:
    command = [sys.executable, "-c", HOLDER]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [Path(p.stdout.readline().strip()) for p in both if p.stdout is not None]
    both[0].kill()
    both[0].wait(10)
    try:
        with scratch_folder() as folder:
            assert not folders[0].exists()
            assert (folders[1] / "half").exists()
            assert folder.exists()
    finally:
        both[1].kill()
        both[1].wait(10)


@pytest.mark.parametrize("what", ["open", "link", "file"])
def test_what_others_may_write_to_is_not_used(what: str, temporary: Path) -> None:
    with scratch_folder() as folder:
        base = folder.parent
    base.rmdir()
    if what == "open":
        base.mkdir()
        base.chmod(0o777)
    elif what == "link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        base.symlink_to(temporary / "elsewhere")
    else:
        base.write_text("x")
    with scratch_folder() as folder:
        assert folder.is_dir()
        assert not folder.is_relative_to(base)
        assert not folder.is_relative_to(temporary / "elsewhere")
    assert not folder.exists()
