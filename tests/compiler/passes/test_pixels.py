"""Pixels with a mean and a std of their own in each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks import compiler
from k210tasks.compiler import executor
from k210tasks.compiler.ir import as_fed, to_nchw
from k210tasks.compiler.options import Compiled, Options
from k210tasks.compiler.passes.pixels import meaning
from k210tasks.compiler.pipeline import BadOptions, lowered
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.helpers import decibels
from tests.compiler.tflite_builder import Net

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AS_ONE = 0.449, 0.226
FAR_APART = (0.1, 0.5, 0.9), (0.2, 1.0, 0.3)

#: What pixels may meet first.
FIRST: dict[str, Callable[[Net], int]] = {
    "padded": lambda net: net.conv(net.input, 8),
    "padded, stride 2": lambda net: net.conv(net.input, 8, stride=(2, 2)),
    "padded before": lambda net: net.conv(
        net.pad(net.input, [(0, 0), (1, 1), (1, 1), (0, 0)]), 8, padding="VALID"
    ),
    "not padded": lambda net: net.conv(net.input, 8, padding="VALID"),
    "7x7": lambda net: net.conv(net.input, 8, (7, 7), stride=(2, 2)),
    "depthwise": lambda net: net.depthwise(net.input),
    "pool": lambda net: net.conv(net.pool(net.input, "MAX", (2, 2)), 8),
    "two readers": lambda net: net.concat(
        [net.conv(net.input, 4), net.conv(net.input, 4, (1, 1))], 3
    ),
}


def network(first: str) -> bytes:
    net = Net((1, 24, 32, 3))
    return net.build(FIRST[first](net))


def blobs(seed: int, count: int = 8) -> list[NDArray[np.uint8]]:
    """Pictures (24, 32, 3) of flat squares with some noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        flat = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1)))
        found.append(np.clip(flat + rng.normal(0, 10, flat.shape), 0, 255).astype(np.uint8))
    return found


def normalised(picture: NDArray[np.uint8], mean: Any, std: Any) -> NDArray[np.float32]:
    return ((picture / 255 - np.array(mean)) / np.array(std)).astype(np.float32)[None]


def built(tflite: bytes, kmodel: int, mean: Any, std: Any) -> Compiled:
    samples = [normalised(p, mean, std) for p in blobs(1)]
    calibration = compiler.calibrate(tflite, samples, measurable)
    return compiler.compile(tflite, calibration, Options(kmodel, mean=mean, std=std))


def measured(tflite: bytes, kmodel: int, mean: Any, std: Any) -> float:
    """dB over pictures that were not calibrated with; the kmodel is fed raw pixels."""
    made, model = built(tflite, kmodel, mean, std), FloatModel(tflite)
    simulator = Simulator(parse(made.kmodel))
    wanted, got = [], []
    for picture in blobs(2):
        wanted.append(to_nchw(model.run(normalised(picture, mean, std))[0]).ravel().copy())
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))
        got.append(np.array(simulator.run(planes)[0]).ravel())
    return decibels(np.stack(wanted), np.stack(got))


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("scaling", [IMAGENET, FAR_APART])
def test_in_float_it_is_the_same_function_at_the_edges_too(
    first: str, kmodel: int, scaling: tuple[Any, Any]
) -> None:
    tflite, pixels = network(first), meaning(*scaling)
    graph = lowered(tflite, kmodel, pixels=pixels)
    [picture] = blobs(3, 1)
    fed = pixels.quant.decode(picture.transpose(2, 0, 1)[None])
    [wanted] = FloatModel(tflite).run(normalised(picture, *scaling))
    [got] = executor.outputs(graph, as_fed(fed, graph.input))
    limit = 1e-5 * float(np.abs(wanted).max())
    np.testing.assert_allclose(got, to_nchw(wanted), rtol=0, atol=limit)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("kmodel", [3, 4])
def test_as_exact_as_with_one_scale_for_all(first: str, kmodel: int) -> None:
    tflite = network(first)
    one = measured(tflite, kmodel, *AS_ONE)
    # A depthwise layer keeps the three scales apart: its map has one, of the widest.
    allowed = 1.0 if first in ("depthwise", "two readers", "pool") else 0.3
    assert measured(tflite, kmodel, *IMAGENET) > one - allowed


@pytest.mark.parametrize("kmodel", [3, 4])
def test_equal_numbers_give_the_bytes_of_one(kmodel: int) -> None:
    tflite = network("padded")
    each = built(tflite, kmodel, (0.45, 0.45, 0.45), (0.25, 0.25, 0.25))
    assert each == built(tflite, kmodel, 0.45, 0.25)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_channel_is_added_only_where_padding_needs_it(kmodel: int) -> None:
    layers = {first: len(built(network(first), kmodel, *IMAGENET).layers) for first in FIRST}
    one = {first: len(built(network(first), kmodel, *AS_ONE).layers) for first in FIRST}
    more = {first: layers[first] - one[first] for first in FIRST}
    assert more == {first: int(first != "not padded") for first in FIRST}


def test_what_the_codes_of_each_channel_mean_is_told() -> None:
    made = built(network("padded"), 4, (0.5, 0.25, 0.0), 0.2)
    assert made.input.dtype == "uint8"
    assert made.input.scale == pytest.approx((1 / 51, 1 / 51, 1 / 51))
    assert made.input.zero_point == pytest.approx((127.5, 63.75, 0))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"mean": (0.1, 0.2)},
            "mean and std have 2 numbers, one a channel, but the model's input 'input' has 3 "
            "channels",
        ),
        ({"std": (0.1, 0.0, 0.2)}, "std must be above zero, it is 0"),
        ({"mean": (0.1, float("inf"), 0.2)}, "mean and std must be finite numbers"),
    ],
)
def test_refused(options: Any, why: str) -> None:
    tflite = network("padded")
    samples = [normalised(p, 0, 1) for p in blobs(1, 2)]
    calibration = compiler.calibrate(tflite, samples, measurable)
    with pytest.raises(BadOptions) as caught:
        compiler.compile(tflite, calibration, Options(**options))
    assert str(caught.value) == why
