"""The two command lines of ncc, against programs that accept nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks import toolchains
from k210tasks.toolchains import ncc
from k210tasks.toolchains.catalogue import ToolchainOverride
from k210tasks.toolchains.errors import BadRequest, OperationFailed, WorkerDied
from k210tasks.toolchains.toolchain import Toolchain
from tests.toolchains.fake_ncc import NCC_01, NCC_02
from tests.toolchains.loopback import tar

NAMES = {"0.1": "ncc-0.1.0-rc5", "0.2": "ncc-0.2.0-beta4"}
PROGRAMS = {"0.1": NCC_01, "0.2": NCC_02}
METHOD = {"0.1": "minmax", "0.2": "l2"}


@pytest.fixture(params=["0.1", "0.2"])
def cli(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(cli: str, tmp_path: Path) -> Toolchain:
    archive = tmp_path / f"ncc-{cli}.tar.xz"
    archive.write_bytes(tar({"ncc": PROGRAMS[cli]}))
    name = NAMES[cli]
    override = ToolchainOverride(name, url=archive.as_uri())
    tool = toolchains.get(name, override, tmp_path / "k210.lock")
    tool.install(lambda text: None)
    return tool


def compile(tool: Toolchain, tmp_path: Path, **more: Any) -> dict[str, Any]:
    model = tmp_path / "model.tflite"
    if not model.exists():
        model.write_bytes(b"TFL3")
    samples = tmp_path / "samples"
    if not samples.exists():
        samples.mkdir()
        (samples / "a.png").write_bytes(b"png")
    options: dict[str, Any] = {
        "tflite": model,
        "samples_dir": samples,
        "raw": False,
        "method": METHOD[tool.tool.cli],  # type: ignore[union-attr]
        "mean": 0.5,
        "std": 0.5,
        "out": tmp_path / "result.bin",
    }
    options.update(more)
    with (tmp_path / "kmodel.log").open("w") as log:
        return ncc.compile(tool, log=log, **options)


def test_pictures(cli: str, cache: Path, tmp_path: Path) -> None:
    result = compile(make(cli, tmp_path), tmp_path)
    written = (tmp_path / "result.bin").read_bytes()
    if cli == "0.1":
        assert written == b"\x03\0\0\0--postprocess=n1to1 -i=tflite -o=k210model"
    else:
        assert written == (
            b"LDMK\x04\0\0\0--calibrate-method=l2 --dataset-format=image --input-mean=0.5 "
            b"--input-std=0.5 --input-type=uint8 --max-allocator-solve-secs=0 -i=tflite -t=k210"
        )
    assert result["kmodel"] == {"0.1": 3, "0.2": 4}[cli]
    assert result["bytes"] == len(written)
    assert result["warnings"] == []


def test_tensors(cli: str, cache: Path, tmp_path: Path) -> None:
    samples = tmp_path / "tensors"
    samples.mkdir()
    (samples / "0.bin").write_bytes(b"1234")
    compile(make(cli, tmp_path), tmp_path, raw=True, samples_dir=samples, mean=0.1, std=3)
    written = (tmp_path / "result.bin").read_bytes()
    assert b"--dataset-format=raw" in written
    assert b"mean" not in written
    assert b"--postprocess" not in written


def test_small_numbers_have_no_exponent(cache: Path, tmp_path: Path) -> None:
    compile(make("0.2", tmp_path), tmp_path, mean=-0.00001, std=1 / 256)
    written = (tmp_path / "result.bin").read_bytes()
    assert b"--input-mean=-0.00001 --input-std=0.00390625 " in written


def test_normalisation_that_01_does_not_know(cache: Path, tmp_path: Path) -> None:
    tool = make("0.1", tmp_path)
    compile(tool, tmp_path, mean=0, std=1)
    assert b"postprocess" not in (tmp_path / "result.bin").read_bytes()
    with pytest.raises(BadRequest) as caught:
        compile(tool, tmp_path, mean=0.485, std=0.229)
    assert str(caught.value) == (
        "ncc 0.1 knows only mean 0 with std 1, and mean 0.5 with std 0.5; not mean 0.485 with std "
        "0.229. Use another compiler:, or build the normalisation into the model"
    )


def test_normalisation_of_each_channel(cli: str, cache: Path, tmp_path: Path) -> None:
    tool = make(cli, tmp_path)
    with pytest.raises(BadRequest) as caught:
        compile(tool, tmp_path, mean=(0.485, 0.456, 0.406), std=0.226)
    assert str(caught.value) == (
        f"{tool.name} knows one mean and one std for all channels, not mean [0.485, 0.456, 0.406] "
        "with std 0.226. Use compiler: builtin or nncase-1.9.0, or build the normalisation into "
        "the model"
    )


def test_unknown_method(cli: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="has no calibration method 'kl'; it has: "):
        compile(make(cli, tmp_path), tmp_path, method="kl")


def test_samples_folder(cli: str, cache: Path, tmp_path: Path) -> None:
    tool = make(cli, tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("x")
    with pytest.raises(BadRequest) as caught:
        compile(tool, tmp_path, samples_dir=empty)
    assert str(caught.value) == (
        f"the folder of calibration samples {empty} holds no pictures (.bmp, .jpeg, .jpg, .png), "
        "which it must"
    )
    with pytest.raises(BadRequest, match="does not exist"):
        compile(tool, tmp_path, samples_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (
            b"FATAL:KPU allocator cannot allocate more memory.",
            OperationFailed,
            "{name} failed compiling model.tflite: Fatal: KPU allocator cannot allocate more "
            "memory.: one layer's input and output feature maps together exceed the 2 MiB of KPU "
            "memory, whatever main memory is left; make the input or the first layers smaller "
            "(ended with exit code 1)\nfull log: {log}",
        ),
        (
            b"FATAL:something new",
            OperationFailed,
            "{name} failed compiling model.tflite: Fatal: something new (ended with exit code 1)\n"
            "full log: {log}",
        ),
        (
            b"ZERO-FATAL",
            OperationFailed,
            "{name} failed compiling model.tflite: Fatal: Invalid tflite model: it cannot read the "
            ".tflite; the model is quantised, or has an operation the tool cannot read; give the "
            "float model, converted without optimisations\nfull log: {log}",
        ),
        (
            b"SILENT",
            OperationFailed,
            "{name} failed compiling model.tflite: it ended as if all were well, but wrote no file "
            "instead of a kmodel {version}\nfull log: {log}",
        ),
        (
            b"MAGIC",
            OperationFailed,
            "{name} failed compiling model.tflite: it ended as if all were well, but wrote a file "
            "that starts with {start} instead of a kmodel {version}\nfull log: {log}",
        ),
        (
            b"KILL",
            WorkerDied,
            "{name} was ended by the signal SIGSEGV while compiling model.tflite\nfull log: {log}",
        ),
    ],
)
def test_failures(
    model: bytes, error: type[Exception], text: str, cli: str, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.tflite").write_bytes(model)
    with pytest.raises(error) as caught:
        compile(make(cli, tmp_path), tmp_path)
    assert str(caught.value) == text.format(
        name=NAMES[cli],
        log=tmp_path / "kmodel.log",
        version={"0.1": 3, "0.2": 4}[cli],
        start={"0.1": "09 00 00 00", "0.2": "58 58 58 58 04 00 00 00"}[cli],
    )
    assert not (tmp_path / "result.bin").exists()
    if b"FATAL" in model:
        assert "Fatal: " in (tmp_path / "kmodel.log").read_text()


def test_warning_is_kept(cli: str, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"WARN")
    result = compile(make(cli, tmp_path), tmp_path)
    (warning,) = result["warnings"]
    assert warning.startswith("conv_7 Fallback to float conv2d due to weights divergence. This la")


def test_written_samples(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "s.npy", pixels)
    folder = tmp_path / "set"
    folder.mkdir()
    assert ncc.write_samples(tmp_path / "s.npy", folder) is False
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    back = np.moveaxis(np.asarray(Image.open(folder / "000001.png")), -1, 0)
    assert np.array_equal(back, pixels[1])


def test_written_grey_and_tensors(tmp_path: Path) -> None:
    from PIL import Image

    grey = np.arange(40, dtype=np.uint8).reshape(2, 1, 4, 5)
    np.save(tmp_path / "g.npy", grey)
    (tmp_path / "grey").mkdir()
    assert ncc.write_samples(tmp_path / "g.npy", tmp_path / "grey") is False
    image = Image.open(tmp_path / "grey" / "000001.png")
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), grey[1, 0])
    floats = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.save(tmp_path / "f.npy", floats)
    (tmp_path / "raw").mkdir()
    assert ncc.write_samples(tmp_path / "f.npy", tmp_path / "raw") is True
    back = np.fromfile(tmp_path / "raw" / "000001.bin", np.float32)
    assert np.array_equal(back, floats[1])
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3, 3), np.uint8))
    with pytest.raises(BadRequest, match="not with uint8 samples of shape \\[2, 3, 3\\]"):
        ncc.write_samples(tmp_path / "x.npy", tmp_path / "raw")


COMPILE = """
import sys
from pathlib import Path
from tests.toolchains import test_ncc
base = Path(sys.argv[1])
test_ncc.compile(test_ncc.make("0.2", base), base)
"""


def test_killed_parent_leaves_no_orphan(cache: Path, tmp_path: Path) -> None:
    sign = tmp_path / "pid"
    (tmp_path / "model.tflite").write_bytes(b"SLEEP:" + str(sign).encode())
    parent = subprocess.Popen(
        [sys.executable, "-c", COMPILE, str(tmp_path)], cwd=Path(__file__).parents[2]
    )
    end = time.monotonic() + 30
    while not (sign.exists() and sign.read_text()):
        assert parent.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    program = int(sign.read_text())
    os.kill(program, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while alive(program):
        assert time.monotonic() < end, "the program outlived its parent"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Running, and not a zombie that nobody has waited for yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
