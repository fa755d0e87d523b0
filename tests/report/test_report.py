"""The ``report`` task in real projects: last, never blocked, up to date the second time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from k210tasks.wording import together
from tests.report import project

INDEX = "build/report/index.html"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """The built project, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "copy", symlinks=True))


def lines(root: Path, *args: str, status: int | None = 0) -> list[str]:
    return project.doit(root, *args, status=status).stdout.splitlines()


def test_it_is_up_to_date_the_second_time_though_models_fail_again(copy: Path) -> None:
    lines(copy, status=2)  # a copy has other stamps; nothing else
    before = (copy / INDEX).read_bytes()
    again = lines(copy, status=2)
    assert again[-1] == "-- report"
    assert ".  verify:fails" in again
    assert (copy / INDEX).read_bytes() == before


def test_in_parallel_it_still_comes_last_and_sees_everything(built: Path, tmp_path: Path) -> None:
    root = tmp_path / "parallel"
    root.mkdir()
    project.make(root)
    assert "." + "  report" in lines(root, "-n", "4", status=2)
    assert lines(root, "-n", "4", status=2)[-1] == "-- report"
    text = (root / INDEX).read_text("utf-8")
    for name in ("模型_scores", "map-4", "fails"):
        measured = json.loads((root / f"build/{name}/verify.json").read_text("utf-8"))
        page = (root / f"build/report/models/{name}.html").read_text("utf-8")
        assert together(measured["headline"]) in page
    assert text.count('class="pill failed"') == 2
    assert "firmware:demo" in text


def test_a_failure_shows_where_and_why(built: Path) -> None:
    broken = (built / "build/report/models/broken.html").read_text("utf-8")
    assert "Failed in calibrate" in broken
    assert "broken/no.png cannot be read as a picture" in broken
    fails = (built / "build/report/models/fails.html").read_text("utf-8")
    assert "Failed in verify" in fails
    assert "min_top1 1 is asked for, but no output is a row of class scores" in fails


@pytest.mark.parametrize(
    ("change", "fresh"),
    [
        (lambda root: edit(root, "defaults:", "# a comment\ndefaults:"), True),
        (lambda root: (root / "images/04.png").touch(), True),
        (lambda root: edit(root, "min_cosine: 0.5}", "min_cosine: 0.4}"), False),
        (lambda root: (root / INDEX).unlink(), False),
        (lambda root: (root / "build/report/models/fails.html").write_text("x"), False),
        (lambda root: (root / ".k210/state/report.json").write_text("{"), False),
    ],
    ids=["comment", "touched", "setting", "missing", "tampered", "record"],
)
def test_what_makes_it_stale(copy: Path, change, fresh: bool) -> None:
    lines(copy, status=2)
    change(copy)
    assert (("-- report") in lines(copy, status=2)) == fresh
    assert lines(copy, status=2)[-1] == "-- report"


def test_the_page_of_a_model_that_is_gone_goes_too(copy: Path) -> None:
    edit(copy, "  unmeasured:", "  renamed:")
    lines(copy, status=2)
    assert not (copy / "build/report/models/unmeasured.html").exists()
    assert (copy / "build/report/models/renamed.html").exists()


def edit(root: Path, old: str, new: str) -> None:
    path = root / "models.yaml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_a_failure_that_is_mended_without_running_is_no_failure_any_more(copy: Path) -> None:
    edit(copy, "min_cosine: 0.5}", "min_cosine: 0.5, min_top1: 0.5}")
    lines(copy, status=2)
    page = copy / "build/report/models/map-4.html"
    assert "Failed in verify" in page.read_text("utf-8")
    edit(copy, "min_cosine: 0.5, min_top1: 0.5}", "min_cosine: 0.5}")
    lines(copy, status=2)
    assert "Failed in" not in page.read_text("utf-8")


def test_the_previous_build_is_compared_with(copy: Path) -> None:
    edit(copy, "source: map.tflite\n    kmodel: 4", "source: map.tflite\n    kmodel: 3")
    lines(copy, "model:map-4")
    done = project.k210(copy, "report")
    assert done.stdout == f"{INDEX}\n"
    page = (copy / "build/report/models/map-4.html").read_text("utf-8")
    assert 'id="comparison"' in page
    assert "Nothing to compare with" not in page
    found = json.loads(project.k210(copy, "diff", "map-4", "--json").stdout)
    assert found["figures"]["kmodel"] == {"before": 4, "after": 3, "direction": "other"}
    assert found["figures"]["samples"]["before"] == 12
    assert not found["identical"]
    text = project.k210(copy, "diff", "map-4").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "file, bytes" in text
    # Back again: the build before is the other one now.
    edit(copy, "source: map.tflite\n    kmodel: 3", "source: map.tflite\n    kmodel: 4")
    lines(copy, "model:map-4")
    found = json.loads(project.k210(copy, "diff", "map-4", "--json").stdout)
    assert found["figures"]["kmodel"]["before"] == 3
    shutil.rmtree(copy / ".k210/store")
    gone = project.k210(copy, "diff", "map-4", status=1)
    assert "has no previous build to compare with: earlier builds are no longer" in gone.stderr


def test_it_can_be_written_at_any_time_and_removed(copy: Path) -> None:
    shutil.rmtree(copy / "build")
    project.k210(copy, "report")
    assert "not built" not in (copy / "build/report/models/broken.html").read_text("utf-8")
    lines(copy, "clean", "report")
    assert not (copy / "build/report").exists()


def test_before_anything_is_built(tmp_path: Path) -> None:
    project.make(tmp_path)
    project.k210(tmp_path, "report")
    text = (tmp_path / INDEX).read_text("utf-8")
    assert text.count('class="pill missing"') == 6  # five models and the image
    assert "there is no kmodel yet" not in text


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b'{"layers": 3, "images": [1, {}]}', b"\xff"]
)
def test_damaged_results_are_not_known_and_break_nothing(copy: Path, garbage: bytes) -> None:
    for path in [
        *copy.glob("build/*/*.json"),
        *copy.glob("build/*/*.npz"),
        copy / "build/demo.kfpkg",
    ]:
        path.write_bytes(garbage)
    for path in copy.glob("workspace/*.kmodel"):
        path.write_bytes(garbage)
    project.k210(copy, "report")
    for name in ("模型_scores", "map-4", "fails", "broken", "unmeasured"):
        assert (copy / f"build/report/models/{name}.html").stat().st_size > 1000


def test_no_page_is_large(built: Path) -> None:
    for page in (built / "build/report").rglob("*.html"):
        assert page.stat().st_size < 300_000
