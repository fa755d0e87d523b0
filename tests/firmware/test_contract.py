"""The input contract: JSON there and back, a C header for any model name."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.firmware.c_header import c_header, c_identifier, c_string
from k210tasks.firmware.contract import (
    Contract,
    ContractError,
    Input,
    Output,
    ScaleUnknown,
    WrongCount,
)

FACES = Contract(
    model="faces-0.25",
    kmodel=4,
    profile="maixpy",
    input=Input((3, 240, 320), color="rgb", mean=0.5, std=0.25, scale=1 / 64, zero_point=127.5),
    outputs=(Output("boxes", (30, 15, 20)), Output("flags", (4,), "uint8", 0.5, 3)),
    labels=("face", 'the "other"', "Mädchen", "a\\b??=", "line\nbreak7"),
    nbytes=388776,
    sha256="ab" * 32,
    main_memory=58368,
)


def test_json_is_stable_and_reads_back() -> None:
    text = FACES.to_json()
    assert Contract.from_json(text) == FACES
    assert Contract.from_json(text.encode()).to_json() == text
    assert text.isascii()
    assert text.endswith("}\n")
    shuffled = json.dumps(dict(reversed(json.loads(text).items())))
    assert Contract.from_json(shuffled).to_json() == text


EACH = Input((3, 2, 2), color="rgb", mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 0.25)).of_pixels()


def test_mean_and_std_may_be_of_each_channel() -> None:
    contract = dataclasses.replace(FACES, input=EACH)
    read = Contract.from_json(contract.to_json())
    assert read == contract
    assert read.input.scale == (1 / 127.5, 1 / 255, 1 / 63.75)
    assert read.input.zero_point == (127.5, 63.75, 0)
    floats = dataclasses.replace(EACH, dtype="float32")
    assert floats.numbers == "(pixel / 255 - [0.5, 0.25, 0]) / [0.5, 1, 0.25]"


def test_numbers_of_each_channel_are_its_pixels_codes() -> None:
    pixels = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 2, 2)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (EACH.mean, EACH.std))
    real = ((pixels / 255 - mean) / std).astype(np.float32)
    np.testing.assert_array_equal(EACH.codes(real), pixels.ravel())


def test_as_many_numbers_as_channels() -> None:
    value = json.loads(dataclasses.replace(FACES, input=EACH).to_json())
    value["input"]["std"] = [1, 1]
    with pytest.raises(ContractError) as caught:
        Contract.from_json(json.dumps(value))
    assert str(caught.value) == (
        "contract.json: input.std is [1, 1]; it must be a number, or one for each of the 3 channels"
    )


def test_the_header_has_one_number_a_channel() -> None:
    header = c_header(dataclasses.replace(FACES, model="m", input=EACH))
    assert "#define K210_M_INPUT_MEAN {0.5f, 0.25f, 0.0f}\n" in header
    assert "#define K210_M_INPUT_STD {0.5f, 1.0f, 0.25f}\n" in header
    assert "#define K210_M_INPUT_ZERO_POINT {127.5f, 63.75f, 0.0f}\n" in header


def test_bytes_are_counted_from_shape_and_dtype() -> None:
    assert FACES.input.nbytes == 3 * 240 * 320
    assert [out.nbytes for out in FACES.outputs] == [4 * 30 * 15 * 20, 4]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 1, "contract.json: version is 1; it must be 2; build the model again"),
        (("model",), 7, "contract.json: model is 7; it must be a string"),
        (
            ("input", "dtype"),
            "int8",
            'contract.json: input.dtype is \'int8\'; it must be "uint8" or "float32"',
        ),
        (
            ("input", "shape"),
            [3, 0, 1],
            "contract.json: input.shape is [3, 0, 1]; it must be a list of sizes, each 1 or more",
        ),
        (
            ("input", "std"),
            float("nan"),
            "contract.json: input.std is nan; it must be a finite number",
        ),
        (("input", "stated"), 1, "contract.json: input.stated is 1; it must be true or false"),
        (
            ("kmodel", "bytes"),
            -1,
            "contract.json: kmodel.bytes is -1; it must be a whole number, 0 or more",
        ),
        (("labels",), ["a", 1], "contract.json: labels is ['a', 1]; it must be a list of strings"),
        (("outputs",), {}, "contract.json: outputs is {}; it must be a list"),
    ],
)
def test_a_wrong_field_is_named(path: tuple[str, ...], value: object, message: str) -> None:
    data = json.loads(FACES.to_json())
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(ContractError) as error:
        Contract.from_json(json.dumps(data))
    assert str(error.value) == message


def test_a_missing_field_and_no_json_are_said() -> None:
    data = json.loads(FACES.to_json())
    del data["outputs"][1]["scale"]
    with pytest.raises(ContractError, match=r"^contract.json: outputs\[1\].scale is None; it must"):
        Contract.from_json(json.dumps(data))
    with pytest.raises(ContractError, match=r"^contract\.json: it is no JSON written by k210"):
        Contract.from_json("{")
    with pytest.raises(ContractError, match=r"^contract.json: the file is \[\]; it must be an ob"):
        Contract.from_json("[]")


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
@settings(deadline=None)
def test_identifiers_are_valid_and_keep_names_apart(one: str, other: str) -> None:
    assert re.fullmatch(r"K210_[A-Z0-9_]+", c_identifier(one))
    if one.casefold() != other.casefold():  # model names differ in more than case
        assert c_identifier(one) != c_identifier(other)


def test_plain_names_stay_readable() -> None:
    assert c_identifier("nn_xo") == "K210_NN_XO"
    assert c_identifier("1st") == "K210_1ST"
    assert c_identifier("a-b") != c_identifier("a.b")


@given(st.text(max_size=40))
@settings(deadline=None)
def test_c_strings_are_ascii_and_say_the_same_bytes(text: str) -> None:
    literal = c_string(text)
    assert literal.isascii()
    assert literal.isprintable()
    assert "??" not in literal
    said = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), literal[1:-1].encode())
    assert said == text.encode(errors="replace")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_compiles_and_says_what_the_contract_says(tmp_path: Path, language: str) -> None:
    evil = dataclasses.replace(FACES, model="*/ лицо-1.0", labels=FACES.labels)
    (tmp_path / "a.h").write_text(c_header(FACES), encoding="ascii")
    (tmp_path / "b.h").write_text(c_header(evil), encoding="ascii")
    prefix = c_identifier(FACES.model)
    (tmp_path / "main.c").write_text(
        f"""#include "a.h"
#include "b.h"
#include "a.h"
#include <stdio.h>
#if {prefix}_INPUT_BYTES != 230400
#error "bytes"
#endif
static const int shape[{prefix}_OUTPUT0_RANK] = {prefix}_OUTPUT0_SHAPE;
static const char *const labels[] = {prefix}_LABELS;
int main(void) {{
    float zero = {prefix}_INPUT_ZERO_POINT;
    for (int i = 0; i < {prefix}_LABEL_COUNT; i++) printf("%s|", labels[i]);
    printf("%d %g ", shape[1], zero);
    printf("%g %d", {prefix}_OUTPUT1_SCALE, {c_identifier(evil.model)}_INPUT_WIDTH);
    return 0;
}}
"""
    )
    subprocess.run(
        ["cc", "-x", language, "-Wall", "-Wextra", "-Werror", "main.c", "-o", "main"],
        cwd=tmp_path,
        check=True,
    )
    said = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout.decode()
    assert said == "".join(f"{label}|" for label in FACES.labels) + "15 127.5 0.5 320"


# -- what is fed

SENSOR = Input((1, 3, 4), "planar", "uint8", scale=0.5, zero_point=100.0, kind="tensors",
               model_shape=(5, 2))  # fmt: skip


def test_codes_of_a_tensor_by_hand() -> None:
    x = np.array([[0, 0.5], [-1, 77.5], [100, -60], [0.25, 0.75], [0.26, -0.25]], np.float32)
    # 0.25 / 0.5 is half a code: to the even one, 0; 0.75 / 0.5 is 1.5: to 2.
    expected = [100, 101, 98, 255, 255, 0, 100, 102, 101, 100]
    assert SENSOR.codes(x).tolist() == [*expected, 100, 100]  # two more than the tensor has
    odd = dataclasses.replace(SENSOR, zero_point=101.0)
    assert odd.codes(x)[6] == 101  # the tie is the quotient's, whatever the zero point
    with pytest.raises(WrongCount, match=r"^the model takes 10 numbers \(5x2\), not 4$"):
        SENSOR.codes(np.zeros(4, np.float32))


def test_codes_of_pixels_that_came_as_tensors() -> None:
    given = Input((1, 1, 4), mean=0.5, std=0.25).of_pixels()
    assert (given.scale, given.zero_point) == (4 / 255, 127.5)
    pixels = np.array([0, 1, 128, 255])
    assert given.codes((pixels / 255 - 0.5) / 0.25).tolist() == pixels.tolist()


def test_codes_nobody_knows_the_scale_of() -> None:
    with pytest.raises(ScaleUnknown) as error:
        dataclasses.replace(SENSOR, scale=None).codes(np.zeros(10))
    assert str(error.value) == (
        "the kmodel is fed with uint8 codes of real numbers, and their scale is not known; its "
        "contract tells it (k210 convert writes it beside the kmodel, FILE.kmodel.contract.json, "
        "doit as build/MODEL/contract.json)"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            SENSOR,
            "1x3x4 planar uint8, code = round(x / 0.5) + 100, clamped to 0..255; 10 codes, then 2 "
            "more of any value",
        ),
        (
            Input((6,), "flat", "uint8", scale=1 / 3, zero_point=0.0, kind="tensors"),
            "6 uint8, row-major, code = round(x / 0.333333333) + 0, clamped to 0..255",
        ),
        (
            Input((6,), "flat", "uint8", zero_point=7.0, kind="tensors"),
            "6 uint8, row-major, codes of the tensor's numbers, whose scale the compiler does not "
            "tell",
        ),
        (
            Input((2, 8, 8), "planar", "float32", kind="tensors"),
            "2x8x8 planar float32, the tensor's own numbers x, not scaled",
        ),
        (
            Input((3, 8, 8), color="bgr"),
            "3x8x8 planar bgr uint8, raw pixels 0..255, not scaled",
        ),
        (
            Input((3, 8, 8), dtype="float32", mean=0.5, std=0.25),
            "3x8x8 planar float32, (pixel / 255 - 0.5) / 0.25",
        ),
    ],
)
def test_how_an_input_is_fed_in_words(given: Input, sentence: str) -> None:
    assert given.sentence == sentence


def test_a_contract_of_tensors_says_nothing_of_pictures() -> None:
    contract = dataclasses.replace(FACES, model="har", input=SENSOR)
    written = json.loads(contract.to_json())["input"]
    assert {k: written[k] for k in ("kind", "mean", "std", "stated", "color")} == {
        "kind": "tensors", "mean": None, "std": None, "stated": None, "color": None,
    }  # fmt: skip
    assert written["model_shape"] == [5, 2]
    assert written["fed"] == SENSOR.sentence
    assert Contract.from_json(contract.to_json()) == contract
    header = c_header(contract)
    assert " * Input: 1x3x4 planar uint8, code = round(x / 0.5) + 100, clamped to 0..255" in header
    assert "#define K210_HAR_INPUT_SCALE 0.5f\n" in header
    assert "#define K210_HAR_INPUT_ZERO_POINT 100.0f\n" in header
    assert "MEAN" not in header
    assert "pixel" not in header
