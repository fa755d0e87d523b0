"""Samples are known again by what the model is fed, and flat ones are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from k210tasks.jsondata import loads
from k210tasks.samples.loading import Loader, Sample
from k210tasks.samples.preprocess import Preprocess
from k210tasks.samples.seen import Seen, digest, is_flat

RANDOM = np.random.default_rng(2)
PIXELS = RANDOM.integers(0, 256, (3, 6, 5), np.uint8)


def of(pixels: np.ndarray) -> Sample:
    return Sample("a.png", pixels, pixels[None].astype(np.float32))


def test_a_digest_is_of_what_is_fed_before_mean_and_std(tmp_path: Path) -> None:
    Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "a.png")
    Image.fromarray(PIXELS.transpose(1, 2, 0)).save(tmp_path / "b.bmp")

    def read(name: str, **preprocess: object) -> str:
        return digest(Loader((1, 6, 5, 3), Preprocess(**preprocess)).load(tmp_path / name))

    assert read("a.png") == read("b.bmp", mean=0.5, std=0.5)
    assert read("a.png") != read("a.png", color="bgr")
    assert len(read("a.png")) == 16


def test_other_pixels_and_other_shapes_are_others() -> None:
    changed = PIXELS.copy()
    changed[2, 5, 4] ^= 1
    tensor = Sample("a.npy", None, np.arange(4, dtype=np.float32))
    found = {
        digest(sample)
        for sample in (
            of(PIXELS),
            of(changed),
            of(PIXELS.reshape(3, 5, 6)),
            tensor,
            Sample("a.npy", None, tensor.tensor.reshape(2, 2)),
            Sample("a.npy", None, -tensor.tensor),
        )
    }
    assert len(found) == 6


@pytest.mark.parametrize(
    ("noise", "flat"),
    [(0.0, True), (0.8, True), (4.0, False), (60.0, False)],
)
def test_flat_pictures(noise: float, flat: bool) -> None:
    """Three planes of different brightness are still one colour."""
    base = np.array([20, 120, 220])[:, None, None]
    assert is_flat(of((base + noise * RANDOM.normal(size=(3, 16, 16))).astype(np.uint8))) is flat


def test_one_bright_spot_is_something() -> None:
    spot = np.zeros((1, 28, 28), np.uint8)
    assert is_flat(of(spot))
    spot[0, 3:7, 3:7] = 255
    assert not is_flat(of(spot))


def test_flat_tensors_are_exactly_so() -> None:
    def flat(*values: float) -> bool:
        return is_flat(Sample("a.npy", None, np.array([values], np.float32)))

    assert flat(0.5, 0.5, 0.5)
    assert not flat(0.5, 0.5, 0.500001)
    assert not flat(0.5)  # one number says nothing


def test_the_file_keeps_all() -> None:
    seen = Seen()
    for sample in (of(PIXELS), of(np.zeros((3, 6, 5), np.uint8))):
        seen.add(sample)
    again = loads(Seen, seen.to_json())
    assert again == seen
    assert (again.kind, again.flat, len(again.digests), again.noun) == ("images", 1, 2, "image")
