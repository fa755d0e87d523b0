"""An ``.npz`` written part by part: what numpy reads, and the same bytes each time."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.npz import BadArrays, NpzWriter, extract, mapped, read


def write(path: Path) -> None:
    with NpzWriter(path) as writer:
        parts = (np.full((2, 3), i) for i in range(4))
        writer.stack("samples", (4, 2, 3), np.float32, parts)
        writer.array("files", np.array(["a/ä.png", "b.png"]))


def test_numpy_reads_it_and_the_bytes_do_not_depend_on_the_day(tmp_path: Path) -> None:
    write(tmp_path / "a.npz")
    write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["samples"].dtype == np.float32
        assert file["samples"][:, 1, 2].tolist() == [0, 1, 2, 3]
        assert file["files"].tolist() == ["a/ä.png", "b.png"]


def test_extract_gives_an_npy(tmp_path: Path) -> None:
    write(tmp_path / "a.npz")
    extract(tmp_path / "a.npz", "samples", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy", mmap_mode="r").shape == (4, 2, 3)


def test_read_is_what_numpy_wrote(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "c": np.arange(12, dtype=np.int16).reshape(3, 4), "f": np.asfortranarray(np.ones((2, 5))),
        "scalar": np.array(3.5), "none": np.zeros((0, 4)), "words": np.array(["ä", "b"]),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **wanted)
    found = read(tmp_path / "a.npz")
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].flags.writeable
    with (tmp_path / "a.npz").open("rb") as file:
        assert list(read(file, ("f", "c"))) == ["f", "c"]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 99), }", "not what its head says"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "not what its head says"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "not what its head says"),
        ("(" * 3000, ""),
        ("{'descr': ", ""),
    ],
)
def test_what_is_not_as_it_says_is_one_error(head: str, why: str, tmp_path: Path) -> None:
    array = b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head.encode() + bytes(16)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", array)
    (tmp_path / "a.npy").write_bytes(array)
    with pytest.raises(BadArrays, match=why):
        read(tmp_path / "a.npz")
    with pytest.raises(BadArrays):
        mapped(tmp_path / "a.npy")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1 << 20))
    with pytest.raises(BadArrays, match="its arrays are larger than the file"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.zeros(1))
    with pytest.raises(BadArrays, match="it has no 'b'"):
        read(tmp_path / "b.npz", ("b",))
    with pytest.raises(BadArrays, match="it is an archive of arrays"):
        mapped(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError):
        mapped(tmp_path / "c.npy")
