"""The chain on ONNX models through the command line: open sizes, values in a file beside the model,
pictures, and tensors in the order of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from tests.blackbox.onnx_files import floats, picture_network, saved
from tests.blackbox.projects import Project

MANIFEST = """\
defaults: {firmware: maixpy, effort: fast}
models:
  net:
    source: net.onnx
    inputs: {image: [1, 3, 16, 16]}
    images: pictures
    preprocess: {mean: 0.5, std: 0.5}
  wave: {source: wave.onnx, images: waves.npy, kmodel: 4}
"""
VERB = "from k210tasks.cli import main; exit(main())"
RNG = np.random.default_rng(1)


class Exports(Project):
    def __init__(self, root: Path) -> None:
        super().__init__(root, MANIFEST)
        picture_network(root / "net.onnx")
        (root / "pictures").mkdir()
        for k in range(12):
            pixels = RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"pictures/{k}.png")
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], strides=[2]),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("ReduceMean", ["r"], ["m"], axes=[2], keepdims=0),
            helper.make_node("Gemm", ["m", "g"], ["scores"], transB=1),
        ]
        saved(
            root / "wave.onnx", nodes, "x", [1, 6, 32], False, w=floats(12, 6, 5), g=floats(3, 12)
        )
        np.save(root / "waves.npy", RNG.normal(0, 1, (30, 6, 32)).astype(np.float32))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[str]]:
    project = Exports(tmp_path_factory.mktemp("onnx"))
    computed, _ = project.doit()
    return project, computed


def test_no_conversion_and_everything_verified(built: tuple[Project, list[str]]) -> None:
    project, computed = built
    steps = ("calibrate", "kmodel", "verify")
    assert computed == sorted(f"{step}:{model}" for step in steps for model in ("net", "wave"))
    for model in ("net", "wave"):
        assert json.loads(project.read(f"build/{model}/verify.json"))["verified"] is True
        measured = json.loads(project.read(f"build/{model}/measurement.json"))
        assert measured["outputs"][0]["snr_db"] > 25
    assert "Conv /stem/conv" in project.read("build/net/layers.json")
    project.doit("vectors:net", "vectors:wave")


def test_only_what_changed_is_made_again(built: tuple[Project, list[str]]) -> None:
    project, _ = built
    assert project.doit()[0] == []
    for name in ("net.onnx", "net.onnx.data"):
        (project.root / name).touch()
    assert project.doit()[0] == []
    before = (project.root / "workspace/net.kmodel").read_bytes()
    values = bytearray((project.root / "net.onnx.data").read_bytes())
    values[3] ^= 0x80  # the sign of a weight
    (project.root / "net.onnx.data").write_bytes(values)
    assert project.doit()[0] == ["calibrate:net", "kmodel:net", "verify:net"]
    assert (project.root / "workspace/net.kmodel").read_bytes() != before


def test_a_model_and_its_values_may_lie_elsewhere_each(tmp_path: Path) -> None:
    """Linked inputs are held fast one by one, in folders of their own."""
    project = Exports(tmp_path / "project")
    for name, place in (("net.onnx", "models"), ("net.onnx.data", "values")):
        (tmp_path / place).mkdir()
        (project.root / name).rename(tmp_path / place / name)
        (project.root / name).symlink_to(tmp_path / place / name)
    assert project.doit("verify:net")[0] == ["calibrate:net", "kmodel:net", "verify:net"]


def test_the_verbs_take_the_same_file(built: tuple[Project, list[str]], tmp_path: Path) -> None:
    project, _ = built
    size = ("--inputs", "image=1,3,16,16")
    done = project.call("-c", VERB, "check", "net.onnx", *size)
    assert "net.onnx: can be compiled to kmodel 3" in done.stdout
    out = tmp_path / "net.kmodel"
    project.call(
        "-c", VERB, "convert", "net.onnx", *size, "-o", str(out), "--images", "pictures",
        "--mean", "0.5", "--std", "0.5", "--effort", "fast",
    )  # fmt: skip
    assert out.read_bytes() == (project.root / "workspace/net.kmodel").read_bytes()
    done = project.call(
        "-c", VERB, "compare", "net.onnx", str(out), *size, "--images", "pictures", "--json"
    )
    assert json.loads(done.stdout)["outputs"][0]["snr_db"] > 25


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "net.onnx"), "height, width is not fixed"),
        (("check", "net.onnx", "--inputs", "image=1,3"), "the model's input is 'image'"),
        (("check", "moved.onnx", "--inputs", "image=1,3,16,16"), "must lie beside the model"),
        (("convert", "net.onnx", "--inputs", "image"), "is not NAME=1,3,240,320"),
        (
            ("convert", "wave.onnx", "--compiler", "ncc-0.1.0-rc5", "--images", "waves.npy"),
            "ncc-0.1.0-rc5 reads no ONNX",
        ),
    ],
)
def test_refusals_say_what_to_do(
    built: tuple[Project, list[str]], arguments: tuple[str, ...], said: str
) -> None:
    project, _ = built
    (project.root / "moved.onnx").write_bytes((project.root / "net.onnx").read_bytes())
    status = 2 if "is not NAME" in said else 1
    assert said in project.call("-c", VERB, *arguments, status=status).stderr


def test_init_finds_it(tmp_path: Path) -> None:
    project = Project(tmp_path, "")
    (tmp_path / "models.yaml").unlink()
    picture_network(tmp_path / "net.onnx", beside=False)
    project.call("-c", VERB, "init")
    assert "source: net.onnx" in project.read("models.yaml")
