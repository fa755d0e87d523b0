"""``k210 init`` through the real command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k210tasks import manifest

K210 = Path(sys.executable).with_name("k210")


def init(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run ``k210 init`` in a folder; gives what it prints."""
    done = subprocess.run(
        [str(K210), "init", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def loaded(folder: Path) -> manifest.Manifest:
    found = manifest.load(folder / "models.yaml")
    manifest.check_files(found)
    return found


def test_an_empty_folder(tmp_path: Path) -> None:
    said = init(tmp_path, "new/project")
    assert said == (
        "wrote new/project/models.yaml: no model found; an example is in it as a comment\n"
        "wrote new/project/dodo.py\n"
        "added to new/project/.gitignore: .k210/ build/ workspace/*.tflite workspace/*.kmodel\n"
    )
    assert loaded(tmp_path / "new/project").models == ()
    assert (tmp_path / "new/project/dodo.py").read_text() == (
        "import k210tasks\n\n"
        'DOIT_CONFIG = k210tasks.doit_config("models.yaml")\n'
        'models = k210tasks.tasks_from("models.yaml")\n'
    )


def test_models_and_their_samples_are_found(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "workspace/xo.pb",
        "workspace/xo.tflite",  # of two, the one that needs no conversion
        "workspace/face detect.tflite",
        "saved/saved_model.pb",
        "workspace/net/saved_model.pb",
        "lonely.h5",
        "images/xo/calibration/1.png",
        "images/xo/verification/cross/1.png",
        "images/net/1.jpg",
        "images/face detect/train/1.npy",
    )
    said = init(tmp_path)
    assert said.splitlines()[0] == (
        "wrote models.yaml: face_detect, xo, net; as a comment, for want of samples: lonely, saved"
    )
    found = {m.name: m for m in loaded(tmp_path).models}
    assert {m.source: (m.images, m.verify and m.verify.images) for m in found.values()} == {
        "workspace/xo.tflite": ("images/xo/calibration", "images/xo/verification"),
        "workspace/face detect.tflite": ("images/face detect/train", None),
        "workspace/net": ("images/net", None),
    }
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[-2:] == ["!workspace/face detect.tflite", "!workspace/xo.tflite"]


def test_what_doit_made_is_ignored_beside_a_models_yaml_that_was_there(tmp_path: Path) -> None:
    touch(tmp_path, "workspace/xo.pb", "images/xo/calibration/1.png")
    init(tmp_path)
    touch(tmp_path, "workspace/xo.tflite")
    init(tmp_path)
    assert "!workspace/xo.tflite" not in (tmp_path / ".gitignore").read_text()


def test_one_folder_of_pictures_serves_all(tmp_path: Path) -> None:
    touch(tmp_path, "a.tflite", "b.pb", "images/cats/1.png", "images/dogs/1.png")
    init(tmp_path)
    assert [(m.name, m.images) for m in loaded(tmp_path).models] == [
        ("a", "images"),
        ("b", "images"),
    ]


def test_what_waits_for_samples_works_when_they_are_there(tmp_path: Path) -> None:
    touch(tmp_path, "no.tflite")
    init(tmp_path)
    assert loaded(tmp_path).models == ()
    touch(tmp_path, "images/no/calibration/1.png")
    file = tmp_path / "models.yaml"
    lines = file.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "To build one" in line) + 1
    for i in range(start, start + 3):
        lines[i] = lines[i].replace("# ", "", 1)
    file.write_text("\n".join(lines))
    assert [m.name for m in loaded(tmp_path).models] == ["no"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("mine")
    (tmp_path / "dodo.py").write_text("mine")
    (tmp_path / ".gitignore").write_text("build/\nmine")
    said = init(tmp_path)
    assert said == (
        "kept models.yaml, which is there already\n"
        "kept dodo.py, which is there already\n"
        "put this into it:\n"
        "    import k210tasks\n"
        "    \n"
        '    DOIT_CONFIG = k210tasks.doit_config("models.yaml")\n'
        '    models = k210tasks.tasks_from("models.yaml")\n'
        "\n"
        "added to .gitignore: .k210/ workspace/*.tflite workspace/*.kmodel\n"
    )
    assert (tmp_path / "models.yaml").read_text() == "mine"
    assert (tmp_path / "dodo.py").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == (
        "build/\nmine\n.k210/\nworkspace/*.tflite\nworkspace/*.kmodel\n"
    )


@pytest.mark.parametrize("firmware", ["maixpy", "canmv-kpu5", "sdk", "maixpy-minimum"])
def test_the_compiler_fits_the_firmware(tmp_path: Path, firmware: str) -> None:
    touch(tmp_path, "a.tflite", "images/1.png")
    init(tmp_path, "--firmware", firmware)
    (model,) = loaded(tmp_path).models
    assert model.firmware == firmware


def test_names_that_are_none_become_names(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "report.pb", "con.pb", "a=b: {c}.pb", "-x-.pb", "数字.pb")
    init(tmp_path)
    assert {m.name: m.source for m in loaded(tmp_path).models} == {
        "model_report": "report.pb",
        "model_con": "con.pb",
        "a_b_c": "a=b: {c}.pb",
        "x": "-x-.pb",
        "数字": "数字.pb",
    }


def test_a_place_where_there_can_be_none(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    said = init(tmp_path, "file", status=1)
    assert said == "k210 init: file cannot hold a project: File exists\n"
