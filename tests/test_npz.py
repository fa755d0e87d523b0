"""An ``.npz`` written part by part: what numpy reads, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from k210tasks.npz import NpzWriter, extract


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
