"""Vectors: raw inputs with the simulator's outputs, and a script that checks a board by them."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from k210tasks.firmware.c_header import c_identifier
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.kmodel import parse
from k210tasks.profiles import PROFILES
from k210tasks.simulator import Simulator
from k210tasks.steps import vectors
from tests.firmware import maix
from tests.steps.jobs import folder, job

KMODELS = Path(__file__).parents[3] / "shared" / "fixtures" / "kmodel"
pytestmark = pytest.mark.skipif(not KMODELS.is_dir(), reason="needs ../shared/fixtures")

ADDRESS = 0x340000


class Case:
    """A fixture kmodel with a contract made from what its file tells, and its vectors."""

    def __init__(self, name: str, profile: str, tmp_path: Path, count: int = 2) -> None:
        self.path = KMODELS / name
        data = self.path.read_bytes()
        self.simulator = Simulator(parse(data), PROFILES[profile].runtime)
        told = self.simulator.input
        shape = told.shape if told.dtype == "uint8" else (told.nbytes // 4,)
        assert shape is not None
        picture = told.dtype == "uint8"
        fed = np.zeros(shape, told.dtype)
        outputs = self.simulator.run(fed)
        self.contract = Contract(
            model="the-model",
            kmodel=int(name[1]),
            profile=profile,
            input=Input(
                shape,
                "planar" if picture else "flat",
                told.dtype,
                color=("gray" if shape[0] == 1 else "bgr") if picture else None,
                kind="images" if picture else "tensors",
            ),
            outputs=tuple(
                Output(f"o{i}", tuple(out.ravel().shape), str(out.dtype))  # type: ignore[arg-type]
                for i, out in enumerate(outputs)
            ),
            nbytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        self.images = tmp_path / "images"
        self.images.mkdir()
        random = np.random.default_rng(210)
        for i in range(count):
            if picture:
                mode = random.integers(0, 256, (*shape[1:], 3), np.uint8)
                Image.fromarray(mode).save(self.images / f"{i}.png")
            else:
                np.save(self.images / f"{i}.npy", random.random((1, *shape), np.float32))
        contract = tmp_path / "contract.json"
        contract.write_text(self.contract.to_json())
        self.out = tmp_path / "vectors"
        color = "bgr" if self.contract.input.color == "bgr" else None
        self.log = io.StringIO()
        inputs: dict[str, Any] = {"kmodel": self.path, "contract": contract}
        if count:
            inputs["images"] = folder(self.images)
        vectors.run(
            job(
                "vectors",
                "the-model",
                self.log,
                inputs,
                {"vectors": self.out},
                {
                    "preprocess": {"color": color, "mean": 0.0, "std": 1.0, "resize": "stretch"},
                    "firmware": profile,
                    "address": ADDRESS,
                },
            )
        )
        self.index = json.loads((self.out / "index.json").read_text("utf-8"))

    def simulate(self, raw: bytes) -> list[list[float]]:
        """What a board's runtime does: raw bytes in, each output's numbers out."""
        told = self.simulator.input
        shape = self.contract.input.shape
        fed = np.frombuffer(raw, told.dtype).reshape(shape)
        return [out.ravel().tolist() for out in self.simulator.run(fed)]

    def sizes(self) -> dict[int, int] | None:
        if self.contract.kmodel == 3:
            return None
        return {i: out.shape[0] for i, out in enumerate(self.contract.outputs)}

    def check(
        self, modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
    ) -> tuple[bool, str]:
        """Run the script's check with a board's modules; its verdict and what it printed."""
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        said: list[str] = []
        script: dict[str, Any] = {"__name__": "check", "print": said.append}
        exec(compile((self.out / "check.py").read_text("ascii"), "check.py", "exec"), script)
        assert script["FOLDER"] == "/sd/the-model"
        script["FOLDER"] = str(self.out)
        return script["check"](), "\n".join(said)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("v3/mnist.kmodel", "maixpy"),
        ("v3/mnist.kmodel", "canmv"),
        ("v3/mnist.kmodel", "canmv-kpu5"),
        ("v3/face_detect.kmodel", "maixpy-minimum"),
        ("v4/slim-320.kmodel", "maixpy"),
        ("v3/iris.kmodel", "maixpy"),
        ("v4/iris.kmodel", "canmv"),
    ],
)
def test_the_script_finds_a_right_board_right_and_a_wrong_one_wrong(
    name: str, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(name, profile, tmp_path)
    nbytes = case.path.stat().st_size

    def board(run: maix.Run) -> dict[str, ModuleType]:
        if profile == "canmv":
            return maix.canmv(run, ADDRESS, nbytes)
        if profile == "canmv-kpu5":
            return maix.canmv_kpu5(run, ADDRESS, nbytes)
        return maix.maixpy(run, ADDRESS, case.sizes())

    fed: list[bytes] = []

    def right(raw: bytes) -> list[list[float]]:
        fed.append(raw)
        return case.simulate(raw)

    good, said = case.check(board(right), monkeypatch)
    assert good, said
    assert said.endswith("OK: all outputs as simulated")
    assert fed == [(case.out / v["input"]).read_bytes() for v in case.index["vectors"]]

    def wrong(raw: bytes) -> list[list[float]]:
        outputs = case.simulate(raw)
        outputs[0][-1] += 0.01 * (1 + abs(outputs[0][-1]))
        return outputs

    good, said = case.check(board(wrong), monkeypatch)
    assert not good
    assert "0 output 0: DIFFERENT, largest difference" in said
    assert said.endswith("FAILED: 2 outputs differ")

    def short(raw: bytes) -> list[list[float]]:
        return [numbers[:-1] for numbers in case.simulate(raw)]

    assert not case.check(board(short), monkeypatch)[0]


def test_the_files_are_the_simulators_bytes(tmp_path: Path) -> None:
    case = Case("v4/slim-320.kmodel", "sdk-develop", tmp_path, count=1)
    (vector,) = case.index["vectors"]
    raw = (case.out / vector["input"]).read_bytes()
    with Image.open(case.images / "0.png") as picture:
        bgr = np.asarray(picture)[:, :, ::-1].transpose(2, 0, 1)
    assert raw == bgr.tobytes()
    outputs = case.simulator.run(np.frombuffer(raw, np.uint8).reshape(case.contract.input.shape))
    assert [(case.out / name).read_bytes() for name in vector["outputs"]] == [
        out.tobytes() for out in outputs
    ]
    assert len(outputs) == len(case.contract.outputs) > 1
    assert vector["image"] == "0.png"
    assert case.index["colors_rounded_to_rgb565"] is False
    assert case.index["no_script_because"] == (
        "profile sdk-develop has no MicroPython: compare the files in C"
    )
    assert not (case.out / "check.py").exists()
    header = (case.out / "contract.h").read_text("ascii")
    assert f"#define {c_identifier('the-model')}_INPUT_BYTES 230400\n" in header


def test_colours_keep_to_what_an_image_of_the_board_holds() -> None:
    every = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    once = vectors.rgb565(every)
    assert (vectors.rgb565(once) == once).all()
    assert [len(np.unique(plane)) for plane in once] == [32, 64, 32]
    assert np.abs(once.astype(int) - every).max(axis=(1, 2)).tolist() == [4, 2, 4]
    assert once[0, 0, :13].tolist() == [0, 0, 0, 0, 0, 8, 8, 8, 8, 8, 8, 8, 8]
    assert sorted(set(once[1, 0].tolist()))[8:14] == [32, 36, 40, 45, 49, 53]


def test_what_a_firmware_cannot_be_fed_is_said(tmp_path: Path) -> None:
    case = Case("v3/iris.kmodel", "canmv-kpu5", tmp_path)
    assert case.index["script"] is None
    assert case.index["no_script_because"] == (
        "profile canmv-kpu5 feeds images of 1 or 3 channels; this model takes 4 float32, "
        "row-major, the tensor's own numbers x, not scaled"
    )
    assert len(case.index["vectors"]) == 2


def test_a_model_without_images_has_its_header_and_an_empty_index(tmp_path: Path) -> None:
    case = Case("v3/mnist.kmodel", "maixpy", tmp_path, count=0)
    assert sorted(path.name for path in case.out.iterdir()) == ["contract.h", "index.json"]
    assert case.index["vectors"] == []
    assert case.index["no_script_because"] == (
        "the model has no images to make vectors of: name images: or verify.images"
    )


#: What the old MicroPython of the boards does not have, or not all of.
LACKING = (
    ast.JoinedStr,
    ast.AnnAssign,
    ast.NamedExpr,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Match,
    ast.Starred,
)


@pytest.mark.parametrize("profile", [p.name for p in PROFILES.values() if p.language != "c"])
def test_the_script_is_micropython(profile: str, tmp_path: Path) -> None:
    case = Case("v3/mnist.kmodel", profile, tmp_path, count=1)
    text = (case.out / "check.py").read_text("ascii")
    tree = ast.parse(text)
    assert not [node for node in ast.walk(tree) if isinstance(node, LACKING)]
    imported = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    } | {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported <= {"struct", "ustruct", "image", "KPU", "maix"}


@pytest.mark.skipif(shutil.which("micropython") is None, reason="no micropython on this machine")
def test_micropython_itself_runs_the_script(tmp_path: Path) -> None:
    case = Case("v3/mnist.kmodel", "canmv", tmp_path)
    stored = {v["input"]: v["outputs"][0] for v in case.index["vectors"]}
    (case.out / "maix.py").write_text(
        f"""import struct
STORED = {stored!r}
class KPU:
    def load_kmodel(self, where, size):
        assert where == {ADDRESS}
    def run_with_output(self, path, getlist=False):
        folder, name = path.rsplit("/", 1)
        raw = open(folder + "/" + STORED[name], "rb").read()
        return list(struct.unpack("<%df" % (len(raw) // 4), raw))
    def deinit(self):
        pass
"""
    )
    script = (case.out / "check.py").read_text("ascii")
    (case.out / "run.py").write_text(script.replace("'/sd/the-model'", repr(str(case.out))))
    done = subprocess.run(
        ["micropython", "run.py"], cwd=case.out, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("OK: all outputs as simulated\n")
