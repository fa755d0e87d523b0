"""What a model is fed with, pixels or tensors, is told and never read off the floats."""

from __future__ import annotations

import io

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler import Calibration
from k210tasks.compiler.options import Fed, Options
from k210tasks.reference.litert import measurable
from tests.compiler.helpers import pixels, scaled
from tests.compiler.test_pipeline import int8_net
from tests.compiler.tflite_builder import Net


def small() -> bytes:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 4)
    return net.build()


#: Floats that are pixels under mean 0 and std 1, and might as well be a sensor's.
LIKE_PIXELS = [scaled(p, mean=0.0) for p in pixels((1, 8, 8, 3))]


@pytest.mark.parametrize(
    ("calibrated", "options", "expected"),
    [
        ("pixels", Options(), "pixels"),
        ("tensors", Options(), "tensors"),
        ("tensors", Options(mean=0.0, std=1.0), "tensors"),
        ("tensors", Options(fed="pixels"), "pixels"),
        ("pixels", Options(fed="tensors"), "tensors"),
        (None, Options(), "tensors"),
        (None, Options(mean=0.0), "pixels"),
        (None, Options(std=1.0), "pixels"),
    ],
)
def test_who_says_it(calibrated: Fed | None, options: Options, expected: Fed) -> None:
    calibration = compiler.calibrate(small(), LIKE_PIXELS, measurable, fed=calibrated)
    made = compiler.compile(small(), calibration, options)
    assert made.fed == expected
    assert made.input.dtype == ("uint8" if expected == "pixels" else "float32")


def test_codes_of_tensors_span_what_was_measured_not_what_pixels_would() -> None:
    halves = [x / 2 for x in LIKE_PIXELS]
    calibration = compiler.calibrate(small(), halves, measurable, fed="tensors")
    made = compiler.compile(small(), calibration, Options(kmodel=3))
    assert 0.5 / 255 < made.input.scale < 0.75 / 255
    told = compiler.calibrate(small(), halves, measurable, fed="pixels")
    made = compiler.compile(small(), told, Options(kmodel=3))
    assert (made.input.scale, made.input.zero_point) == (1 / 255, 0)


@pytest.mark.parametrize("fed", ["pixels", "tensors", None])
def test_the_file_keeps_it(fed: Fed | None) -> None:
    file = io.BytesIO()
    compiler.calibrate(small(), LIKE_PIXELS, measurable, fed=fed).to_npz(file)
    assert Calibration.from_npz(io.BytesIO(file.getvalue())).fed == fed


@pytest.mark.parametrize("kmodel", [3, 4])
def test_an_integer_file_without_samples_is_fed_with_its_own_codes(kmodel: int) -> None:
    """Three channels make no pixels: the file's scale is another one."""
    net = int8_net()
    net.tensors[net.input].update(scale=0.05, zero_point=-28)
    tflite = net.build(*net.outputs)
    made = compiler.compile(tflite, None, Options(kmodel=kmodel))
    assert (made.fed, made.input.dtype) == ("tensors", "uint8")
    assert made.input.scale == pytest.approx(0.05, rel=0.01)
    assert made.input.zero_point == pytest.approx(100, abs=1)
    asked = compiler.compile(tflite, None, Options(kmodel=kmodel, mean=0.5, std=0.5))
    assert (asked.fed, asked.input.zero_point) == ("pixels", 127.5)
    assert np.isclose(asked.input.scale, 2 / 255)
