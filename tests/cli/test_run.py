from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from k210tasks.cli import main
from k210tasks.kmodel import parse, v3_layers, v4_ops, write
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
         "f.npy: the model takes uint8 3x12x20 (CHW); the array is float32 4\n"),
        (["net.kmodel", "--input", "no.npy"], "no.npy cannot be read: No such file or directory"),
        (["net.kmodel", "--input", "no.png"], "no.png cannot be read: there is no such file"),
        (["net.kmodel", "--input", "bad.npy"], "bad.npy cannot be read: it is no plain .npy array"),
        (["net.kmodel", "--input", "objects.npy"], "objects.npy cannot be read: it is no plain"),
        (["dense.kmodel", "--input", "x.png"],
         "x.png: the model takes float32 16 bytes, which no picture can be; give it as an .npy"),
        (["row.kmodel", "--input", "x.png"],
         "x.png: the model takes float32 1x1x4 (CHW), which no picture can be; give it as an .npy"),
        (["cut.kmodel", "--input", "x.npy"], "cut.kmodel: byte "),
        (["cut.kmodel", "--input", "x.npy"], "cut short or damaged; copy or build it again\n"),
        (["", "--input", "x.npy"], "'' cannot be read: no file is named"),
        (["model.tflite", "--input", "x.npy"],
         "this is a TFLite model, not a kmodel; k210 convert makes a kmodel of it\n"),
        (["image.kfpkg", "--input", "x.npy"], "; k210 inspect lists what a kfpkg holds\n"),
        (["net.kmodel", "--input", "hwc.npy"],
         "hwc.npy: the model takes uint8 3x12x20 (CHW); the array is 12x20x3: whole planes are fed "
         "one after the other; of height, width, channels make x.transpose(2, 0, 1)\n"),
        (["net.kmodel", "--input", "folder"], "folder cannot be read: it is a folder\n"),
        (["net.kmodel", "--input", "two.npz"],
         "it is no plain .npy array (it is an archive of arrays)\n"),
        (["net.kmodel", "--input", "x.npy", "--output", "net.kmodel/o.npz"],
         "net.kmodel/o.npz cannot be written: Not a directory"),
    ],
)  # fmt: skip
def test_refusals(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.npy").write_bytes(b"\x93NUMPY\x01\0\x10\0{'shape': (9")
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    Path("cut.kmodel").write_bytes(Path("net.kmodel").read_bytes()[:700])
    Path("model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(99))
    Path("image.kfpkg").write_bytes(b"PK\x03\x04" + bytes(99))
    row = MemoryRange(MAIN, FLOAT32, 0, 16)
    Path("row.kmodel").write_bytes(
        write(
            KmodelV4(
                nodes=[v4_ops.Unary(input=row, out=row, op=v4_ops.UnaryOp.NEG)],
                inputs=[row],
                input_shapes=[Shape(1, 1, 1, 4)],
                outputs=[row],
                main_mem=row.size,
            )
        )
    )
    np.save("hwc.npy", np.zeros((12, 20, 3), np.uint8))
    np.savez("two.npz", a=np.zeros(3))
    Path("folder").mkdir()
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


@pytest.mark.parametrize("shape", [(720,), (1, 3, 12, 20), (3, 12, 20, 1)])
def test_an_array_of_the_same_order_is_taken(shape: tuple[int, ...]) -> None:
    np.save("shaped.npy", np.load("x.npy").reshape(shape))
    for name in ("x", "shaped"):
        assert main(["run", "net.kmodel", "--input", f"{name}.npy", "--output", f"{name}.npz"]) == 0
    assert Path("x.npz").read_bytes() == Path("shaped.npz").read_bytes()


def test_options_that_play_no_part_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.load("x.npy").transpose(1, 2, 0)).save("x.png")
    assert main(["run", "net.kmodel", "--input", "x.png", "--mean", "0.5", "--std", "0.5"]) == 0
    assert capsys.readouterr().err == (
        "k210 run: --mean and --std are not used: the model takes raw pixels and scales them "
        "itself\n"
    )
    assert main(["run", "net.kmodel", "--input", "x.npy", "--color", "bgr"]) == 0
    assert capsys.readouterr().err == "k210 run: --color is not used: an array is fed as it is\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "-1"], "argument --base: -1 is no byte offset such as 4096 or 0x100000"),
        (["--base", "1k"], "argument --base: 1k is no byte offset such as 4096 or 0x100000"),
        (["--std", "0"], "argument --std: std divides, so it cannot be 0"),
        (["--mean", "half"], "argument --mean: 'half' is not a number"),
    ],
)
def test_values_that_are_none(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "net.kmodel", "--input", "x.npy", *arguments])
    assert capsys.readouterr().err.endswith(f"k210 run: error: {message}\n")


def test_the_runtime_is_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """MaixPy ignores the activation of a dense layer, by name and by firmware."""
    model = models.cpu_net_v3()
    dense = next(b for b in model.layers if isinstance(b, v3_layers.FullyConnected))
    dense.act, dense.bias = 1, np.full(dense.out_ch, -50, np.float32)
    model.outputs = [v3_layers.Output(dense.out_mem, 4 * dense.out_ch)]
    model.layers = [dense]
    Path("act.kmodel").write_bytes(write(model))
    for options, lowest in (
        ([], 0), (["--runtime", "maixpy"], -40), (["--firmware", "m5stickv"], -40),
        (["--firmware", "sdk-develop"], 0),
    ):  # fmt: skip
        assert main(["run", "act.kmodel", "--input", "f.npy", "--json", *options]) == 0
        found = json.loads(capsys.readouterr().out)["outputs"][0]
        assert found["min"] == 0 if lowest == 0 else found["min"] < lowest, options
    assert main(["run", "act.kmodel", "--input", "f.npy", "--firmware", "canmv"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[0]
        .endswith(" ms in the simulator as CanMV (not recorded)")
    )
    assert main(["run", "act.kmodel", "--input", "f.npy", "--runtime", "sdk_master"]) != 0
    assert "SDK master returns -1 from a file that begins with FullyConnected" in (
        capsys.readouterr().err
    )
