"""Defaults, paths, and what the keys of a model say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from k210tasks import manifest
from k210tasks.manifest.model import (
    Calibrate,
    Firmware,
    Model,
    Part,
    Preprocess,
    ToolchainOverride,
    Verify,
)
from tests.manifest.conftest import Write

VENDOR = "source: a.pb, images: i, compiler: nncase-1.9.0, firmware: canmv-kpu5"


def load(write: Write, text: str) -> manifest.Manifest:
    return manifest.load(write(text))


def refused(write: Write, text: str) -> str:
    with pytest.raises(manifest.ManifestError) as error:
        load(write, text)
    return str(error.value)


def test_every_key_arrives(write: Write) -> None:
    found = load(
        write,
        """\
defaults:
  firmware: maixpy
  compiler: builtin
  effort: high
models:
  nn_xo:
    source: workspace/../a.pb
    inputs: {input: [1, 28, 28, 1]}
    outputs: [output]
    images: ./i
    preprocess: {color: gray, mean: 0.5, std: 0.25, resize: exact}
    calibrate: {method: kl, samples: 7}
    verify: {images: i/, min_cosine: 0.9, min_top1: 1}
    labels: [cross, 0, "no"]
    made_by: [train]
    optional: yes
    kmodel: 4
    opcodes: beta4
    small_maps: kpu
    input: float
    sram_free: 0x100000
    anchors: [1, 2.5]
firmware:
  demo:
    parts:
      - {bin: fw.bin, address: 0x0, sha256_prefix: true, made_by: [build]}
      - {model: nn_xo, address: 0x300000}
      - {model: nn_xo}
toolchains:
  nncase-1.9.0: {python: /usr/bin/python3.10}
  ncc-0.2.0-beta4: {url: "file:///srv/ncc.tar.xz", sha256: %s}
"""
        % ("AB" * 32),
    )
    assert found.models == (
        Model(
            name="nn_xo",
            source="a.pb",
            source_kind="pb",
            compiler="builtin",
            firmware="maixpy",
            kmodel=4,
            images="i",
            inputs=(("input", (1, 28, 28, 1)),),
            outputs=("output",),
            preprocess=Preprocess("gray", 0.5, 0.25, "exact"),
            calibrate=Calibrate("kl", 7),
            verify=Verify("i", 0.9, 1.0),
            labels=("cross", "0", "no"),
            optional=True,
            made_by=("train",),
            effort="high",
            opcodes="beta4",
            small_maps="kpu",
            input="float",
            sram_free=0x100000,
            anchors=(1.0, 2.5),
        ),
    )
    assert found.models[0].line == 6
    assert found.firmware == (
        Firmware(
            "demo",
            "maixpy",
            (
                Part("fw.bin", None, 0, True, ("build",)),
                Part(None, "nn_xo", 0x300000),
                Part(None, "nn_xo"),
            ),
        ),
    )
    assert [part.line for part in found.firmware[0].parts] == [26, 27, 28]
    assert found.toolchains == (
        ToolchainOverride("nncase-1.9.0", python="/usr/bin/python3.10"),
        ToolchainOverride("ncc-0.2.0-beta4", "file:///srv/ncc.tar.xz", "ab" * 32),
    )


def test_the_least_a_model_needs(write: Write) -> None:
    (model,) = load(write, "models:\n  a: {source: a.pb, images: i}\n").models
    assert model == Model("a", "a.pb", "pb", "builtin", "maixpy", 3, "i")
    assert not model.preprocess.stated


@pytest.mark.parametrize("text", ["models:\n", "defaults:\nmodels: {}\nfirmware:\n"])
def test_a_project_without_models_is_fine(write: Write, text: str) -> None:
    assert load(write, text).models == ()


def test_defaults_are_merged_one_level_deep(write: Write) -> None:
    a, b, c, d = load(
        write,
        """\
defaults:
  compiler: nncase-1.9.0
  firmware: canmv-kpu5
  images: i
  preprocess: {mean: 0.5, std: 0.25}
  verify: {images: i, min_cosine: 0.9}
  labels: [x, y]
models:
  a: {source: a.pb, preprocess: {color: rgb, std: 1}}
  b: {source: a.pb, verify: {min_top1: 0.5}, labels: [z]}
  c: {source: a.pb, verify: off}
  d: {source: a.pb, verify: {}}
""",
    ).models
    assert a.preprocess == Preprocess("rgb", 0.5, 1.0)
    assert a.verify == d.verify == Verify("i", 0.9)
    assert b.verify == Verify("i", 0.9, 0.5)
    assert (a.labels, b.labels) == (("x", "y"), ("z",))
    assert c.verify is None


@pytest.mark.parametrize("off", ["off", "no", "false", "'off'"])
def test_verify_off(write: Write, off: str) -> None:
    (model,) = load(write, f"models:\n  a: {{{VENDOR}, verify: {off}}}\n").models
    assert model.verify is None


def test_a_map_at_the_model_undoes_verify_off_of_defaults(write: Write) -> None:
    text = f"defaults: {{verify: off}}\nmodels:\n  a: {{{VENDOR}, verify: {{min_top1: 1}}}}\n"
    assert load(write, text).models[0].verify == Verify(None, 0.98, 1.0)


@pytest.mark.parametrize(
    ("compiler", "firmware", "stated", "kmodel"),
    [
        ("builtin", "maixpy", "", 3),
        ("builtin", "maixpy", "kmodel: 4", 4),
        ("builtin", "canmv-kpu5", "", 3),
        ("nncase-1.9.0", "canmv-kpu5", "", 5),
        ("ncc-0.2.0-beta4", "maixpy", "", 4),
        ("ncc-0.1.0-rc5", "sdk", "", 3),
        ("ncc-0.1.0-rc5", "sdk", "kmodel: 3", 3),
    ],
)
def test_versions(write: Write, compiler: str, firmware: str, stated: str, kmodel: int) -> None:
    text = (
        f"models:\n  a: {{source: a.pb, images: i, compiler: {compiler}, firmware: {firmware}"
        f"{', ' if stated else ''}{stated}}}\n"
    )
    assert load(write, text).models[0].kmodel == kmodel


def test_what_defaults_say_for_the_builtin_compiler_does_not_concern_others(write: Write) -> None:
    text = (
        "defaults: {kmodel: 4, effort: high, weights: 16, opcodes: beta4, small_maps: kpu, "
        "input: float}\n"
        f"models:\n  a: {{{VENDOR}}}\n"
    )
    assert load(write, text).models[0].kmodel == 5


def test_builtin_contradictions(write: Write) -> None:
    assert (
        refused(
            write,
            """\
defaults: {weights: 16}
models:
  a: {source: a.pb, images: i, kmodel: 4}
  b: {source: a.pb, images: i, opcodes: beta4}
  c: {source: a.pb, images: i, kmodel: 5}
  d:
    source: a.pb
    images: i
    kmodel: 4
    weights: 8
    firmware: sdk
""",
        )
        == """\
models.yaml: 4 problems

models.yaml:1:21: defaults.weights: 16 bit weights exist in kmodel 3 only; this model is kmodel 4
  1 | defaults: {weights: 16}
    |                     ^^
  . |
  3 |   a: {source: a.pb, images: i, kmodel: 4}
    |                                        ^ the version
  allowed: 8, or kmodel: 3

models.yaml:4:32: models.b.opcodes: opcodes exist in kmodel 4 only; this model is kmodel 3
  4 |   b: {source: a.pb, images: i, opcodes: beta4}
    |                                ^^^^^^^
  leave the key out, or write kmodel: 4

models.yaml:5:40: models.c.kmodel: builtin writes kmodel 3 or 4, not 5
  5 |   c: {source: a.pb, images: i, kmodel: 5}
    |                                        ^
  leave the key out, or choose another compiler: nncase-1.9.0

models.yaml:9:13: models.d.kmodel: builtin writes kmodel 4, which sdk does not load: it loads 3
   9 |     kmodel: 4
     |             ^
  .. |
  11 |     firmware: sdk
     |               ^^^ the firmware
  allowed for kmodel 4: firmware maixpy, m5stickv, canmv, canmv-kpu5, sdk-develop or rt-thread"""
    )


@pytest.mark.parametrize(
    ("keys", "fine"),
    [
        ("source: a.tflite, verify: off", True),
        ("source: a.tflite, verify: {images: i}", True),
        ("source: a.tflite", False),
        ("source: a.pb, verify: off", False),
        ("source: a.tflite, verify: off, compiler: ncc-0.1.0-rc5", False),
    ],
)
def test_who_needs_no_images(write: Write, keys: str, fine: bool) -> None:
    text = f"models:\n  a: {{{keys}}}\n"
    if fine:
        assert load(write, text).models[0].images is None
    else:
        assert "models.a: images is missing" in refused(write, text)


def test_one_wrong_key_hides_nothing_else(write: Write) -> None:
    said = refused(
        write,
        """\
models:
  a:
    source: b.pb
    compiler: nncase-1.9.0
    firmware: maixpy
    images: nowhere
    labels: 5
    calibrate: {method: magic, samples: 0}
    colour: rgb
""",
    )
    assert said.startswith("models.yaml: 7 problems")
    for part in ("b.pb does not", "kmodel 5, which", "nowhere does", "5 is not a list", '"magic"'):
        assert part in said


def test_what_is_unknown_is_not_judged(write: Write) -> None:
    """A misspelt firmware is one problem, not also a pair that does not fit."""
    said = refused(write, "defaults: {firmware: canmv-kpu, compiler: nncase-1.9.0}\n"
                   "models:\n  a: {source: a.pb, images: i}\n"
                   "firmware:\n  f: {parts: [{model: a}]}\n")  # fmt: skip
    assert said.startswith('models.yaml:1:22: defaults.firmware: "canmv-kpu" is not one of these')


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("./a.pb", "a.pb"),
        ("i/..//a.pb", "a.pb"),
        ("../PROJECT/a.pb", "a.pb"),
        ("../b.pb", "../b.pb"),
        ("ROOT/a.pb", "a.pb"),
        ("/elsewhere/b.pb", "/elsewhere/b.pb"),
        ("saved_model/", "saved_model"),
    ],
)
def test_paths_have_one_spelling(project: Path, write: Write, written: str, kept: str) -> None:
    written = written.replace("PROJECT", project.name).replace("ROOT", project.as_posix())
    text = f"models:\n  a: {{{VENDOR}}}\n".replace("source: a.pb", f'source: "{written}"')
    assert load(write, text).models[0].source == kept


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("x.pb", "pb"),
        ("x.PBTXT", "pbtxt"),
        ("x.keras", "keras"),
        ("x.h5", "h5"),
        ("x.tflite", "tflite"),
        ("some/folder.v2", "savedmodel"),
    ],
)
def test_kinds_of_sources(write: Write, source: str, kind: str) -> None:
    text = f"models:\n  a: {{{VENDOR}}}\n".replace("a.pb", source)
    assert load(write, text).models[0].source_kind == kind


def test_a_tflite_is_read_in_place_also_where_it_has_the_models_name(write: Write) -> None:
    text = f"models:\n  a: {{{VENDOR}}}\n".replace("a.pb", "workspace/a.tflite")
    found = load(write, text)
    manifest.check_files(found)
    assert found.models[0].source == "workspace/a.tflite"


@pytest.mark.parametrize(
    "name", ["nn_xo", "Ziffern-2.1", "数字", "नमस्ते", "_x", "1st", "a.b-c_d", "2048"]
)
def test_names_of_any_script(write: Write, name: str) -> None:
    assert load(write, f"models:\n  {name}: {{{VENDOR}}}\n").models[0].name == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("u\u0308", "is not in the Unicode form NFC; write it with composed letters: \u00fc"),
        ("\U00020000" * 60, "has 240 bytes as UTF-8, more than 200"),
        ("a\u200bb", "may not hold U+200B"),
        ("a\tb", "may not hold a tab"),
        ("\u0301a", "may not begin with \u0301"),
        ("COM7", "is the name of a device on Windows"),
        ("", "is empty"),
    ],
)
def test_names_that_break_the_rules(name: str, why: str) -> None:
    from k210tasks.manifest.names import why_not

    assert why_not(name) == why
