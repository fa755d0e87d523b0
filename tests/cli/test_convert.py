"""``k210 convert``: what it refuses, word for word, and one real conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from k210tasks import toolchains
from k210tasks.cli import main
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.toolchains import nncase
from tests.compiler.tflite_builder import Net
from tests.steps.tiny import dense, relu

V5 = b"LDMK\x05\x00\x00\x00" + bytes(24)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and pictures, in which the command runs."""
    (tmp_path / "m.tflite").write_bytes(dense(np.ones((2, 12)), [1, 2, 2, 3]))
    (tmp_path / "images").mkdir()
    for i in range(12):
        picture = Image.new("RGB", (2, 2), (i, 2 * i, 3 * i))
        picture.putpixel((1, 1), (200, 201, 203))
        picture.save(tmp_path / f"images/{i:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """nncase played by a function; what it was asked."""
    asked: dict[str, Any] = {}

    def compile(toolchain: Any, **request: Any) -> dict[str, Any]:
        asked.update(request, samples=np.load(request["samples"]))
        request["log"].write("vendor's words\n")
        request["out"].write_bytes(asked.get("writes", V5))
        memory = {"total": 200, "model": 32}
        return {"bytes": 32, "input": None, "outputs": [], "memory": memory, "listing": "LIST"}

    class Ready:
        name = "nncase-1.9.0"

        def install(self, say: Any, progress: Any) -> None:
            asked["installed"] = True

    monkeypatch.setattr(nncase, "compile", compile)
    monkeypatch.setattr(toolchains, "get", lambda *args: Ready())
    return asked


NNCASE = ["--compiler", "nncase-1.9.0"]


def test_writes_beside_its_input_and_prints_listing_and_memory(
    place: Path, vendor: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        ["convert", "m.tflite", "--images", "images", "--mean", "0.5", "--std", "0.5", *NNCASE]
    )
    assert status == 0
    assert (place / "m.kmodel").read_bytes() == V5
    assert capsys.readouterr().out == (
        "LIST\nInput: 3x2x2 planar rgb uint8, raw pixels 0..255, not scaled\n"
        "KPU memory usage: not told by kmodel 5\nMain memory usage: 168 B\n"
        "wrote m.kmodel: kmodel 5, 32 bytes, by nncase-1.9.0\n"
        "wrote m.kmodel.contract.json: how it is fed, for firmware and the other verbs\n"
    )
    assert vendor["installed"]
    assert (vendor["mean"], vendor["std"], vendor["method"]) == (0.5, 0.5, "no_clip")
    assert vendor["samples"].shape == (12, 3, 2, 2)
    assert sorted(p.name for p in place.iterdir()) == [
        "images",
        "m.kmodel",
        "m.kmodel.contract.json",
        "m.tflite",
    ]


def test_output_samples_color_and_the_warning(
    place: Path, vendor: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-o", "out.bin", "--samples", "3", "--color", "bgr", "--method", "mse"]
    assert main(["convert", "m.tflite", "--images", "images", *arguments, *NNCASE]) == 0
    assert (place / "out.bin").read_bytes() == V5
    assert vendor["method"] == "l2"
    assert vendor["samples"][:, :, 0, 0].tolist() == [[6, 4, 2], [18, 12, 6], [30, 20, 10]]
    assert "warning: mean and std are not stated, 0 and 1 are used" in capsys.readouterr().out


def test_what_is_doubtful_is_said_in_the_words_of_the_options(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the built-in compiler: one black picture, values in 0..255 units, and no KPU layer."""
    (place / "black").mkdir()
    Image.new("RGB", (2, 2)).save(place / "black/1.png")
    arguments = ["--images", "black", "--mean", "127.5", "--std", "127.5", "--kmodel", "4"]
    assert main(["convert", "m.tflite", *arguments]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("warning: ")] == [
        "warning: mean 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so a mean "
        "lies between 0 and 1; 127.5 of 255 is --mean 0.5",
        "warning: std 127.5 cannot be meant: a pixel enters as (pixel/255 - mean)/std, so pixels "
        "would span 0.0078; 127.5 of 255 is --std 0.5",
        "warning: calibrated on only 1 image: values that do not occur in them are cut off; 10 "
        "are the least, about 100 that look like what the board will see are good: --images",
        "warning: the only calibration image is (nearly) of one colour, as black ones are: the "
        "ranges chosen on them fit nothing else; give such as the board will see: --images",
        "warning: none of 3 layers runs on the KPU: the CPU computes everything, many times "
        "slower; the KPU takes 1x1 and 3x3 convolutions (SUPPORTED_OPS.md)",
    ]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["convert", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["workspace/a.pb", "--images", "images"],
            "workspace/a.pb is no .tflite or .onnx; TensorFlow and Keras models go through the "
            "chain: k210 init lists them in a models.yaml, then doit converts them",
        ),
        (
            ["m.tflite", "--images", "images", *NNCASE, "--kmodel", "3"],
            "nncase-1.9.0 writes kmodel 5, not 3",
        ),
        (
            ["m.tflite", "--images", "images", "--compiler", "ncc-0.1.0-rc5", "--method", "kl"],
            "ncc-0.1.0-rc5 has no calibration method kl; it has minmax",
        ),
        (
            ["m.tflite", *NNCASE],
            "nncase-1.9.0 needs images to calibrate with: --images DIR, about 100 that look like "
            "what the camera will see",
        ),
        (
            ["m.tflite", "--images", "images", *NNCASE, "-o", "m.tflite"],
            "the output m.tflite is the model itself; give another -o",
        ),
        (
            ["m.tflite", "--images", "images", *NNCASE, "-o", "no/such/folder/m.kmodel"],
            "no/such/folder/m.kmodel.log cannot be written: No such file or directory",
        ),
        (
            ["m.tflite", "--images", "images", *NNCASE, "-o", "images"],
            "images cannot be written: it is a folder; name a file in it, OUT.kmodel",
        ),
        (["gone.tflite", "--images", "images"], "gone.tflite: No such file or directory"),
        (
            ["m.tflite", "--images", "gone", *NNCASE],
            "the folder gone does not exist; it may hold pictures (.jpg .jpeg .png .bmp .gif) or "
            "tensors (.npy .bin), sub-folders included",
        ),
    ],
)
def test_refusals(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert refused(arguments, capsys) == f"k210 convert: {text}\n"


def test_the_log_stays_where_something_failed(
    place: Path, vendor: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    vendor["writes"] = b"LDMK\x04\x00\x00\x00"
    (place / "m.kmodel").write_bytes(V5 + b"the last good one")
    assert refused(["m.tflite", "--images", "images", *NNCASE], capsys) == (
        "k210 convert: nncase-1.9.0 reported success but wrote no kmodel 5: it is version 4; "
        "full log: m.kmodel.log\n"
    )
    assert "vendor's words\n" in (place / "m.kmodel.log").read_text()
    assert (place / "m.kmodel").read_bytes() == V5 + b"the last good one"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--std", "0"], "std divides, so it cannot be 0"),
        (["--mean", "inf"], "inf is not a finite number"),
        (["--mean", "1,2"], "1,2 holds 2 numbers; pictures have 1 channel or 3"),
        (["--std", "1,0,1"], "std divides, so it cannot be 0"),
        (["--samples", "0"], "0 is less than 1"),
    ],
)
def test_usage(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", "m.tflite", "--images", "images", *arguments])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_with_the_real_nncase(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not toolchains.get("nncase-1.9.0").installed():
        pytest.skip("the toolchain nncase-1.9.0 is not installed")
    (place / "real.tflite").write_bytes(relu([1, 8, 8, 3]))
    arguments = ["--images", "images", "--mean", "0", "--std", "1", *NNCASE]
    assert main(["convert", "real.tflite", *arguments]) == 0
    out = capsys.readouterr().out
    assert "Main memory usage: " in out
    assert (place / "real.kmodel").read_bytes()[:8] == V5[:8]
    compared = main(["compare", "real.tflite", "real.kmodel", *arguments[:-2]])
    assert compared == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("map ")
    assert float(lines[1].split()[2]) > 0.99
    assert float(lines[1].split()[3]) < 100  # quantised, so not exact
    assert lines[2].startswith("12 samples, worst images/")


def test_mean_and_std_of_each_channel(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The contract beside the kmodel tells them to compare and run."""
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 8)
    Path("net.tflite").write_bytes(net.build())
    rng = np.random.default_rng(1)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(f"images/{i:02}.png")
    scaling = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]
    assert main(["convert", "net.tflite", "--images", "images", *scaling]) == 0
    assert main(["compare", "net.tflite", "net.kmodel", "--images", "images"]) == 0
    out = capsys.readouterr().out
    assert "warning: mean and std" not in out
    rows = out.splitlines()
    [head] = [i for i, line in enumerate(rows) if "SNR" in line and "cosine" in line]
    assert float(rows[head + 1].split()[3]) > 35
    assert main(["run", "net.kmodel", "--input", "images/00.png", "--output", "a.npz"]) == 0
    from k210tasks.samples.loading import Loader
    from k210tasks.samples.preprocess import Preprocess

    asked = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    np.save("real.npy", Loader((1, 8, 8, 3), asked).tensor(Path("images/00.png")))
    assert main(["run", "net.kmodel", "--input", "real.npy", "--output", "b.npz"]) == 0
    # The floats of the pixels become the pixels' codes again.
    np.testing.assert_array_equal(np.load("a.npz")["output_0"], np.load("b.npz")["output_0"])


def test_nncase_is_told_them_as_they_are(place: Path, vendor: dict[str, Any]) -> None:
    scaling = ["--mean", "0.485,0.456,0.406", "--std", "0.5,0.5,0.5"]
    assert main(["convert", "m.tflite", "--images", "images", *scaling, *NNCASE]) == 0
    assert (vendor["mean"], vendor["std"]) == ((0.485, 0.456, 0.406), 0.5)


def test_every_compiler_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in COMPILERS)


def test_small_maps_are_put_out_by_the_kpu_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net((1, 6, 6, 3))
    net.conv(net.input, 8, (1, 1), stride=(2, 2))
    Path("m.tflite").write_bytes(net.build())

    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (6, 6), (90 * i, 40, 200)).save(tmp_path / f"images/{i}.png")

    def listing(*arguments: str) -> str:
        contract = ["--images", "images", "--mean", "0", "--std", "1", "--kmodel", "4"]
        assert main(["convert", "m.tflite", *contract, *arguments]) == 0
        return capsys.readouterr().out

    assert "kpu_conv2d 1x3x6x6 -> 1x8x6x6\n" in listing()
    assert "kpu_conv2d 1x3x6x6 -> 1x8x6x6\n" in listing("--small-maps", "padded")
    assert "kpu_conv2d 1x3x6x6 -> 1x8x3x3\n" in listing("--small-maps", "kpu")

    def layers(*arguments: str) -> str:
        assert main(["check", "m.tflite", "--kmodel", "4", *arguments]) == 0
        return capsys.readouterr().out.partition("Model size: ")[2]

    assert "in 3 layers" in layers()  # the pixels are picked on the CPU
    assert "in 2 layers" in layers("--small-maps", "kpu")


def test_files_of_the_user_are_left(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "net.log").write_text("mine")
    (place / "m.kmodel.log").write_text("mine")
    command = ["convert", "m.tflite", "--images", "images", "--mean", "0", "--std", "1"]
    assert main([*command, "-o", "net"]) == 0
    assert main(command) == 0
    assert (place / "net.log").read_text() == (place / "m.kmodel.log").read_text() == "mine"
    assert sorted(p.name for p in place.glob("*.log")) == ["m.kmodel.log", "net.log"]
    assert main([*command, "-o", "net"]) == 0  # a kmodel may be replaced
    (place / "notes.txt").write_text("mine, all mine")
    capsys.readouterr()
    assert main([*command, "-o", "notes.txt"]) == 1
    assert capsys.readouterr().err == (
        "k210 convert: notes.txt is no kmodel, and it would be overwritten; move it away, or give "
        "another -o\n"
    )
    assert (place / "notes.txt").read_text() == "mine, all mine"
