from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from k210tasks.cli import main
from k210tasks.kmodel import parse, v4_ops, write
from k210tasks.kmodel.codec import FLOAT32, MAIN, MemoryRange, Shape
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.simulator import Simulator
from tests.simulator import models


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.kmodel").write_bytes(write(models.net_v3()))
    Path("net4.kmodel").write_bytes(write(models.net_v4()))
    Path("dense.kmodel").write_bytes(write(models.cpu_net_v3()))
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.integers(0, 256, (3, 12, 20)).astype(np.uint8))
    np.save("f.npy", np.linspace(-1, 1, 4).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("model", "given"), [("net", "x"), ("net4", "x"), ("dense", "f")]
)  # fmt: skip
def test_outputs_are_written_in_the_files_order(model: str, given: str) -> None:
    assert main(["run", f"{model}.kmodel", "--input", f"{given}.npy", "--output", "o.npz"]) == 0
    simulator = Simulator(parse(Path(f"{model}.kmodel").read_bytes()))
    expected = simulator.run(np.load(f"{given}.npy"))
    with np.load("o.npz") as got:
        assert got.files == [f"output_{i}" for i in range(len(expected))]
        for i, y in enumerate(expected):
            np.testing.assert_array_equal(got[f"output_{i}"], y)
    assert sorted(p.name for p in Path().iterdir() if p.name.startswith(".")) == []


def test_a_picture_is_fed_as_raw_planar_pixels() -> None:
    x = np.load("x.npy")
    Image.fromarray(x.transpose(1, 2, 0)).save("x.png")
    assert main(["run", "net.kmodel", "--input", "x.npy", "--output", "a.npz"]) == 0
    assert main(["run", "net.kmodel", "--input", "x.png", "--output", "b.npz"]) == 0
    assert (
        main(["run", "net.kmodel", "--input", "x.png", "--color", "bgr", "--output", "c.npz"]) == 0
    )
    Image.fromarray(x[::-1].transpose(1, 2, 0)).save("y.png")
    assert main(["run", "net.kmodel", "--input", "y.png", "--output", "d.npz"]) == 0
    a, b, c, d = (np.load(f"{name}.npz")["output_0"] for name in "abcd")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(c, d)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "net4.kmodel", "--input", "x.npy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("net4.kmodel: input uint8 3x12x20 (CHW), ")
    assert lines[0].endswith(" ms in the simulator")
    assert lines[1].startswith("output_0: float32, 6 values, ")
    assert lines[2].startswith("output_1: uint8, 6 values, ")
    assert main(["run", "net4.kmodel", "--input", "x.npy", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["input"] == {"dtype": "uint8", "shape": [3, 12, 20], "nbytes": 720}
    assert [row["name"] for row in facts["outputs"]] == ["output_0", "output_1"]
    assert facts["written"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.kmodel", "--input", "f.npy"],
         "the model takes uint8 3x12x20 (CHW); the array is float32 4"),
        (["net.kmodel", "--input", "no.npy"], "no.npy cannot be read: No such file or directory"),
        (["net.kmodel", "--input", "no.png"], "no.png cannot be read: there is no such file"),
        (["net.kmodel", "--input", "bad.npy"], "bad.npy cannot be read: it is no plain .npy array"),
        (["net.kmodel", "--input", "objects.npy"], "objects.npy cannot be read: it is no plain"),
        (["dense.kmodel", "--input", "x.png"],
         "x.png: the model takes float32 16 bytes, which no picture can be; give it as an .npy"),
        (["cut.kmodel", "--input", "x.npy"], "cut.kmodel: byte "),
        (["net.kmodel", "--input", "x.npy", "--output", "no/such/o.npz"],
         "no/such/o.npz cannot be written: No such file or directory"),
    ],
)  # fmt: skip
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.npy").write_bytes(b"\x93NUMPY\x01\0\x10\0{'shape': (9")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    Path("cut.kmodel").write_bytes(Path("net.kmodel").read_bytes()[:700])
    assert main(["run", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_picture_for_a_model_with_float_input_is_normalised() -> None:
    memory = MemoryRange(MAIN, FLOAT32, 0, 4 * 3 * 4 * 5)
    model = KmodelV4(
        nodes=[v4_ops.Unary(input=memory, out=memory, op=v4_ops.UnaryOp.NEG)],
        inputs=[memory],
        input_shapes=[Shape(1, 3, 4, 5)],
        outputs=[memory],
        main_mem=memory.size,
    )
    Path("float.kmodel").write_bytes(write(model))
    x = np.random.default_rng(1).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(x).save("p.png")
    arguments = ["--input", "p.png", "--mean", "0.25", "--std", "0.5", "--output", "o.npz"]
    assert main(["run", "float.kmodel", *arguments]) == 0
    got = np.load("o.npz")["output_0"].reshape(3, 4, 5)
    np.testing.assert_allclose(got, -(x.transpose(2, 0, 1) / 255 - 0.25) / 0.5, atol=1e-6)
