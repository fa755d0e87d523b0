"""The listing of a kfpkg: every part, and every kmodel in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k210tasks.cli import main
from k210tasks.firmware.describe import describe, kmodels
from k210tasks.firmware.kfpkg import Kfpkg, Part, write
from tests.firmware.test_cli import KMODEL

KMODELS = Path(__file__).parents[3] / "shared" / "fixtures" / "kmodel"
IMAGE = Kfpkg(
    (
        Part(0, b"program", True, source="fw/maixpy.bin"),
        Part(0x300000, KMODEL, False, source="a", is_model=True, kmodel=3),
        Part(0x310000, b"LDMK" + (5).to_bytes(4, "little") + bytes(99), False, source="five.bin"),
    ),
    "demo",
    "maixpy",
)

LISTING = """\
x.kfpkg: firmware image demo for maixpy, 3 parts, {total} bytes
0x000000..0x00002b         7 bytes  maixpy.bin
    a program: its length and SHA-256 are stored with it
    from fw/maixpy.bin
    sha256 {program}
0x300000..{last:#08x} {nbytes:>9} bytes  a.kmodel
    model a
    sha256 {model}
    kmodel 3 (nncase 0.1), loaded by maixpy, maixpy-minimum, maixpy-lvgl,
      m5stickv, canmv, canmv-kpu5, sdk, sdk-develop, freertos, rt-thread,
      arduino
    output 1x2 float32
    1 layer; KPU memory usage: 0 B; Main memory usage: 16 B
0x310000..0x31006a       107 bytes  five.bin
    sha256 {five}
    kmodel 5 (nncase 1.x), loaded by canmv-kpu5, sdk-develop
"""


def test_the_listing() -> None:
    program, model, five = (part.sha256 for part in IMAGE.parts)
    expected = LISTING.format(
        total=7 + len(KMODEL) + 107,
        last=0x300000 + len(KMODEL) - 1,
        nbytes=len(KMODEL),
        program=program,
        model=model,
        five=five,
    )
    listing = describe(write(IMAGE), "x.kfpkg")
    assert listing == expected


def test_a_damaged_kmodel_is_said_and_nothing_else_is_taken_for_one() -> None:
    broken = Kfpkg((Part(0x300000, KMODEL[:30], False, "a.kmodel"),))
    assert "    damaged: byte " in describe(write(broken))
    noise = b"LDMK" + (4).to_bytes(4, "little") + bytes(4092) + b"LDMK" + b"\xff" * 5000
    assert [at for at, _ in kmodels(b"x" * 4096 + noise)] == []
    assert list(kmodels(b"\x03\0\0\0")) == []


def test_parts_that_share_a_frame_are_warned_of() -> None:
    crowded = Kfpkg((Part(0x300000, b"a" * 20, False, "a"), Part(0x304000, b"b", False, "b")))
    assert describe(write(crowded)).endswith(
        "warning: b at 0x304000 shares the 64 KiB frame at 0x300000 with a\n"
    )


@pytest.mark.skipif(not KMODELS.is_dir(), reason="needs ../shared/fixtures")
def test_two_kmodels_in_one_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = (KMODELS / "v4" / "slim-320.kmodel").read_bytes()
    two = (KMODELS / "v4" / "iris.kmodel").read_bytes()
    both = one + b"\x55" * (0x100000 - len(one)) + two
    path = tmp_path / "x.kfpkg"
    path.write_bytes(write(Kfpkg((Part(0x300000, both, False, "both.kmodel"),))))
    assert main(["inspect", str(path)]) == 0
    listing = capsys.readouterr().out
    assert "\n    kmodel 4 (nncase 0.2), loaded by " in listing
    assert "\n    kmodel 4 at 0x400000 (nncase 0.2), loaded by " in listing
    assert "\n    input 1x1x1x4 float32\n" in listing
    assert main(["inspect", str(path), "--json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    assert part["kmodels"] == [{"offset": 0, "version": 4}, {"offset": 0x100000, "version": 4}]
