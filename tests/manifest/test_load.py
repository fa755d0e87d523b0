"""Reading the file: encodings, the cache, files that are looked at each time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k210tasks import manifest
from k210tasks.samples import folder as samples
from tests.manifest.conftest import Write

GOOD = """\
models:
  a: {source: a.pb, images: i, compiler: nncase-1.9.0, firmware: canmv-kpu5}
"""


def refused(path: str = "models.yaml") -> str:
    with pytest.raises(manifest.ManifestError) as error:
        manifest.check_files(manifest.load(path))
    return str(error.value)


def test_a_missing_file_a_folder_and_a_bad_path(project: Path) -> None:
    assert refused() == (
        "models.yaml: the file does not exist\n  k210 init writes one to begin with"
    )
    (project / "models.yaml").mkdir()
    assert refused() == "models.yaml: is a folder, not a file"


def test_one_in_a_folder_above_is_named(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("models: {}\n")
    monkeypatch.chdir(project / "saved_model" / "variables")
    assert refused("models.yaml") == (
        "models.yaml: the file does not exist\n"
        f"  there is one in {project}: go there, or name it with -f"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"models:\n  \xe4: {}\n",
            "models.yaml:2:3: the byte 0xE4 is not UTF-8\n"
            "  2 |   \ufffd: {}\n"
            "    |   ^\n"
            "  save the file as UTF-8",
        ),
        (
            GOOD.encode("utf-16"),
            "models.yaml:1:1: the byte 0xFF is not UTF-8 (it looks like UTF-16)",
        ),
        (
            b"models: \x07\n",
            "models.yaml:1:9: the character U+0007 may not stand in a YAML file\n"
            "  1 | models: \ufffd\n"
            "    |         ^\n"
            "  remove it",
        ),
    ],
)
def test_bytes_that_are_no_text(project: Path, content: bytes, said: str) -> None:
    (project / "models.yaml").write_bytes(content)
    assert refused().startswith(said)


@pytest.mark.parametrize("change", [b"\xef\xbb\xbf%s", b"---\n%s", b"%YAML 1.1\n---\n%s"])
def test_a_byte_order_mark_or_a_document_start_does_not_matter(
    project: Path, change: bytes
) -> None:
    (project / "models.yaml").write_bytes(change.replace(b"%s", GOOD.encode()))
    assert manifest.load().models[0].name == "a"


def test_lines_of_windows(project: Path) -> None:
    text = GOOD.replace("i,", "j,").replace("\n", "\r\n")
    (project / "models.yaml").write_bytes(text.encode())
    assert refused().splitlines()[0].startswith("models.yaml:2:29: models.a.images: the folder j")


def test_carets_stand_below_wide_letters(project: Path, write: Write) -> None:
    write('models:\n  数字: {source: "数.pb", kmodel: 6}\n')
    line = '  2 |   数字: {source: "数.pb", kmodel: 6}'
    assert f"{line}\n    | {' ' * 34}^\n" in refused()


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028"])
def test_lines_are_counted_as_yaml_does(project: Path, write: Write, end: str) -> None:
    write(f"# one{end}# two\n" + GOOD.replace("a.pb", "b.pb"))
    assert refused().startswith(
        'models.yaml:4:15: models.a.source: b.pb does not exist; did you mean "a.pb"?\n'
        "  4 |   a: {source: b.pb, images"
    )


# -- the cache ------------------------------------------------------------------------------


def test_the_second_load_comes_from_the_cache_and_is_equal(project: Path, write: Write) -> None:
    path = write(
        """\
defaults: {compiler: nncase-1.9.0, firmware: canmv-kpu5, images: i, verify: {images: i}}
models:
  a: {source: a.pb, inputs: {x: [1, 2]}, outputs: [y], labels: [c], anchors: [1, 2], kmodel: 5}
  b: {source: a.tflite, verify: off, preprocess: {mean: 0.5}, calibrate: {samples: 3}}
  c: {source: nowhere.pb, made_by: [x], optional: true, sram_free: 9}
firmware:
  f: {parts: [{model: a, address: 0x10000}, {bin: no.bin, made_by: [x], sha256_prefix: false}]}
toolchains:
  tensorflow: {python: python3.10}
"""
    )
    first = manifest.load(path)
    assert manifest.load(path) is not first  # nothing is kept before the files were looked at
    assert not (project / ".k210").exists()
    manifest.check_files(manifest.load(path))
    assert (project / ".k210/manifest/models.yaml.json").exists()
    code = (
        "import sys; from k210tasks import manifest; m = manifest.load(); manifest.check_files(m);"
        "print(sorted({'yaml', 'pydantic', 'numpy', 'difflib'} & set(sys.modules)));"
        "import pickle; sys.stdout.flush(); sys.stdout.buffer.write(pickle.dumps(m))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    loaded, _, pickled = out.partition(b"\n")
    assert loaded == b"[]"
    import pickle

    again = pickle.loads(pickled)
    assert again == first
    assert [m.line for m in again.models] == [m.line for m in first.models] == [3, 4, 5]
    assert [p.line for p in again.firmware[0].parts] == [p.line for p in first.firmware[0].parts]


def test_a_changed_file_is_read_anew(project: Path, write: Write) -> None:
    manifest.check_files(manifest.load(write(GOOD)))
    assert manifest.load(write(GOOD + "# more\n")).models
    write(GOOD.replace("canmv-kpu5", "sdk"))
    assert "which sdk does not load" in refused()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_a_damaged_cache_is_a_miss(project: Path, write: Write, damage: bytes) -> None:
    path = write(GOOD)
    first = manifest.load(path)
    manifest.check_files(first)
    kept = project / ".k210/manifest/models.yaml.json"
    good = kept.read_bytes()
    kept.write_bytes(damage)
    assert manifest.load(path) == first
    key = json.loads(good)["key"]
    for odd in ({"models": 5}, {"models": [{"nonsense": 1}]}, {"models": [[1]]}):
        kept.write_text(json.dumps({"key": key, "firmware": [], "toolchains": [], **odd}))
        assert manifest.load(path) == first


def test_a_project_that_moved_is_judged_anew(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absolute path into the old place is another file in the new one."""
    write(GOOD.replace("a.pb", f"{project.as_posix()}/a.pb"))
    found = manifest.load()
    manifest.check_files(found)
    assert found.models[0].source == "a.pb"
    moved = project.with_name(project.name + "-moved")
    project.rename(moved)
    monkeypatch.chdir(moved)
    assert manifest.load().models[0].source == f"{project.as_posix()}/a.pb"


def test_where_nothing_can_be_written_loading_works(project: Path, write: Write) -> None:
    (project / ".k210").write_text("a file, so that no folder can be made")
    found = manifest.load(write(GOOD))
    manifest.check_files(found)
    assert manifest.load() == found


# -- files ----------------------------------------------------------------------------------


def test_files_are_looked_at_each_time(project: Path, write: Write) -> None:
    path = write(GOOD)
    found = manifest.check_files(manifest.load(path))
    assert found == {"i": samples.Samples("i", "images", ("1.png",), 0)}
    (project / "i/0.png").touch()
    assert manifest.check_files(manifest.load(path))["i"].files == ("0.png", "1.png")
    (project / "i/0.png").unlink()
    (project / "i/1.png").unlink()
    assert refused().startswith("models.yaml:2:29: models.a.images: the folder i holds nothing;")
    (project / "a.pb").unlink()
    assert refused().startswith("models.yaml: 2 problems")


def test_each_folder_is_scanned_once(project: Path, write: Write) -> None:
    found = manifest.load(write(GOOD + GOOD.replace("models:\n", "").replace("a:", "b:")))
    scanned = []

    def scan(path: str, shown: str) -> samples.Samples:
        scanned.append((path, shown))
        return samples.scan(path, shown)

    manifest.check_files(found, scan)
    assert scanned == [(f"{project}{os.sep}i", "i")]


def test_made_by_leaves_the_files_for_later(project: Path, write: Write) -> None:
    path = write(
        """\
models:
  a:
    source: later.pb
    images: later
    verify: {images: later/too}
    compiler: nncase-1.9.0
    firmware: canmv-kpu5
    made_by: [train]
firmware:
  f: {parts: [{bin: later.bin, made_by: [build]}]}
"""
    )
    assert manifest.check_files(manifest.load(path)) == {}


def test_paths_start_at_the_folder_of_models_yaml(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(GOOD)
    monkeypatch.chdir(project.parent)
    path = f"{project.name}/models.yaml"
    found = manifest.load(path)
    assert found.root == str(project)
    assert list(manifest.check_files(found)) == ["i"]
    (project / "a.pb").unlink()
    assert refused(path).startswith(f"{path}:2:15: models.a.source: a.pb does not exist")


def test_a_thousand_models_with_the_same_mistake_of_defaults_are_one_problem(
    project: Path, write: Write
) -> None:
    models = "".join(f"  m{i}: {{source: a.pb, images: i}}\n" for i in range(1000))
    write(f"defaults: {{compiler: nncase-1.9.0, firmware: sdk}}\nmodels:\n{models}")
    assert refused().startswith("models.yaml:1:46: defaults.firmware: nncase-1.9.0 writes")


# -- any text -------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "models",
        "defaults",
        "firmware",
        "toolchains",
        "source",
        "images",
        "inputs",
        "outputs",
        "compiler",
        "kmodel",
        "verify",
        "preprocess",
        "mean",
        "std",
        "color",
        "calibrate",
        "method",
        "samples",
        "labels",
        "made_by",
        "optional",
        "effort",
        "weights",
        "opcodes",
        "small_maps",
        "input",
        "sram_free",
        "anchors",
        "parts",
        "bin",
        "model",
        "address",
        "sha256_prefix",
        "profile",
        "url",
        "sha256",
        "python",
        "nncase-1.9.0",
        "builtin",
        "tensorflow",
        "maixpy",
        "canmv-kpu5",
        "off",
        "on",
        "no",
        "yes",
        "null",
        "~",
        "0",
        "1",
        "-1",
        "010",
        "0x10",
        "1.5",
        "1e999",
        ".nan",
        "a.pb",
        "i",
        "a.tflite",
        "a",
        "b",
        "report",
        "con",
        "<<",
    ]
)
SCALARS = WORDS | st.text(max_size=8) | st.integers().map(str)
YAML = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
        | st.lists(st.tuples(SCALARS, inner), max_size=4).map(
            lambda v: "{" + ", ".join(f"{key}: {value}" for key, value in v) + "}"
        )
    ),
    max_leaves=12,
)
FILES = st.lists(st.tuples(WORDS, YAML), max_size=4).map(
    lambda v: "".join(f"{key}: {value}\n" for key, value in v)
)
BLOCKS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["", "- ", "? ", "&x ", "*x"]), WORDS, SCALARS),
    max_size=8,
).map(lambda v: "".join(f"{'  ' * n}{mark}{key}: {value}\n" for n, mark, key, value in v))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(text=FILES | BLOCKS | YAML | st.text())
def test_any_text_is_a_manifest_or_a_refusal(project: Path, text: str) -> None:
    (project / "models.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = manifest.load()
        manifest.check_files(found)
    except manifest.ManifestError as error:
        said = str(error)
        problems = error.problems
    else:
        assert isinstance(found, manifest.Manifest)
        return
    assert problems
    assert said.startswith("models.yaml")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=64))
def test_any_bytes_are_a_manifest_or_a_refusal(project: Path, content: bytes) -> None:
    (project / "models.yaml").write_bytes(content)
    with contextlib.suppress(manifest.ManifestError):
        manifest.check_files(manifest.load())


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_does_not_end_the_process(project: Path, write: Write, opening: str) -> None:
    write(opening * 100_000)
    assert "nested more than 16 deep" in refused() or "not valid YAML" in refused()
