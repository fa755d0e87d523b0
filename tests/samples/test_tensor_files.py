"""Files of tensors: one sample or many, told by the model's input; what is refused, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from k210tasks.samples.folder import (
    evenly_spaced,
    index_of,
    indexed,
    kind_of,
    kind_of_sample,
    scan,
)
from k210tasks.samples.loading import Loader
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.refusals import SampleError, TensorUnreadable
from k210tasks.samples.tensor_files import read_tensor

HOSTILE = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hostile"


def loader(*shape: int) -> Loader:
    return Loader(shape, Preprocess())


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("model", "stored", "count"),
    [
        ((1, 6), (6,), None),
        ((1, 6), (1, 6), None),
        ((1, 6), (5, 6), 5),
        ((1, 6), (6, 6), 6),
        ((1, 6), (5, 1, 6), 5),
        ((1, 4, 3, 2), (4, 3, 2), None),
        ((1, 4, 3, 2), (1, 4, 3, 2), None),
        ((1, 4, 3, 2), (4, 4, 3, 2), 4),
        ((1, 4, 3, 2), (7, 1, 4, 3, 2), 7),
        ((1, 28, 28), (28, 28), None),  # not 28 samples of 28 numbers
        ((1, 28, 28), (28, 28, 28), 28),
        ((6,), (6,), None),  # a model without a batch
        ((6,), (2, 6), 2),
    ],
)
def test_the_models_input_tells_whether_a_file_holds_many(
    tmp_path: Path, model: tuple[int, ...], stored: tuple[int, ...], count: int | None
) -> None:
    values = ramp(*stored)
    np.save(tmp_path / "a.npy", values)
    reads = loader(*model)
    names = reads.names(tmp_path, ["a.npy"])
    if count is None:
        assert names == ("a.npy",)
        assert np.array_equal(reads.tensor(tmp_path / "a.npy"), values.reshape(model))
        return
    assert names == tuple(f"a.npy[{i:04}]" for i in range(count))
    for i, name in enumerate(names):
        sample = reads.load(tmp_path / name, f"t/{name}")
        assert sample.pixels is None
        assert sample.file == f"t/{name}"
        assert np.array_equal(sample.tensor, values[i].reshape(model))


def test_names_of_samples_lead_back_to_the_file() -> None:
    assert indexed("x/a.NPY", 12) == "x/a.NPY[0012]"
    assert index_of("a.NPY[0012]") == ("a.NPY", 12)
    assert index_of("a.npy[12345]") == ("a.npy", 12345)
    assert index_of("a.npy") == ("a.npy", None)
    assert index_of("a.png[0001]") == ("a.png[0001]", None)
    assert kind_of_sample("a.npy[0000]") == "tensors"
    assert kind_of("a.npy[0000]") is None  # as a file's own name it is none of ours


def test_samples_of_several_files_are_taken_evenly(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 5)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "all.npy", ramp(count, 6))
    np.save(tmp_path / "one.npy", ramp(6))
    files = scan(tmp_path).files
    names = loader(1, 6).names(tmp_path, files)
    assert len(names) == 9
    assert names[0] == "a/all.npy[0000]"
    assert evenly_spaced(names, 3) == ("a/all.npy[0001]", "b/all.npy[0001]", "b/all.npy[0004]")
    assert evenly_spaced(names, None) == names


def test_one_file_stands_for_a_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", ramp(3, 6))
    found = scan(tmp_path / "all.npy", "data/all.npy")
    assert (found.folder, found.kind, found.files) == ("data/all.npy", "tensors", ("",))


class TestRefused:
    def refuse(self, path: Path, name: str) -> str:
        with pytest.raises(SampleError) as caught:
            loader(1, 6).load(path / name, f"t/{name}")
        assert caught.value.file == f"t/{name}"
        return str(caught.value)

    def test_one_that_is_not_finite_is_named_by_its_index(self, tmp_path: Path) -> None:
        values = ramp(4, 6)
        values[2, 3] = np.nan
        np.save(tmp_path / "a.npy", values)
        assert self.refuse(tmp_path, "a.npy[0002]") == (
            "t/a.npy[0002] holds 1 values that are infinite or not a number"
        )
        assert loader(1, 6).tensor(tmp_path / "a.npy[0003]").shape == (1, 6)

    def test_another_shape(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", ramp(4, 7))
        assert loader(1, 6).names(tmp_path, ["a.npy"]) == ("a.npy",)
        assert self.refuse(tmp_path, "a.npy") == (
            "t/a.npy holds a tensor of shape 4x7; the model's input is 1x6 (the batch of 1 may "
            "be left out, and N samples in one .npy have N in its place)"
        )
        assert "of shape 4x7" in self.refuse(tmp_path, "a.npy[0001]")

    def test_no_samples_at_all(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((0, 6), np.float32))
        assert "holds a tensor of shape 0x6" in self.refuse(tmp_path, "a.npy")

    def test_another_type(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((4, 6), np.int16))
        (name, *_) = loader(1, 6).names(tmp_path, ["a.npy"])
        assert self.refuse(tmp_path, name) == (
            "t/a.npy[0000] holds int16 numbers; a tensor is the float model's own input, "
            "float32, with mean and std applied"
        )

    def test_an_index_beyond_the_end(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", ramp(4, 6))
        assert self.refuse(tmp_path, "a.npy[0004]") == (
            "t/a.npy[0004] is not there: the file holds 4 samples"
        )

    def test_a_file_that_is_damaged_or_gone_keeps_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
        assert loader(1, 6).names(tmp_path, ["a.npy", "b.npy"]) == ("a.npy", "b.npy")
        assert self.refuse(tmp_path, "a.npy").startswith("t/a.npy cannot be read as a tensor: ")
        assert self.refuse(tmp_path, "b.npy").startswith("t/b.npy cannot be read as a tensor: ")


def test_gray_pictures_for_rows_of_a_square(tmp_path: Path) -> None:
    from PIL import Image

    picture = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(picture).save(tmp_path / "a.png")
    sample = loader(1, 16).load(tmp_path / "a.png")
    assert sample.pixels is not None
    assert sample.pixels.tolist() == [picture.tolist()]
    assert sample.tensor.shape == (1, 16)
    assert np.allclose(sample.tensor[0], np.arange(16) / 255)
    assert loader(1, 4, 4).load(tmp_path / "a.png").tensor.shape == (1, 4, 4)
    with pytest.raises(SampleError) as caught:
        loader(1, 25).load(tmp_path / "a.png", "a.png")
    assert str(caught.value) == (
        "a.png is 4x4 pixels; a model whose input is one row of 25 values is fed with grey "
        "pictures of 5x5 only, since it does not say how its pictures were scaled; scale the "
        "picture"
    )


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**9999,), }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % (b"9" * 30),
        b"'''",
        b"((((",
    ],
)
def test_a_header_that_is_no_header(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))
    with pytest.raises(TensorUnreadable, match=r"^shown\.npy cannot be read"):
        read_tensor(path, "shown.npy", (1, 4))


def test_a_renamed_archive_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(TensorUnreadable, match=r"^shown\.npy cannot be read"):
        read_tensor(path, "shown.npy", (1, 4))


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="no ../shared/fixtures/hostile")
@pytest.mark.parametrize("name", ["token.npy", "samples_018.npy"])
def test_files_that_were_tracebacks(name: str) -> None:
    with pytest.raises(SampleError, match=rf"^{name}"):
        read_tensor(HOSTILE / name, name, (1, 4))
