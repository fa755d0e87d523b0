"""Products of two maps of kmodel 3, which the KPU makes of squares: as good as eight bits allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from k210tasks.compiler import functions
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.ops import KpuConv
from k210tasks.compiler.passes.kpu_binary import _square
from k210tasks.reference.litert import FloatModel
from tests.compiler import quantiser
from tests.compiler.helpers import Outcome, decibels, pixels, same_after_legalise, scaled
from tests.compiler.tflite_builder import Net


def rarely_positive(net: Net) -> int:
    """Small beside its factors, most of it clamped away."""
    x = net.conv(net.input, 4, act="RELU", gain=3.0)
    y = net.binary("ADD", net.conv(x, 4, (1, 1)), net.const(np.float32(-1.0)))
    return net.binary("MUL", x, y, act="RELU")


def unlike(net: Net) -> int:
    """Of factors of other sizes."""
    return net.binary("MUL", net.conv(net.input, 4, gain=12.0), net.conv(net.input, 4, gain=0.2))


def gated(net: Net) -> int:
    x = net.conv(net.input, 8, act="RELU", gain=3.0)
    gate = net.dense(net.reduce("MEAN", x, [1, 2], False), 8)
    gate = net.reshape(net.unary("LOGISTIC", gate), (1, 1, 1, 8))
    return net.binary("MUL", x, gate)


def of_one_map(net: Net) -> int:
    x = net.conv(net.input, 4, gain=3.0)
    return net.binary("MUL", x, net.conv(x, 4, (1, 1)))


def missing(build: Callable[[Net], int], size: int, effort: str) -> float:
    """dB by which a product is worse than of factors in eight bits."""
    net = Net((1, size, size, 3), seed=5)
    net.outputs = [build(net)]
    tflite = net.build(*net.outputs)
    same_after_legalise(tflite, 3)
    pictures = pixels((1, size, size, 3))
    inputs = [scaled(p) for p in pictures]
    measured = quantiser.measured(FloatModel(tflite, keep_all=True), inputs)
    ranges = quantiser.of_joined(net, measured)
    rounded = FloatModel(quantiser.fake_quantised(net, ranges, quantiser.bias_shifts(net, inputs)))
    outcome = Outcome(tflite, 3, pictures, effort=effort)
    wanted = np.stack([r[0] for r in outcome.reference])
    allowed = np.stack([to_nchw(rounded.run(x)[0]).ravel().copy() for x in inputs])
    return decibels(wanted, allowed) - outcome.decibels()[0]


@pytest.mark.parametrize("effort", ["fast", "high"])
@pytest.mark.parametrize("build", [rarely_positive, unlike, gated, of_one_map])
def test_a_product_has_the_noise_of_factors_in_eight_bits(
    build: Callable[[Net], int], effort: str
) -> None:
    assert missing(build, 12, effort) < 3


def test_so_has_one_of_more_channels_than_there_is_room_for_squares() -> None:
    def build(net: Net) -> int:
        return net.binary("MUL", net.conv(net.input, 340, gain=3.0), net.conv(net.input, 340))

    assert missing(build, 8, "fast") < 3


def test_a_factor_of_zero_gives_zero() -> None:
    """Both squares are then of the same number, whatever their codes are worth."""
    net = Net((1, 12, 12, 3), seed=5)
    end = rarely_positive(net)
    (factor,) = [op[2][0] for op in net.ops if op[0] == "CONV_2D"][:1]
    outcome = Outcome(net.build(end, factor), 3)
    products, factors = (np.stack([g[k] for g in outcome.got]) for k in (0, 1))
    assert (factors == 0).mean() > 0.2
    assert not products[factors == 0].any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_parts_of_a_square_add_up_to_it(count: int) -> None:
    x = np.linspace(-8, 8, 401)
    parts = [functions.evaluate(fn, x) for fn in _square(7.0, count)]
    assert len(parts) == count
    np.testing.assert_allclose(sum(parts), x**2, atol=1e-12)


def test_wide_maps_are_squared_some_channels_at_a_time() -> None:
    """1024 channels hold three parts of either square of up to 170 channels."""
    found = {}
    for channels in (160, 256, 260):
        net = Net((1, 4, 4, 8))
        net.binary(
            "MUL", net.conv(net.input, channels, (1, 1)), net.conv(net.input, channels, (1, 1))
        )
        graph = same_after_legalise(net.build(), 3)
        found[channels] = sum(isinstance(op, KpuConv) and op.role == "square" for op in graph.ops)
    assert found == {160: 6, 256: 12, 260: 12}
