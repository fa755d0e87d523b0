"""Load snippets of models that are fed with codes of numbers: what reaches the runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.firmware.snippets import Entry, load_snippet
from k210tasks.profiles import PROFILES
from tests.firmware import maix
from tests.firmware.test_snippets import FLASH, HEADERS

ADDRESS = 0x300000
#: 10 numbers in 3 rows of 4: two codes are left over.
CODES = Input((1, 3, 4), "planar", "uint8", scale=0.1, zero_point=116.0, kind="tensors",
              model_shape=(10,))  # fmt: skip
#: values whose quotients are no ties, the ends beyond 0 and 255, and 0
NUMBERS = [0.0, 0.11, -0.26, 3.0, 13.94, 99.0, -11.64, -80.0, 1e-9, 5.56]
EXPECTED = [116, 117, 113, 146, 255, 255, 0, 0, 116, 172]  # 13.94 / 0.1 = 139.4: 139 + 116


def contract(given: Input = CODES, profile: str = "maixpy", kmodel: int = 3) -> Contract:
    return Contract("har", kmodel, profile, given, (Output("y", (3,)),))


def snippet(given: Input, profile: str, kmodel: int = 3) -> str:
    entry = Entry(contract(given, profile, kmodel), ADDRESS, 3512)
    return load_snippet("demo", PROFILES[profile], [entry]).text


def test_the_expected_codes_are_the_contracts() -> None:
    assert CODES.codes(np.array(NUMBERS)).tolist()[:10] == EXPECTED


@pytest.mark.parametrize("profile", [p.name for p in PROFILES.values()])
def test_every_snippet_states_the_formula(profile: str) -> None:
    text = snippet(CODES, profile)
    assert "code = round(x / 0.1) + 116, clamped to 0..255" in text
    assert "raw pixels" not in text
    assert "mean" not in text


def run_on(modules: dict[str, ModuleType], text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    names: dict[str, Any] = {}
    exec(compile(text, "load.py", "exec"), names)
    return names


class Board:
    """What a runtime was given."""

    def __init__(self) -> None:
        self.fed: list[list[int]] = []

    def __call__(self, raw: bytes) -> list[list[float]]:
        self.fed.append(list(raw))
        return [[0.0, 1.0, 2.0]]


@pytest.mark.parametrize("profile", ["maixpy", "maixpy-minimum", "m5stickv", "canmv-kpu5"])
def test_codes_go_in_as_a_grey_image(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    modules = maix.maixpy(board, ADDRESS)
    if profile == "canmv-kpu5":
        modules = maix.canmv_kpu5(board, ADDRESS, 3512)
    names = run_on(modules, snippet(CODES, profile), monkeypatch)
    names["run_har"](NUMBERS)
    ((*codes, one, other),) = board.fed
    assert codes == EXPECTED
    assert {one, other} <= set(range(256))
    assert all(names["code_har"](x) == code for x, code in zip(NUMBERS, EXPECTED, strict=True))


def test_canmv_reads_codes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    names = run_on(maix.canmv(board, ADDRESS, 3512), snippet(CODES, "canmv"), monkeypatch)
    assert names["run_har"](NUMBERS, str(tmp_path / "input.bin")) == [0.0, 1.0, 2.0]
    assert board.fed[0][:10] == EXPECTED
    assert len(board.fed[0]) == 12


@pytest.mark.parametrize(
    "given",
    [
        replace(CODES, shape=(3, 2, 2)),  # an RGB565 image keeps 5 or 6 bits of a code
        replace(CODES, shape=(12,), layout="flat"),
        replace(CODES, scale=None),
    ],
)
def test_what_micropython_cannot_feed_is_said(given: Input) -> None:
    text = snippet(given, "maixpy")
    assert "run_har" not in text
    assert "# This firmware's MicroPython feeds images of 1 or 3 channels or floats" in text
    assert "set kmodel: 4" in text


def test_floats_go_in_as_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """MaixPy makes float32 of every list, so that codes in one would be read as bytes of floats."""
    board = Board()
    given = Input((4,), "flat", "float32", kind="tensors")
    names = run_on(
        maix.maixpy(board, ADDRESS, {0: 3}), snippet(given, "maixpy", kmodel=4), monkeypatch
    )
    names["run_har"]([0.5, -1.5, 2.0, 3.0])
    assert bytes(board.fed[0]) == np.array([0.5, -1.5, 2, 3], "<f4").tobytes()


MICROPYTHON = """\
import sys
class Image:
    def __init__(self, size):
        self.pixels = [0] * (size[0] * size[1])
        self.width = size[0]
    def to_grayscale(self):
        return self
    def set_pixel(self, x, y, value):
        self.pixels[y * self.width + x] = value
    def pix_to_ai(self):
        pass
class Module:
    pass
image, kpu = Module(), Module()
image.Image = Image
kpu.load = lambda address: None
def forward(task, given):
    print(given.pixels[:10])
    return [0.0]
kpu.forward = forward
sys.modules["image"], sys.modules["KPU"] = image, kpu
"""


@pytest.mark.skipif(shutil.which("micropython") is None, reason="no micropython on this machine")
def test_micropython_itself_makes_the_codes(tmp_path: Path) -> None:
    text = f"{MICROPYTHON}{snippet(CODES, 'maixpy')}\nrun_har({NUMBERS!r})\n"
    (tmp_path / "run.py").write_text(text)
    done = subprocess.run(
        ["micropython", "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{EXPECTED}\n", "")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("profile", ["sdk", "freertos", "rt-thread", "arduino"])
def test_c_makes_the_codes(profile: str, tmp_path: Path) -> None:
    for name, text in HEADERS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "w25qxx.h").write_text(FLASH.get(profile, FLASH["sdk"]))
    text = snippet(CODES, profile)
    code = text[text.index("static inline") :]
    code = code[: code.index("\n}\n") + 3]
    numbers = ", ".join(f"{x!r}f" if "e" in repr(x) else f"{x}f" for x in NUMBERS)
    (tmp_path / "codes.c").write_text(
        f"#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n{code}"
        f"int main(void) {{ float x[] = {{{numbers}, NAN}};\n"
        f'    for (int i = 0; i < 11; i++) printf("%d ", model_har_code(x[i])); }}\n'
    )
    whole = tmp_path / ("load.cpp" if profile == "arduino" else "load.c")
    whole.write_text(text)
    flags = ["-Wall", "-Wextra", "-Werror", "-I", str(tmp_path)]
    for arguments in (["-fsyntax-only", *flags, str(whole)], ["codes.c", *flags, "-lm"]):
        done = subprocess.run(
            ["cc", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    printed = subprocess.run([tmp_path / "a.out"], capture_output=True, text=True, check=True)
    assert [int(n) for n in printed.stdout.split()] == [*EXPECTED, 0]  # NaN becomes a code too
