from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from k210tasks.cli import main
from k210tasks.firmware import kfpkg
from k210tasks.kmodel import write
from tests.simulator import models

KMODELS = Path(__file__).parents[3] / "shared" / "fixtures" / "kmodel"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.kmodel"
    path.write_bytes(write(models.net_v3()))
    return path


EXPECTED = """\
net.kmodel: kmodel 3 (the format of nncase 0.1), {size} bytes
12 layers, 3 on the KPU, 8-bit weights

0: K210Conv2d 1x3x12x20 -> 1x4x6x10
1: K210Conv2d 1x4x6x10 -> 1x4x6x10
2: QuantizedMaxPool2d 1x4x6x10 -> 1x4x3x5
3: Dequantize 1x4x3x5 -> 1x4x3x5
4: TensorflowFlatten 1x4x3x5 -> 1x60
5: FullyConnected 1x60 -> 1x8
6: Quantize 1x8 -> 1x8
7: K210AddPadding 1x8 -> 1x8x4x4
8: K210Conv2d 1x8x4x4 -> 1x5x4x4
9: K210RemovePadding 1x5x4x4 -> 1x5
10: Dequantize 1x5 -> 1x5
11: Softmax 1x5 -> 1x5

KPU layer  kernel  pool                MACs weight B rows in   out  est. us
        0  3x3     max 2x2            25920      108      24     6      0.2
        1  3x3 dw  none                2160       36       6     6      0.0
        8  1x1     none                 640       40       8     8      0.1
      sum                             28720      184                    0.3

KPU memory usage: 19712 B
Main memory usage: 2048 B
input 0: uint8 1x3x12x20 (CHW), 720 bytes in KPU RAM at 0x0, zero at code {zero}
output 0: float32 1x5, 20 bytes in main memory at 0x400
loaded by: maixpy, maixpy-minimum, maixpy-lvgl, m5stickv, canmv, canmv-kpu5,
  sdk, sdk-develop, freertos, rt-thread, arduino
"""


def test_the_listing_of_a_small_model(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["inspect", "net.kmodel"]) == 0
    first: Any = models.net_v3().layers[0]
    expected = EXPECTED.format(size=model.stat().st_size, zero=first.registers.pad_value)
    out = capsys.readouterr().out
    assert out == expected
    assert max(map(len, out.splitlines())) <= 80


def test_json_holds_the_same_facts(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["version"], facts["kpu_bytes"], facts["main_bytes"]) == (3, 19712, 2048)
    assert facts["layers"][8]["kpu"]["macs"] == 640
    assert facts["layers"][7]["output"] == [1, 8, 4, 4]
    assert facts["inputs"][0]["shape"] == [1, 3, 12, 20]
    assert facts["loaded_by"][0] == "maixpy"


def test_a_model_inside_a_larger_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xff" * 0x100 + write(models.net_v4()) + b"\xff" * 50)
    assert main(["inspect", str(path), "--base", "0x100"]) == 0
    out = capsys.readouterr().out
    assert "kmodel 4 (the format of nncase 0.2), " in out
    assert ", 50 more follow" in out
    assert "0: kpu_conv2d 1x3x12x20 -> 1x4x6x10\n" in out


def test_a_kfpkg_lists_its_parts_and_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(models.net_v3())
    image = kfpkg.Kfpkg(
        (
            kfpkg.Part(0, bytes(100), True, source="fw.bin"),
            kfpkg.Part(0x300000, data, False, source="net", is_model=True, kmodel=3),
            kfpkg.Part(0x400000, b"junk", False, source="bad", is_model=True, kmodel=3),
        )
    )
    path = tmp_path / "a.kfpkg"
    path.write_bytes(kfpkg.write(image))
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "net.kmodel" in out
    assert "bad.kmodel" in out
    assert main(["inspect", str(path), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert [part["address"] for part in parts] == [0, 0x300000, 0x400000]
    assert parts[1]["model"]["kpu_bytes"] == 19712
    assert (parts[0]["model"], parts[0]["problem"]) == (None, None)
    assert parts[2]["problem"] == "bad.kmodel should be a kmodel and is none"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read: it is empty"),
        (b"LDMK" + struct.pack("<I", 5) + bytes(99),
         "is a kmodel 5, the format of nncase 1.x; layers can be listed for versions 3 and 4 "
         "only. It is loaded by: canmv-kpu5, sdk-develop"),
        (b"LDMK" + struct.pack("<I", 7) + bytes(99),
         "is a kmodel 7, the format of nncase 2.1 or later; layers can be listed for versions 3 "
         "and 4 only. It is loaded by: no firmware this package knows"),
        (b"\x1c\0\0\0TFL3" + bytes(99), "byte 0 (0x0), identifier: this is a TFLite model, not a"),
        (struct.pack("<7I", 3, 1, 0, 9, 0, 0, 0),
         "byte 28 (0x1c), layer headers: needs 72 bytes, 0 are left; the file is cut short"),
    ],
)  # fmt: skip
def test_files_that_are_none(
    data: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.kmodel"
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"k210 inspect: {path}")
    assert message in error


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file here")
def test_a_file_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "/dev/zero"]) == 1
    assert capsys.readouterr().err == (
        "k210 inspect: /dev/zero cannot be read: it has more than the 64 MiB of any file for a "
        "K210\n"
    )


def test_missing_files_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "no.kmodel")]) == 1
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "cannot be read: it is a folder" in capsys.readouterr().err


def test_lint_tells_what_a_firmware_makes_of_a_file(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["inspect", "net.kmodel", "--lint", "freertos"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "net.kmodel: 3 findings for freertos, whose runtime is the FreeRTOS SDK (not recorded)"
    )
    assert max(map(len, lines[1:])) <= 80
    assert main(["inspect", "net.kmodel", "--lint", "sdk-develop"]) == 0
    assert capsys.readouterr().out == (
        "net.kmodel: nothing found for sdk-develop, whose runtime is SDK develop\n"
    )
    assert main(["inspect", "net.kmodel", "--lint", "maixpy", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["runtime"], said["recorded"]) == ("maixpy", True)
    assert [(f["layer"], f["pitfall"]) for f in said["findings"]] == [(5, "ignored_act")]


@pytest.mark.skipif(not KMODELS.is_dir(), reason="needs ../shared/fixtures")
@pytest.mark.parametrize(
    ("name", "profile", "pitfalls"),
    [
        ("v3/yolo20", "maixpy", []),
        ("v3/face_detect", "maixpy", []),
        ("v3/mnist", "maixpy", ["ignored_act"]),
        ("v3/mnist", "sdk-develop", []),
        ("v3/iris", "sdk", ["begins_dense", "ignored_act"]),
        ("v3/yolo20", "freertos", ["lacking"]),
        ("v4/ulffd_landmark", "maixpy", []),
        ("v4/slim-320", "sdk-develop", []),
        ("v4/yolo20", "canmv", []),
        ("v4/iris", "arduino", ["other_version"]),
    ],
)
def test_lint_of_vendors_files(
    name: str, profile: str, pitfalls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"{KMODELS}/{name}.kmodel"
    assert main(["inspect", path, "--lint", profile, "--json"]) == bool(pitfalls)
    said = json.loads(capsys.readouterr().out)
    assert [f["pitfall"] for f in said["findings"]] == pitfalls
