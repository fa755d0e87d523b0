"""Firmware images in the graph: what they hold, when they are made, what blocks them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from k210tasks.firmware.kfpkg import read
from tests.firmware import packing
from tests.graph.conftest import Toy

NAMES = tuple(f"m{i}" for i in range(10))
IMAGES = {"low": range(5), "high": range(5, 10), "mixed": (3, 7)}

#: Enough of them for everything but counting.
FEW = ("m0", "m1", "m3", "m5", "m7")


def images_of(names: tuple[str, ...]) -> str:
    """Three images: low with a program, high, and mixed, which shares a model with each."""

    def parts(first: str, held: Iterable[int]) -> str:
        listed = [first, *(f"{{model: m{i}}}" for i in held if f"m{i}" in names)]
        return ", ".join(filter(None, listed))

    program = "{bin: fw/maixpy.bin, address: 0x0}, {model: m0, address: 0x400000}"
    return f"""\
firmware:
  low:
    profile: maixpy
    parts: [{parts(program, range(1, 5))}]
  high:
    profile: maixpy
    parts: [{parts("", range(5, 10))}]
  mixed:
    profile: maixpy
    parts: [{{model: m7, address: 0x310000}}, {{model: m3}}]
"""


def for_maixpy(text: str) -> str:
    return text.replace("nncase-1.9.0", "ncc-0.1.0-rc5").replace("canmv-kpu5", "maixpy")


class Project(Toy):
    def __init__(self, root: Path, names: tuple[str, ...] = FEW) -> None:
        super().__init__(root, names)
        self.write("dodo.py", packing.DODO)
        self.manifest(*names, change=lambda text: for_maixpy(text) + images_of(names))
        self.write("fw/maixpy.bin", "program")

    def build(self, *args: str, status: int = 0) -> tuple[list[str], str]:
        """What was computed, and what was said."""
        log = self.root / "computed.log"
        log.unlink(missing_ok=True)
        done = self.doit(*args, status=status)
        computed = log.read_text("utf-8").split() if log.exists() else []
        return computed, done.stdout + done.stderr

    def image(self, name: str) -> bytes:
        return (self.root / "build" / f"{name}.kfpkg").read_bytes()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_ten_models_three_images_one_change(tmp_path: Path) -> None:
    project = Project(tmp_path, NAMES)
    computed, _ = project.build()
    assert sorted(computed) == sorted(
        [f"{step}:{n}" for step in ("convert", "calibrate", "kmodel", "verify") for n in NAMES]
        + [f"firmware:{name}" for name in IMAGES]
    )
    before = {name: project.image(name) for name in IMAGES}
    for name, held in IMAGES.items():
        image = read(before[name])
        assert {p.source for p in image.parts if p.is_model} == {f"m{i}" for i in held}
        for part in image.parts:
            path = f"workspace/{part.source}.kmodel" if part.is_model else str(part.source)
            assert part.data == (project.root / path).read_bytes()

    project.write("images/m3/calibration/1.png", "another picture")
    computed, _ = project.build()
    assert computed[:3] == ["calibrate:m3", "kmodel:m3", "verify:m3"]
    assert sorted(computed[3:]) == ["firmware:low", "firmware:mixed"]
    assert project.image("high") == before["high"]
    new = (project.root / "workspace/m3.kmodel").read_bytes()
    for name in ("low", "mixed"):
        assert project.image(name) != before[name]
        assert new in [part.data for part in read(project.image(name)).parts]

    assert project.build()[0] == []
    assert project.build()[0] == []


def test_a_model_that_stays_the_same_repacks_nothing(project: Project) -> None:
    project.write("toy.json", '{"kmodel:m3": "coarse"}')
    project.build()
    project.write("images/m3/calibration/1.png", "another picture")
    assert project.build()[0] == ["calibrate:m3", "kmodel:m3"]


def test_only_the_images_with_a_changed_part_are_made_again(project: Project) -> None:
    project.build()
    project.write("fw/maixpy.bin", "another program")
    assert project.build()[0] == ["firmware:low"]
    assert read(project.image("low")).parts[0].data == b"another program"
    project.edit("{model: m7, address: 0x310000}", "{model: m7, address: 0x500000}")
    assert project.build()[0] == ["firmware:mixed"]
    text = project.read("models.yaml")
    project.write("models.yaml", "# a comment\n" + text)
    os.utime(project.root / "fw/maixpy.bin")
    assert project.build()[0] == []
    project.write("build/high.kfpkg", "damaged")
    computed, said = project.build()
    assert computed == []
    assert "firmware:high: restored from the store" in said
    assert read(project.image("high")).name == "high"


def test_a_model_that_fails_blocks_its_images_and_no_others(project: Project) -> None:
    project.build()
    old = project.image("low")
    text = project.read("models.yaml")
    head, tail = text.split("  m1:\n", 1)
    stricter = head + "  m1:\n" + tail.replace("min_cosine: 0.98", "min_cosine: 0.995", 1)
    project.write("models.yaml", stricter)
    project.write("fw/maixpy.bin", "another program")
    project.write("images/m3/calibration/1.png", "another picture")
    computed, said = project.build(status=2)  # doit: an unmet dependency
    assert "cosine 0.99 is below 0.995" in said
    assert "firmware:low" not in computed
    assert "firmware:mixed" in computed
    assert project.image("low") == old


def test_an_unverified_model_is_packed_with_a_warning(tmp_path: Path) -> None:
    project = Project(tmp_path)
    text = project.read("models.yaml")
    head, tail = text.split("  m7:\n", 1)
    start = tail.index("    verify: ")
    end = tail.index("\n", start)
    project.write("models.yaml", head + "  m7:\n" + tail[:start] + "    verify: off" + tail[end:])
    _, said = project.build("firmware:mixed")
    warning = "warning: model m7 is packed without being verified (verify: off)"
    assert f"firmware:mixed: {warning}" in said
    listing = project.read("build/mixed.firmware/listing.txt")
    assert listing.endswith(warning + "\n")
    assert "0x310000..0x31" in listing
    assert "    model m7\n" in listing
    assert "    kmodel 3 (nncase 0.1), loaded by maixpy, " in listing


def test_an_image_is_skipped_with_an_optional_model_that_cannot_be_had(project: Project) -> None:
    project.edit("  m3:\n", "  m3:\n    optional: true\n")
    project.write("toy.json", '{"kmodel:m3": "unavailable"}')
    computed, said = project.build()
    assert "kmodel:m3: skipped, it is optional: " in said
    assert "firmware:high" in computed
    assert not {"firmware:low", "firmware:mixed", "verify:m3"} & set(computed)
    assert not (project.root / "build/mixed.kfpkg").exists()
    project.write("toy.json", "{}")
    computed, _ = project.build()
    assert sorted(computed) == ["firmware:low", "firmware:mixed", "kmodel:m3", "verify:m3"]


def test_two_builds_on_other_days_in_other_places_agree(tmp_path: Path) -> None:
    images = []
    for offset, place, env in [
        ("0", "one", {"TZ": "UTC", "LC_ALL": "C"}),
        ("1e8", "two", {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"}),
    ]:
        project = Project(tmp_path / place)
        project.write(
            "site/sitecustomize.py",
            f"import time\nreal = time.time\ntime.time = lambda: real() + {offset}\n",
        )
        path = os.pathsep.join([str(project.root / "site"), project.env["PYTHONPATH"]])
        project.doit("firmware:low", **env, PYTHONPATH=path)
        images.append(project.image("low") + project.read("build/low.firmware/load.py").encode())
    assert images[0] == images[1]


def test_the_lines_that_load_the_models_lie_beside(project: Project) -> None:
    project.build("firmware:mixed")
    text = project.read("build/mixed.firmware/load.py")
    assert "task_m7 = kpu.load(0x310000)" in text
    assert "task_m3 = kpu.load(0x300000)" in text


def test_a_binary_of_the_users_own_task(tmp_path: Path) -> None:
    project = Project(tmp_path, ("m3", "m7"))
    (project.root / "fw/maixpy.bin").unlink()
    project.manifest(
        "m3",
        "m7",
        change=lambda text: (
            for_maixpy(text)
            + """\
firmware:
  own:
    profile: maixpy
    parts: [{bin: fw/maixpy.bin, address: 0x0, made_by: [build_firmware]}, {model: m3}]
"""
        ),
    )
    own = """

def task_build_firmware():
    return {"actions": ["%s"]}
"""
    project.write("dodo.py", packing.DODO + own % "echo -n made > fw/maixpy.bin")
    project.build("firmware:own")
    assert read(project.image("own")).parts[0].data == b"made"
    (project.root / "fw/maixpy.bin").unlink()
    project.write("dodo.py", packing.DODO + own % "true")
    _, said = project.build("firmware:own", status=1)
    assert (
        "firmware:own: the file fw/maixpy.bin does not exist; it should come from build_firmware"
        " (made_by)" in said
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("address: 0x310000", "address: 0xd00000"),
            "firmware mixed: model m7 at 0xd00000..",
        ),
        (
            lambda text: text.replace("{model: m3}]", "{model: m3, address: 0x310000}]"),
            "firmware mixed: model m3 at 0x310000..",
        ),
    ],
)
def test_parts_that_cannot_lie_there(
    project: Project, change: Callable[[str], str], message: str
) -> None:
    project.write("models.yaml", change(project.read("models.yaml")))
    _, said = project.build("firmware:mixed", status=1)
    assert message in said
    assert not (project.root / "build/mixed.kfpkg").exists()
