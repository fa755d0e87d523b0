"""The stock flasher against a board on a pseudo-terminal, and its failures in our words."""

from __future__ import annotations

import binascii
import hashlib
import importlib.util
import os
import random
import re
import struct
import sys
import zlib
from pathlib import Path

import pytest

from k210tasks.firmware.flasher import FlashFailed, flash, ports, translate
from k210tasks.firmware.kfpkg import Kfpkg, Part, read, write
from tests.firmware.board import board, environment

RANDOM = random.Random(210)
PROGRAM = RANDOM.randbytes(100_000) + b"\xc0\xdb\xdc\xdd" * 50  # every byte SLIP must escape
MODEL = RANDOM.randbytes(70_000)
OTHER = RANDOM.randbytes(1234)

IMAGE = read(
    write(
        Kfpkg(
            (
                Part(0, PROGRAM, True, source="maixpy.bin"),
                Part(0x300000, MODEL, False, source="nn_xo", is_model=True, kmodel=3),
                Part(0x321000, OTHER, False, source="digits", is_model=True, kmodel=4),
            ),
            "demo",
            "maixpy",
        )
    )
)


def flash_program() -> bytes:
    """The program kflash sends into SRAM, taken from its source."""
    spec = importlib.util.find_spec("kflash")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    packed = re.search(r"ISP_PROG = '([0-9a-f]+)'", source)
    assert packed is not None
    return zlib.decompress(binascii.unhexlify(packed[1]))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "demo.kfpkg"
    path.write_bytes(write(IMAGE))
    return path


def stored_program() -> bytes:
    """As the flasher stores a program: flags with its dual-line bit, length, data, SHA-256."""
    content = b"\x02" + struct.pack("<I", len(PROGRAM)) + PROGRAM
    return content + hashlib.sha256(content).digest()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux pseudo-terminals")
@pytest.mark.parametrize(("name", "baud"), [("dan", 1_500_000), (None, 115_200)])
def test_what_arrives_in_flash_is_what_was_packed(
    package: Path, tmp_path: Path, name: str | None, baud: int
) -> None:
    seen: list[tuple[int, int, str]] = []
    with board() as target:
        flash(
            package,
            IMAGE,
            port=target.port,
            board=name,
            baud=baud,
            progress=lambda *step: seen.append(step),
            environment=environment(tmp_path),
        )
        assert target.complaints == []
        assert bytes(target.sram) == flash_program()
        assert (target.booted, target.initialised, target.rebooted) == (True, True, True)
        assert target.baud == (None if baud == 115_200 else baud)
        assert target.flash(0, len(stored_program())) == stored_program()
        assert target.flash(0x300000, len(MODEL)) == MODEL
        assert target.flash(0x321000, len(OTHER)) == OTHER
        assert sum(len(data) for _, data in target.writes) == len(stored_program() + MODEL + OTHER)
    total = len(PROGRAM + MODEL + OTHER)
    assert seen[0] == (0, total, "the flash program")
    assert seen[-1] == (total, total, "digits.kmodel")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux pseudo-terminals")
def test_a_board_that_falls_silent_is_not_waited_for_forever(package: Path, tmp_path: Path) -> None:
    with board(deaf_after=3) as target, pytest.raises(FlashFailed) as error:
        flash(
            package,
            IMAGE,
            port=target.port,
            board="dan",
            stall_seconds=4,
            environment=environment(tmp_path),
        )
    assert str(error.value) == (
        "the board stopped answering while nn_xo.kmodel was written to 0x300000; what is in its"
        " flash is incomplete: check the cable, reset the board and flash again, with a lower"
        " --baud (115200) if it happens twice"
    )


def test_a_board_that_is_knocked_at_in_vain_is_not_waited_for_forever(
    package: Path, tmp_path: Path
) -> None:
    """A flasher that repeats a refused command without end is never silent."""
    (tmp_path / "kflash.py").write_text(
        "import time\nwhile True:\n    print('[WARN] Retrying', flush=True)\n    time.sleep(0.05)\n"
    )
    with pytest.raises(FlashFailed) as error:
        flash(
            package,
            IMAGE,
            port="/dev/k210",
            knock_seconds=0.5,
            environment={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
    assert str(error.value).startswith(
        "no answer from a K210 on /dev/k210, reset as any known board; check that it is the"
        " board's port and that the cable carries data, name the board with --board (dan, "
    )


def test_what_lies_in_the_current_folder_is_not_run(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("kflash.py", "runpy.py", "serial.py"):
        (here / name).write_text("open('ran', 'w')\n", "utf-8")
    monkeypatch.chdir(here)
    with pytest.raises(FlashFailed):
        flash(package, IMAGE, port=str(tmp_path / "no-port"), knock_seconds=0.5)
    assert not (here / "ran").exists()


def test_a_port_that_is_no_port_or_not_there(package: Path) -> None:
    here = ", ".join(ports())
    where = f"ports here: {here}" if here else "this machine has no serial port now"
    with pytest.raises(FlashFailed) as error:
        flash(package, IMAGE, port=str(package))
    assert str(error.value) == f"{package} is no serial port; name the board's port ({where})"
    with pytest.raises(FlashFailed) as error:
        flash(package, IMAGE, port="/dev/k210-is-not-here")
    assert str(error.value) == (
        f"there is no port /dev/k210-is-not-here; connect the board, or name another ({where})"
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "[Errno 13] could not open port /nowhere/ttyUSB0: [Errno 13] Permission denied:"
            " '/nowhere/ttyUSB0'",
            "no permission to open /nowhere/ttyUSB0; join its group, sudo usermod -a -G dialout"
            " $USER, and log in again",
        ),
        (
            "[Errno 16] could not open port /dev/ttyUSB0: [Errno 16] Device or resource busy:"
            " '/dev/ttyUSB0'",
            "/dev/ttyUSB0 is in use by another program; close its terminal or IDE and flash again",
        ),
        (
            "Greeting fail, check serial port ([ERROR] No valid Kendryte K210 found in Auto Detect,"
            " Check Your Connection or Specify One by`-p /dev/ttyUSB0` )",
            "no answer from a K210 on /dev/ttyUSB7, reset as board bit; check that it is the"
            " board's port and that the cable carries data, name the board with --board (dan, bit,"
            " bit_mic, goE, goD, kd233, maixduino, trainer), or hold its BOOT key while it is"
            " reset",
        ),
        (
            "[ERROR] Fast mode failed, please use slow mode by add parameter --Slow",
            "the board on /dev/ttyUSB7 answers at 115200 baud and not as board bit at 1500000;"
            " name the right --board, or use --baud 115200",
        ),
        (
            "[ERROR] Failed to Connect to K210's Stub",
            "the board on /dev/ttyUSB7 answered and was lost again at 1500000 baud; use a lower"
            " --baud (115200), another cable or port (kflash: Failed to Connect to K210's Stub)",
        ),
        (
            "/usr/bin/python3: No module named kflash",
            f"kflash is not installed for this Python; run {sys.executable} -m pip install kflash",
        ),
        ("Traceback: odd", "the flasher failed; see what it said (kflash: Traceback: odd)"),
    ],
)
def test_failures_in_our_words(said: str, message: str) -> None:
    assert str(translate([said, ""], "/dev/ttyUSB7", "bit", 1_500_000)) == message


def test_no_board_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "[ERROR] No valid COM Port found in Auto Detect, Check Your Connection or Specify One"
    for here, told in [
        (["/dev/ttyS0", "/dev/ttyS4"], "ports here: /dev/ttyS0, /dev/ttyS4"),
        ([], "this machine has no serial port now"),
    ]:
        monkeypatch.setattr("k210tasks.firmware.flasher.ports", lambda here=here: here)
        assert str(translate([said], None, None, 115200)) == (
            "no serial port of a K210 board found; connect the board, or name its port with --port"
            f" ({told})"
        )
