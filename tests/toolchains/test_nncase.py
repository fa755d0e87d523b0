"""The real nncase: what its kmodels take and give agrees with the float model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.reference.litert import FloatModel
from k210tasks.toolchains import nncase, tensorflow
from k210tasks.toolchains.errors import BadRequest, OperationFailed, WorkerDied
from k210tasks.toolchains.fit_for_vendor import QuantisedModel
from k210tasks.toolchains.toolchain import Toolchain
from k210tasks.toolchains.worker import close_all
from k210tasks.toolchains.workers.tidy import tidy

pytestmark = pytest.mark.toolchain
FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures"
RNG = np.random.default_rng(1)

needs_fixtures = pytest.mark.skipif(
    not FIXTURES.exists(), reason=f"the real models are not here: {FIXTURES}"
)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(float).ravel(), b.astype(float).ravel()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def compile(
    tool: Toolchain, tflite: Path, samples: np.ndarray, folder: Path, **more: Any
) -> dict[str, Any]:
    np.save(folder / "samples.npy", samples)
    options: dict[str, Any] = {"method": "no_clip", "mean": 0.0, "std": 1.0, **more}
    with (folder / "kmodel.log").open("w") as log:
        return nncase.compile(
            tool,
            model=tflite,
            samples=folder / "samples.npy",
            out=folder / "m.kmodel",
            log=log,
            **options,
        )


def simulate(tool: Toolchain, inputs: np.ndarray, folder: Path) -> list[np.ndarray]:
    np.save(folder / "inputs.npy", inputs)
    facts = nncase.simulate(
        tool, kmodel=folder / "m.kmodel", inputs=folder / "inputs.npy", out=folder / "o.npz"
    )
    assert len(facts["run_seconds"]) == len(inputs)
    assert facts["load_seconds"] >= 0
    arrays = np.load(folder / "o.npz")
    return [arrays[f"output_{n}"] for n in range(len(facts["outputs"]))]


def reference(tflite: Path, pixels: np.ndarray, mean: float, std: float) -> list[np.ndarray]:
    """The float model on CHW pixels; each output (N, …)."""
    model = FloatModel(tflite.read_bytes())
    x = ((pixels.transpose(0, 2, 3, 1) / 255 - mean) / std).astype(np.float32)
    outputs = [model.run(sample[None]) for sample in x]
    return [np.concatenate(columns) for columns in zip(*outputs, strict=True)]


@pytest.fixture
def two(tensorflow_tool: Toolchain, zoo: Path, tmp_path: Path) -> Path:
    """A model with a flat and a four-dimensional output, in this order, input 16 x 12."""
    out = tmp_path / "two.tflite"
    tensorflow.convert(
        tensorflow_tool,
        source=zoo / "two.pb",
        kind="pb",
        inputs=None,
        outputs=["probabilities", "map"],
        out=out,
    )
    return out


def test_pixels(nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    """Fed CHW uint8 as a camera gives it, with a mean and std that matter."""
    pixels = RNG.integers(0, 256, (16, 3, 16, 12), dtype=np.uint8)
    result = compile(nncase_tool, two, pixels, tmp_path, mean=0.3, std=0.5)
    assert (tmp_path / "m.kmodel").read_bytes()[:8] == b"LDMK\x05\0\0\0"
    assert result["bytes"] == (tmp_path / "m.kmodel").stat().st_size
    assert result["input"]["dtype"] == "uint8"
    assert result["input"]["shape"] == [1, 3, 16, 12]
    assert [o["shape"] for o in result["outputs"]] == [[1, 4], [1, 8, 6, 4]]
    assert result["memory"]["input"] == 3 * 16 * 12
    assert result["memory"]["model"] == result["bytes"]
    assert result["listing"].startswith("SUMMARY\nINPUTS\n")
    got = simulate(nncase_tool, pixels, tmp_path)
    wanted = reference(two, pixels, 0.3, 0.5)
    assert [g.shape for g in got] == [(16, 4), (16, 8, 6, 4)]
    assert [w.shape for w in wanted] == [(16, 4), (16, 8, 6, 4)]
    assert cosine(got[0], wanted[0]) > 0.999
    assert cosine(got[1], wanted[1]) > 0.999
    unlike = reference(two, pixels, 0.0, 1.0)
    assert cosine(got[1], unlike[1]) < 0.99  # so the test can tell


def test_a_mean_for_each_channel(nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (8, 3, 16, 12), dtype=np.uint8)
    compile(nncase_tool, two, pixels, tmp_path, mean=[0.3] * 3, std=[0.5, 0.5, 0.5])
    got = simulate(nncase_tool, pixels, tmp_path)
    assert cosine(got[1], reference(two, pixels, 0.3, 0.5)[1]) > 0.999


def test_float_tensors(nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    """Given as the model's own input: mean and std are done, whatever is said of them."""
    pixels = RNG.integers(0, 256, (16, 3, 16, 12), dtype=np.uint8)
    tensors = ((pixels / 255 - 0.3) / 0.5).astype(np.float32)
    result = compile(nncase_tool, two, tensors, tmp_path, mean=7.0, std=9.0)
    assert result["input"]["dtype"] == "float32"
    assert result["input"]["shape"] == [1, 3, 16, 12]
    got = simulate(nncase_tool, tensors, tmp_path)
    wanted = reference(two, pixels, 0.3, 0.5)
    assert cosine(got[0], wanted[0]) > 0.999
    assert cosine(got[1], wanted[1]) > 0.999


@pytest.mark.parametrize("method", nncase.METHODS)
def test_methods(method: str, nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (16, 3, 16, 12), dtype=np.uint8)
    compile(nncase_tool, two, pixels, tmp_path, method=method)
    got = simulate(nncase_tool, pixels, tmp_path)
    assert cosine(got[1], reference(two, pixels, 0, 1)[1]) > 0.9


@needs_fixtures
def test_same_bytes_in_any_process_and_order(nncase_tool: Toolchain, tmp_path: Path) -> None:
    """nncase itself leaves uninitialised bits in the file; see workers/tidy.py."""
    rng = np.random.default_rng(3)
    samples = {
        "iris": rng.uniform(0, 7, (9, 4)).astype(np.float32),
        "vww_96_float": rng.integers(0, 256, (2, 3, 96, 96), dtype=np.uint8),
    }
    found: dict[str, set[bytes]] = {name: set() for name in samples}
    for order in (list(samples), list(reversed(samples))):
        for name in order * 2:
            compile(nncase_tool, FIXTURES / "tflite" / f"{name}.tflite", samples[name], tmp_path)
            found[name].add((tmp_path / "m.kmodel").read_bytes())
        close_all()
    assert {name: len(kinds) for name, kinds in found.items()} == dict.fromkeys(samples, 1)
    for (kmodel,) in found.values():
        dirty = soil(kmodel)
        assert dirty != kmodel
        assert tidy(dirty) == kmodel


def soil(kmodel: bytes) -> bytes:
    """Set the reserved bits of the activation entries of the last KPU layer."""
    text = kmodel.rindex(b"\x90\0\0\0")  # its size, after its start in .rdata
    start = int.from_bytes(kmodel[text - 4 : text], "little")
    header = kmodel.index(b".rdata", kmodel.index(b"k210"))
    body = header + 32 + int.from_bytes(kmodel[header + 20 : header + 24], "little")
    result = bytearray(kmodel)
    for entry in range(16):
        result[body + start + 8 * entry + 7] |= 0xB0
    return bytes(result)


@needs_fixtures
def test_vector_model(nncase_tool: Toolchain, tmp_path: Path) -> None:
    tflite = FIXTURES / "tflite" / "iris.tflite"
    samples = RNG.uniform(0, 7, (40, 4)).astype(np.float32)
    result = compile(nncase_tool, tflite, samples, tmp_path)
    assert result["input"] == {"name": "input", "dtype": "float32", "shape": [1, 4]}
    (got,) = simulate(nncase_tool, samples, tmp_path)
    model = FloatModel(tflite.read_bytes())
    wanted = np.concatenate([model.run(x[None])[0] for x in samples])
    assert cosine(got, wanted) > 0.999
    compile(nncase_tool, tflite, samples.reshape(40, 4, 1, 1), tmp_path)


@needs_fixtures
@pytest.mark.parametrize(
    ("name", "mean", "least"), [("ulffd_landmark", 0.5, 0.99), ("vww_96_float", 0.0, 0.99)]
)
def test_real_models(
    name: str, mean: float, least: float, nncase_tool: Toolchain, tmp_path: Path
) -> None:
    from PIL import Image

    tflite = FIXTURES / "tflite" / f"{name}.tflite"
    _, height, width, _ = FloatModel(tflite.read_bytes()).input_shape
    files = sorted((FIXTURES / "images" / "faces").glob("*.jpg"))[:8]
    pictures = [Image.open(f).convert("RGB").resize((width, height)) for f in files]
    pixels = np.stack([np.asarray(p).transpose(2, 0, 1) for p in pictures])
    compile(nncase_tool, tflite, pixels, tmp_path, mean=mean)
    got = simulate(nncase_tool, pixels[:3], tmp_path)
    for y, reference_y in zip(got, reference(tflite, pixels[:3], mean, 1.0), strict=True):
        assert y.shape == reference_y.shape
        assert cosine(y, reference_y) > least


@pytest.mark.parametrize(
    ("samples", "more", "text"),
    [
        (
            np.zeros((3, 3, 16, 13), np.uint8),
            {},
            "two.tflite is calibrated with samples of shape [3, 16, 12] and type uint8 or float32, "
            "but these are [3, 16, 13] uint8",
        ),
        (
            np.zeros((3, 16, 12, 3), np.uint8),
            {},
            "two.tflite is calibrated with samples of shape [3, 16, 12] and type uint8 or float32, "
            "but these are [16, 12, 3] uint8",
        ),
        (
            np.zeros((3, 3, 16, 12), np.float64),
            {},
            "two.tflite is calibrated with samples of shape [3, 16, 12] and type uint8 or float32, "
            "but these are [3, 16, 12] float64",
        ),
        (
            np.zeros((0, 3, 16, 12), np.uint8),
            {},
            "two.tflite needs at least one calibration sample, got none",
        ),
        (
            np.zeros((1, 3, 16, 12), np.uint8),
            {"method": "kl"},
            "nncase has no calibration method 'kl'; it has: no_clip, l2, kld_m0, kld_m1, kld_m2, "
            "cdf",
        ),
        (
            np.zeros((1, 3, 16, 12), np.uint8),
            {"std": 0.0},
            "std is what pixels are divided by; it must not be 0",
        ),
        (
            np.zeros((1, 3, 16, 12), np.uint8),
            {"mean": [0.1, 0.2]},
            "mean and std have 2 values for 3 channels",
        ),
        (
            np.zeros((1, 3, 16, 12), np.uint8),
            {"mean": float("nan")},
            "mean and std must be finite numbers, not [nan, nan, nan]",
        ),
    ],
)
def test_refused(
    samples: np.ndarray,
    more: dict[str, Any],
    text: str,
    nncase_tool: Toolchain,
    two: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(BadRequest) as caught:
        compile(nncase_tool, two, samples, tmp_path, **more)
    assert str(caught.value) == text


def test_damaged_models(nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 16, 12), np.uint8)
    bad = tmp_path / "bad.tflite"
    for data, text in (
        (b"hello", "it does not carry the identifier TFL3 at byte 4"),
        (two.read_bytes()[:60], "it is damaged: "),
        (
            b"\0\0\0\0TFL3" + b"\xff" * 100,
            "it is damaged: Model lies outside of the file or between words, at byte 0 of 108",
        ),
    ):
        bad.write_bytes(data)
        with pytest.raises(BadRequest) as caught:
            compile(nncase_tool, bad, pixels, tmp_path)
        assert str(caught.value).startswith(f"{bad}: not a usable TensorFlow Lite model: {text}")


def test_quantised_model(nncase_tool: Toolchain, zoo: Path, tmp_path: Path) -> None:
    """nncase itself ends in a segmentation fault on it."""
    with pytest.raises(QuantisedModel) as caught:
        compile(nncase_tool, zoo / "int8.tflite", np.zeros((1, 3, 16, 16), np.uint8), tmp_path)
    assert str(caught.value).startswith(f"{zoo / 'int8.tflite'} is quantised: its tensor ")
    assert str(caught.value).endswith(
        " is int8. Give the float model, converted without optimisations; the kmodel compiler "
        "quantises it itself"
    )


def test_operation_that_nncase_lacks(nncase_tool: Toolchain, zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(OperationFailed) as caught:
        compile(nncase_tool, zoo / "cumsum.tflite", np.zeros((1, 3, 16, 16), np.uint8), tmp_path)
    assert str(caught.value) == (
        "nncase-1.9.0 failed compiling cumsum.tflite: RuntimeError: Unsupported tflite opcode: "
        "CUMSUM: the operation CUMSUM is unknown to this compiler; take it out of the model, or "
        f"use another compiler:\nfull log: {tmp_path / 'kmodel.log'}"
    )
    assert "1. Import graph..." in (tmp_path / "kmodel.log").read_text()


def test_simulating_what_does_not_fit(nncase_tool: Toolchain, two: Path, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (2, 3, 16, 12), dtype=np.uint8)
    compile(nncase_tool, two, pixels, tmp_path)
    with pytest.raises(BadRequest) as caught:
        simulate(nncase_tool, pixels.astype(np.float32), tmp_path)
    assert str(caught.value) == (
        "simulating m.kmodel: the kmodel takes uint8[1, 3, 16, 12], but the inputs are "
        "float32[3, 16, 12]"
    )
    kmodel = (tmp_path / "m.kmodel").read_bytes()
    (tmp_path / "m.kmodel").write_bytes(b"\x03\0\0\0" + kmodel[4:])
    with pytest.raises(BadRequest) as caught:
        simulate(nncase_tool, pixels, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'm.kmodel'} is no kmodel 5, the only kind nncase-1.9.0 simulates: it starts "
        "with 03 00 00 00 05 00 00 00"
    )
    (tmp_path / "m.kmodel").write_bytes(kmodel[: len(kmodel) // 2])
    with pytest.raises((WorkerDied, OperationFailed), match=r"simulating m\.kmodel"):
        simulate(nncase_tool, pixels, tmp_path)
    (tmp_path / "m.kmodel").write_bytes(kmodel)
    assert len(simulate(nncase_tool, pixels, tmp_path)) == 2  # a fresh worker serves
