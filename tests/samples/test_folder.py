"""Folders of samples: what counts, in which order, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k210tasks.samples import folder as samples

ALLOWED = (
    "pictures (.jpg .jpeg .png .bmp .gif) or tensors (.npy .bin), sub-folders included"  # literal
)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


def test_pictures_of_all_sub_folders_sorted_the_rest_counted(tmp_path: Path) -> None:
    make(tmp_path, "b/2.PNG", "a/1.jpg", "c.gif", "notes.txt", ".DS_Store", "a/._1.jpg")
    make(tmp_path, ".ipynb_checkpoints/1.jpg")
    found = samples.scan(tmp_path, "images/x")
    assert found == samples.Samples("images/x", "images", ("a/1.jpg", "b/2.PNG", "c.gif"), 3)


def test_tensors(tmp_path: Path) -> None:
    make(tmp_path, "1.bin", "0.npy")
    assert samples.scan(tmp_path) == samples.Samples(
        str(tmp_path), "tensors", ("0.npy", "1.bin"), 0
    )


def test_links_to_folders_are_followed_loops_are_not(tmp_path: Path) -> None:
    make(tmp_path, "real/1.jpg", "top/a/2.jpg")
    (tmp_path / "top/link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "top/a/loop").symlink_to(tmp_path / "top", target_is_directory=True)
    (tmp_path / "real/back").symlink_to(tmp_path / "real", target_is_directory=True)
    assert samples.scan(tmp_path / "top").files == ("a/2.jpg", "link/1.jpg")


def test_a_link_to_a_folder_whose_name_begins_like_the_parents_is_no_loop(tmp_path: Path) -> None:
    make(tmp_path, "ab/1.jpg", "a/2.jpg")
    (tmp_path / "ab/link").symlink_to(tmp_path / "a", target_is_directory=True)
    assert samples.scan(tmp_path / "ab").files == ("1.jpg", "link/2.jpg")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), f"the folder f holds nothing; it may hold {ALLOWED}"),
        (("a.txt",), f"the folder f holds only 1 other file; it may hold {ALLOWED}"),
        (("a.txt", "b.tif"), f"the folder f holds only 2 other files; it may hold {ALLOWED}"),
        (
            ("b/x.jpg", "a.jpg", "t.npy"),
            "the folder f holds pictures (a.jpg, …) and tensors (t.npy, …); "
            "give each kind a folder of its own",
        ),
    ],
)
def test_folders_that_cannot_serve(tmp_path: Path, names: tuple[str, ...], text: str) -> None:
    make(tmp_path, *names)
    with pytest.raises(samples.SamplesError) as error:
        samples.scan(tmp_path, "f")
    assert str(error.value) == text


def test_a_missing_folder_a_file_and_a_broken_link(tmp_path: Path) -> None:
    with pytest.raises(samples.FolderMissing) as missing:
        samples.scan(tmp_path / "no", "no")
    assert str(missing.value) == f"the folder no does not exist; it may hold {ALLOWED}"
    make(tmp_path, "file.jpg")
    with pytest.raises(samples.NotAFolder) as file:
        samples.scan(tmp_path / "file.jpg", "file.jpg")
    assert str(file.value) == (
        f"file.jpg is a file, not a folder; a folder may hold {ALLOWED}; "
        "of files, only an .npy may stand for all samples"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/gone.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(samples.NotAFile) as link:
        samples.scan(tmp_path / "sub", "sub")
    assert str(link.value) == "sub/gone.jpg is a broken link or no regular file; mend or remove it"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs byte file names")
def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"x")
    with pytest.raises(samples.BadFileName) as error:
        samples.scan(tmp_path, "f")
    assert str(error.value) == (
        r"f/\udcff.jpg: the file's name is not valid UTF-8; rename the file"
    )


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    make(tmp_path, "sub/1.jpg")
    (tmp_path / "sub").chmod(0)
    try:
        with pytest.raises(samples.FolderUnreadable, match="cannot be read: Permission denied"):
            samples.scan(tmp_path, "f")
    finally:
        (tmp_path / "sub").chmod(0o700)


def test_evenly_spaced() -> None:
    assert samples.evenly_spaced("abc", 5) == ("a", "b", "c")
    assert samples.evenly_spaced(range(100), 4) == (12, 37, 62, 87)
    assert samples.evenly_spaced(range(5), 1) == (2,)
    assert samples.evenly_spaced("", 3) == ()


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, k210tasks.samples.folder; print({'numpy', 'PIL'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
