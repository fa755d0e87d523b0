"""Random networks through the whole compiler: right within quantisation error, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from k210tasks import compiler
from k210tasks.compiler import executor
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Options
from k210tasks.compiler.pipeline import lowered
from k210tasks.compiler.problems import Unsupported
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel
from k210tasks.simulator import Simulator
from tests.compiler.chains import networks
from tests.compiler.helpers import MEAN, decibels, pixels, scaled
from tests.compiler.tflite_builder import Net

# What a chain of at most twelve 8-bit layers may lose; a map misplaced by one pixel loses all.
LEAST = 20.0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_network_computes_what_litert_does_or_is_refused(kmodel: int, net: Net) -> None:
    tflite = net.build(*net.outputs)
    pictures = pixels(net.shape(net.input))
    inputs = [scaled(p) for p in pictures]
    model = FloatModel(tflite)
    reference = [[to_nchw(y).copy() for y in model.run(x)] for x in inputs]
    try:
        graph = lowered(tflite, kmodel)
    except Unsupported:
        return

    exact = executor.outputs(graph, to_nchw(inputs[0]).reshape(graph.input.shape))
    for y, wanted in zip(exact, reference[0], strict=True):
        size = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-4 * size)

    calibration = compiler.calibrate(tflite, inputs)
    made = compiler.compile(tflite, calibration, Options(kmodel=kmodel, mean=MEAN, effort="fast"))
    simulator = Simulator(parse(made.kmodel))
    got = [simulator.run(np.ascontiguousarray(np.moveaxis(p, -1, 0))) for p in pictures]
    # Outputs that average to almost nothing are measured against the values they are made of.
    floor = 0.01 * max(float(s.high - s.low) for s in calibration.tensors.values())
    for k in range(len(reference[0])):
        wanted = np.stack([r[k].ravel() for r in reference])
        seen = np.stack([np.array(g[k]) for g in got])
        noise = float(np.sqrt(np.mean(np.square(wanted - seen))))
        assert decibels(wanted, seen) > LEAST or noise < floor, (noise, floor, made.listing)
