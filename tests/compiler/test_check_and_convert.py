"""What check approves compiles, with the layers and bytes it said; nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from k210tasks import compiler
from k210tasks.compiler.options import Options
from k210tasks.compiler.problems import TooMuchMemory
from k210tasks.reference.litert import measurable
from tests.check_and_convert import disagreement
from tests.compiler.chains import networks
from tests.compiler.helpers import fixture, pixels, scaled
from tests.compiler.quantiser import quantised_by
from tests.compiler.test_agreement import STRUCTURES
from tests.compiler.tflite_builder import Net


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", ["iris", "vww_96_float", "ulffd_landmark"])
def test_of_real_models(name: str, kmodel: int) -> None:
    assert disagreement(fixture(f"{name}.tflite"), kmodel) is None


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("build", STRUCTURES)
@pytest.mark.parametrize("integers", [False, True])
def test_of_joined_and_split_maps(build: Callable[[Net], int], kmodel: int, integers: bool) -> None:
    net = Net((1, 12, 12, 3))
    end = build(net)
    tflite = net.build(end)
    if integers and not any(op[0] in ("NEG", "ADD") for op in net.ops):
        tflite = quantised_by(net, [scaled(p, 0.0) for p in pixels((1, 12, 12, 3))], end)
    assert disagreement(tflite, kmodel) is None


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
@pytest.mark.parametrize("kmodel", [3, 4])
def test_of_random_networks(kmodel: int, net: Net) -> None:
    assert disagreement(net.build(*net.outputs), kmodel) is None


@pytest.mark.parametrize("kmodel", [3, 4])
def test_what_fills_the_memory_is_refused_by_both_in_the_same_words(kmodel: int) -> None:
    net = Net((1, 1024))
    net.dense(net.dense(net.input, 1600), 10)
    tflite = net.build()
    (problem,) = compiler.check(tflite, kmodel).problems
    rng = np.random.default_rng(0)
    calibration = compiler.calibrate(
        tflite, [rng.normal(0, 1, (1, 1024)).astype(np.float32)], measurable
    )
    with pytest.raises(TooMuchMemory) as caught:
        compiler.compile(tflite, calibration, Options(kmodel=kmodel, effort="fast"))
    assert str(caught.value) == problem
    assert "SRAM, the K210 has 6291456 for the program too" in problem


@pytest.mark.parametrize("kmodel", [3, 4])
def test_an_output_without_a_fixed_shape_is_refused(kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    y = net.reshape(net.conv(net.input, 4), (1, 64, 4))
    net.tensors[y]["signature"] = [-1, -1, 4]
    with pytest.raises(compiler.CompileError, match="output 't5' has no fixed shape"):
        compiler.check(net.build(), kmodel)
