"""The same bytes for any threads, processor and way of running: kmodels, measurements, verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.blackbox.onnx_files import picture_network
from tests.blackbox.projects import Project
from tests.cli.sensors import digits_network, grey_pictures, sensor_network, windows

MANIFEST = """\
defaults: {firmware: maixpy, effort: fast}
models:
  har: {source: har.tflite, images: train.npy, kmodel: 3, verify: {images: test.npy}}
  digits: {source: digits.tflite, images: pictures}
  net: {source: net.onnx, images: pictures, inputs: {image: [1, 3, 16, 16]}}
"""
#: OpenBLAS's names of processors -> the instructions that such a one has
CORES = {"Prescott": "pni", "Nehalem": "sse4_2", "Haswell": "avx2", "SkylakeX": "avx512f"}
WAYS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "one thread": (("-n", "1"), {"OPENBLAS_NUM_THREADS": "1"}),
    "two threads": (("-n", "2"), {"OPENBLAS_NUM_THREADS": "2"}),
    "in threads": (("-n", "2", "-P", "thread"), {"OPENBLAS_NUM_THREADS": "2"}),
    **{core: ((), {"OPENBLAS_CORETYPE": core}) for core in CORES},
}
WRITTEN = (
    "calibration.npz", "layers.json", "listing.txt", "contract.json", "measurement.json",
    "verify.json",
)  # fmt: skip


def built(root: Path, *args: str, **env: str) -> dict[str, bytes]:
    """Everything that the steps write of a new project, by path."""
    root.mkdir()
    project = Project(root, MANIFEST, **env)
    (root / "har.tflite").write_bytes(sensor_network())
    (root / "digits.tflite").write_bytes(digits_network())
    picture_network(root / "net.onnx")
    np.save(root / "train.npy", windows(30))
    np.save(root / "test.npy", windows(40)[30:])
    grey_pictures(root / "pictures")
    project.doit(*args, "verify:*")
    models = ("har", "digits", "net")
    paths = [f"build/{model}/{name}" for model in models for name in WRITTEN]
    paths += [f"workspace/{model}.kmodel" for model in models]
    return {path: (root / path).read_bytes() for path in paths}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return built(tmp_path_factory.mktemp("plain") / "project")


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes(way: str, plain: dict[str, bytes], tmp_path: Path) -> None:
    needed = CORES.get(way)
    if needed and needed not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {needed}")
    args, env = WAYS[way]
    found = built(tmp_path / "project", *args, **env)
    assert [path for path in plain if found[path] != plain[path]] == []
