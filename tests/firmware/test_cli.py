"""``k210 pack`` and ``k210 flash`` on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from k210tasks.cli import main
from k210tasks.firmware.kfpkg import Kfpkg, Part, read, write
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import Output as Range
from k210tasks.kmodel.v3_layers import Softmax
from tests.firmware.board import board, environment
from tests.firmware.test_images import Project

KMODEL = KmodelV3(
    layers=[Softmax(in_mem=0, out_mem=8, channels=2)], outputs=[Range(8, 8)], main_mem=16
).to_bytes()
#: The head of a kmodel 4, which is all that is read of one that is refused.
KMODEL4 = b"LDMK" + (4).to_bytes(4, "little") + bytes(32)

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a verb in the temporary folder: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    Path("fw.bin").write_bytes(b"program" * 10)
    Path("a.kmodel").write_bytes(KMODEL)
    Path("four.kmodel").write_bytes(KMODEL4)
    Path("cut.kmodel").write_bytes(KMODEL[:-12])

    def run(*args: str) -> tuple[int, str, str]:
        status = main(args)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_pack_makes_an_image_and_lists_it(say: Say) -> None:
    status, out, _ = say("pack", "fw.bin@0x0", "a.kmodel", "b@x.bin", "-o", "out/x.kfpkg")
    assert status == 1  # there is no b@x.bin, and an address it is not
    Path("b@x.bin").write_bytes(b"data")
    status, out, _ = say("pack", "fw.bin@0", "a.kmodel", "b@x.bin@4194304", "-o", "out/x.kfpkg")
    assert status == 0
    image = read(Path("out/x.kfpkg").read_bytes())
    assert [(p.address, p.data, p.sha256_prefix, p.source, p.kmodel) for p in image.parts] == [
        (0, b"program" * 10, True, "fw.bin", None),
        (0x300000, KMODEL, False, "a", 3),
        (0x400000, b"data", False, "b@x.bin", None),
    ]
    assert out.splitlines()[0] == (
        f"out/x.kfpkg: firmware image x for maixpy, 3 parts, {70 + len(KMODEL) + 4} bytes"
    )
    assert say("inspect", "out/x.kfpkg")[1] == out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["a.kmodel", "gone.bin"],
            "k210 pack: firmware x: gone.bin does not exist; build it, or correct the path\n",
        ),
        (
            ["four.kmodel", "--firmware", "maixpy-minimum"],
            "k210 pack: firmware x: model four is kmodel 4, profile maixpy-minimum loads only"
            " kmodel 3; build it as kmodel 3, or flash a firmware that loads version 4: maixpy,"
            " m5stickv, canmv, canmv-kpu5, sdk-develop, rt-thread\n",
        ),
        (
            ["a.kmodel@0x300000", "fw.bin@0x300000"],
            "k210 pack: firmware x: bin fw.bin at 0x300000..0x300045 overlaps model a at"
            " 0x300000..0x30ffff; the flasher writes whole 64 KiB frames, so move it to 0x310000 or"
            " beyond, or leave its address out\n",
        ),
        (
            ["a.kmodel@0xd00000"],
            f"k210 pack: firmware x: model a at 0xd00000..{0xD00000 + len(KMODEL) - 1:#x} lies in"
            " the file system of profile maixpy (0xd00000..0xffffff), which the firmware writes to;"
            " end it below 0xd00000\n",
        ),
        (
            ["cut.kmodel"],
            "k210 pack: cut.kmodel: byte 44 (0x2c), layer 0 (Softmax): body: needs 20 bytes, 8 are"
            " left; the file is cut short or damaged; copy or build it again\n",
        ),
        (
            ["a.kmodel@3M"],
            "k210 pack: a.kmodel@3M: '3M' is no address; write it like a.kmodel@0x300000\n",
        ),
        (["a.kmodel", "a.kmodel"], "k210 pack: a.kmodel is given twice; a part is given once\n"),
    ],
)
def test_pack_refuses(say: Say, args: list[str], message: str) -> None:
    status, out, err = say("pack", *args, "-o", "x.kfpkg")
    assert (status, out, err) == (1, "", message)
    assert not Path("x.kfpkg").exists()


def test_pack_does_not_take_anything_for_a_kmodel(say: Say) -> None:
    Path("bad.kmodel").write_bytes(b"<html>not found</html>")
    _, _, err = say("pack", "bad.kmodel", "-o", "x.kfpkg")
    assert err.startswith("k210 pack: bad.kmodel ends in .kmodel and is none: ")
    _, _, err = say("pack", "fw.bin", "-o", "fw.bin")
    assert err == "k210 pack: the output fw.bin is one of the parts; give another -o\n"


def test_pack_warns_of_a_model_where_the_firmware_may_be(say: Say) -> None:
    _, out, _ = say("pack", "a.kmodel@0x100000", "-o", "x.kfpkg")
    assert out.endswith(
        "warning: model a at 0x100000 lies below 0x300000, where profile maixpy keeps models; it"
        " may overwrite the firmware on the board\n"
    )


def test_inspect_refuses_a_damaged_or_hostile_kfpkg(say: Say) -> None:
    say("pack", "a.kmodel", "-o", "x.kfpkg")
    Path("x.kfpkg").write_bytes(Path("x.kfpkg").read_bytes()[:-9])
    status, _, err = say("inspect", "x.kfpkg")
    assert (status, err) == (
        1,
        "k210 inspect: x.kfpkg is cut short or damaged: the list of members at its end is missing;"
        " build or download it again\n",
    )


def test_flash_refuses_a_file_whose_parts_overwrite_each_other(say: Say) -> None:
    parts = (
        Part(0x300000, KMODEL, False, source="a", is_model=True, kmodel=3),
        Part(0x304000, b"data", False, source="b.bin"),
    )
    Path("x.kfpkg").write_bytes(write(Kfpkg(parts)))
    assert say("flash", "x.kfpkg", "--port", "/dev/null") == (
        1,
        "",
        "k210 flash: x.kfpkg: b.bin at 0x304000 shares the 64 KiB frame at 0x300000 with a.kmodel,"
        " so the later one would overwrite the earlier; pack it anew, each part in frames of its"
        " own, or write one model with --only\n",
    )
    status, _, err = say("flash", "x.kfpkg", "--only", "a", "--port", "/dev/null")
    assert (status, "is no serial port" in err) == (1, True)


@pytest.mark.parametrize("rate", ["0", "-3", "fast"])
def test_flash_takes_no_impossible_rate(say: Say, rate: str) -> None:
    with pytest.raises(SystemExit):
        say("flash", "x.kfpkg", "--baud", rate)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


def flash(
    project: Project, *args: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    merged = {**project.env, **(env or {})}
    merged["PYTHONPATH"] = os.pathsep.join(
        filter(None, [(env or {}).get("PYTHONPATH"), project.env["PYTHONPATH"]])
    )
    return subprocess.run(
        [sys.executable, "-c", "from k210tasks.cli import main; exit(main())", "flash", *args],
        cwd=project.root,
        env=merged,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux pseudo-terminals")
def test_flash_builds_what_is_needed_and_writes_it(project: Project, tmp_path: Path) -> None:
    env = environment(tmp_path)
    with board() as target:
        done = flash(project, "low", "--port", target.port, "--board", "dan", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith("written; the board starts again\n")
        assert target.complaints == []
        assert target.rebooted
        for part in read(project.image("low")).parts[1:]:
            assert target.flash(part.address, len(part.data)) == part.data
        assert target.flash(5, len(b"program")) == b"program"
    with board() as target:
        done = flash(
            project, "low", "--only", "m0", "--port", target.port, "--board", "dan", env=env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert [address for address, _ in target.writes] == [0x400000]
        assert target.writes[0][1] == (project.root / "workspace/m0.kmodel").read_bytes()


def test_flash_refuses_an_image_whose_parts_are_not_todays(project: Project) -> None:
    def refusal(*args: str) -> str:
        done = flash(project, *args, "--no-build", "--port", "/dev/null")
        assert done.returncode == 1
        return done.stderr

    assert refusal("mixed") == (
        "k210 flash: build/mixed.kfpkg does not exist; build it: doit firmware:mixed\n"
    )
    project.build("firmware:mixed")
    whole = project.image("mixed")
    assert "is no serial port" in refusal("mixed")  # it is current: only the port is wrong

    kmodel = project.root / "workspace/m3.kmodel"
    kept = kmodel.read_bytes()
    kmodel.write_bytes(kept + b"!")
    assert refusal("mixed").startswith(
        "k210 flash: build/mixed.kfpkg is not current: it holds another model m3 than"
        " workspace/m3.kmodel (sha256 "
    )
    kmodel.write_bytes(kept)
    assert "is no serial port" in refusal("mixed")

    image = read(whole)
    path = project.root / "build/mixed.kfpkg"
    path.write_bytes(write(Kfpkg(image.parts[:1], "mixed", "maixpy")))
    assert refusal("mixed") == (
        "k210 flash: build/mixed.kfpkg is not current: it does not hold model m7; build it: doit"
        " firmware:mixed\n"
    )
    path.write_bytes(
        write(Kfpkg((*image.parts, Part(0, b"x", True, source="y")), "mixed", "maixpy"))
    )
    assert "it holds bin y, which models.yaml does not put into it" in refusal("mixed")
    path.write_bytes(write(Kfpkg(image.parts, "high", "maixpy")))
    assert "it is image high for profile maixpy, models.yaml has mixed for maixpy" in refusal(
        "mixed"
    )
    path.write_bytes(whole)
    project.edit("address: 0x310000", "address: 0x320000")
    assert "it has model m7 at 0x310000, models.yaml at 0x320000" in refusal("mixed")


def test_flash_names_what_there_is(project: Project) -> None:
    done = flash(project, "demo")
    assert (done.returncode, done.stderr) == (
        1,
        "k210 flash: models.yaml has no firmware image demo; it has low, high, mixed\n",
    )
    project.build("firmware:mixed")
    done = flash(project, "build/mixed.kfpkg", "--only", "m9")
    assert done.stderr == (
        "k210 flash: image build/mixed.kfpkg holds no model m9; it holds m3, m7\n"
    )


def test_flash_flashes_nothing_when_the_build_fails(project: Project) -> None:
    project.edit("min_cosine: 0.98", "min_cosine: 0.995", 1)
    done = flash(project, "low", "--port", "/dev/null")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "k210 flash: firmware:low was not built, nothing is flashed; see above\n"
    )
    assert "cosine 0.99 is below 0.995" in done.stderr
