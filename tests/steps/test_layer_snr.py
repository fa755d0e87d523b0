"""Each KPU layer's error is taken where the layer computes its tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler.options import Options, Place
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.samples.loading import planar
from k210tasks.simulator import Simulator
from k210tasks.steps.layer_snr import _picked, _real
from tests.compiler.helpers import MEAN, decibels, pixels, scaled
from tests.compiler.quantiser import quantised_by
from tests.compiler.tflite_builder import Net


def test_values_are_picked_by_offset_step_size_and_channel() -> None:
    codes = np.arange(2 * 6 * 6).reshape(2, 6, 6)
    at = Place((1, 0), (2, 3), (2, 2), 1)
    picked = _picked(codes, np.arange(3 * 4.0).reshape(3, 2, 2), at)
    assert picked is not None
    assert picked[0].tolist() == [[6, 9, 18, 21], [42, 45, 54, 57]]
    assert picked[1].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    at = Place((1, 1), (1, 1), (1, 1), 0)
    picked = _picked(codes, np.zeros(2), at)
    assert picked is not None
    assert picked[0].tolist() == [[7], [43]]
    assert _picked(codes, np.zeros((2, 2, 2)), at) is None


def wide_dense(net: Net) -> int:
    """1152 inputs: computed at pixel (1, 1) of its map."""
    return net.dense(net.dense(net.conv(net.input, 18), 40, act="RELU"), 4)


def narrow_dense(net: Net) -> int:
    x = net.reduce("MEAN", net.conv(net.input, 300), [1, 2], False)
    return net.dense(net.dense(x, 40, act="RELU"), 4)


def cropped(net: Net) -> int:
    return net.conv(net.conv(net.input, 8, padding="VALID"), 4, (2, 2), padding="VALID")


def strided(net: Net) -> int:
    x = net.depthwise(net.conv(net.input, 8, stride=(2, 2)), stride=(2, 2))
    return net.conv(net.conv(x, 4, (1, 1)), 4, (2, 2), stride=(3, 3))


def many_loads(net: Net) -> int:
    return net.conv(net.conv(net.conv(net.input, 512, (1, 1)), 400), 4, (1, 1))


def pooled(net: Net) -> int:
    return net.pool(net.conv(net.input, 8, act="RELU"), "MAX", (2, 2))


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("build", [wide_dense, narrow_dense, cropped, strided, many_loads, pooled])
@pytest.mark.parametrize("integers", [False, True])
def test_every_row_says_where_its_tensor_is(
    build: Callable[[Net], int], kmodel: int, integers: bool
) -> None:
    net = Net((1, 8, 8, 3))
    end = build(net)
    pictures = pixels((1, 8, 8, 3))
    inputs = [scaled(p) for p in pictures]
    tflite = quantised_by(net, inputs, end) if integers else net.build(end)
    calibration = compiler.calibrate(tflite, inputs, measurable)
    options = Options(kmodel=kmodel, mean=MEAN, effort="fast")
    made = compiler.compile(tflite, calibration, options)
    rows = [row for row in made.layers if row.tensor is not None]
    assert len(rows) >= 1
    simulator, model = Simulator(parse(made.kmodel)), FloatModel(tflite, keep_all=True)
    for row in rows:
        seen, wanted = [], []
        for picture in pictures:
            simulator.run(np.ascontiguousarray(np.moveaxis(picture, -1, 0)), keep_layers=True)
            (shown,) = model.looked_at(scaled(picture), [row.tensor])
            real = _real(simulator.layer_output(row.index), row)
            both = _picked(real, planar(shown), row.at)
            assert both is not None, row
            seen.append(both[0])
            wanted.append(both[1])
        assert decibels(np.stack(wanted), np.stack(seen)) > 22, row
