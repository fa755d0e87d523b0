from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from k210tasks.kpu.conv import ConvLayer
from k210tasks.kpu.errors import IllegalLayer
from k210tasks.kpu.pools import Pool
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm
from tests.kpu import slow

PARKED = [(1 << 35) - 20 + i for i in range(14)]


def table(rng: np.random.Generator, kind: str, reach: int) -> Activation:
    """An activation table of one of the shapes compilers write, or a random one."""
    if kind == "line":  # zero, one rising segment, the rest out of reach
        start = [LOWEST_START, int(rng.integers(-reach, reach)), *PARKED]
        mul = [0, int(rng.integers(1, 2000))] + [0] * 14
        bias = [0, int(rng.choice([0, 7]))] + [255] * 14
        return Activation.of(start, mul, [20] * 16, bias)
    if kind == "few":
        knees = np.sort(rng.integers(-reach, reach, 2)).tolist()
        start = [LOWEST_START, *knees, *[(1 << 35) - 1] * 13]
        return Activation.of(
            start,
            [0, *rng.integers(0, 3000, 15)],
            rng.integers(10, 24, 16),
            rng.integers(0, 256, 16),
        )
    start = np.sort(np.r_[LOWEST_START, rng.integers(-reach, reach, 15)])
    mul = rng.integers(-300, 3000, 16)
    mul[0] = 0
    return Activation.of(start, mul, rng.integers(0, 24, 16), rng.integers(0, 256, 16))


def random_layer(seed: int) -> tuple[ConvLayer, Any, dict[str, Any], tuple[Any, ...]]:
    rng = np.random.default_rng(seed)
    depthwise, k = bool(rng.random() < 0.4), int(rng.choice([1, 3]))
    channels = int(rng.integers(1, 5))
    out_channels = channels if depthwise else int(rng.integers(1, 6))
    dtype = np.uint16 if rng.random() < 0.2 else np.uint8
    shape = (out_channels, 1 if depthwise else channels, k, k)
    weights = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    x = rng.integers(0, 256, (rng.integers(1, 4), channels, *rng.integers(4, 10, 2))).astype(
        np.uint8
    )
    wild = rng.random() < 0.25
    zero_w, zero_x = int(rng.integers(0, 256)), int(rng.integers(0, 256))
    shift = int(rng.choice([0, 15]))
    terms: dict[str, int] = {
        "arg_x": (-zero_w << shift) + int(rng.choice([0, 0, 1])),
        "shr_x": shift,
        "arg_w": -zero_x,
        "shr_w": 0,
        "arg_add": zero_w * zero_x * k * k,
    }
    if wild:
        terms = {
            "arg_x": int(rng.integers(-(1 << 23), 1 << 23)),
            "shr_x": int(rng.integers(0, 16)),
            "arg_w": int(rng.integers(-(1 << 23), 1 << 23)),
            "shr_w": int(rng.integers(0, 16)),
            "arg_add": int(rng.integers(-(1 << 30), 1 << 30)),
        }
    mul = rng.integers(-(1 << 21), 1 << 21, out_channels)
    bn = BatchNorm.of(
        np.abs(mul) if rng.random() < 0.5 else mul,
        rng.integers(8, 16, out_channels),
        rng.integers(-(1 << 20), 1 << 20, out_channels),
    )
    activation = table(rng, str(rng.choice(["line", "few", "any"])), 1 << (34 if wild else 24))
    facts = {
        "depthwise": depthwise,
        "pool": Pool(int(rng.integers(0, 10))),
        "pad_value": int(rng.integers(0, 256)),
        **terms,
    }
    return ConvLayer(weights, bn, activation, **facts), x, facts, (weights, bn, activation)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_equals_the_plain_integer_definition(seed: int) -> None:
    layer, x, facts, arrays = random_layer(seed)
    # Beyond 64 bits after the batch norm's 21-bit factor ours wraps and the plain one does not;
    # no compiled layer has such sums.
    assume(int(np.abs(layer.epilogue.offset).max()) < 1 << 41)
    got = layer.run(x)
    slow_facts = dict(facts)
    slow_facts["pool_type"] = int(slow_facts.pop("pool"))
    for one, out in zip(x, got, strict=True):
        np.testing.assert_array_equal(out, slow.layer(one, *arrays, **slow_facts))


def test_every_path_is_taken_by_the_random_layers() -> None:
    layers = [random_layer(seed)[0] for seed in range(150)]
    assert {(x.dtype.__name__, x.epilogue.exact_in_float) for x in layers} == {
        (dtype, fits) for dtype in ("float32", "float64") for fits in (True, False)
    }
    assert {min(len(x.epilogue.segments), 4) for x in layers} >= {1, 2, 3, 4}
    assert {x.separate is None for x in layers} == {True, False}
    assert {(x.kernel, x.depthwise, x.stride > 1) for x in layers} == {
        (k, depthwise, picks)
        for k in (1, 3)
        for depthwise in (True, False)
        for picks in (True, False)
    }


def identity() -> tuple[BatchNorm, Activation]:
    """Batch norm and activation that pass accumulators 0..255 through."""
    activation = Activation.of(
        [LOWEST_START, 0, *PARKED], [0, 1, *[0] * 14], [0] * 16, [0, 0, *[255] * 14]
    )
    return BatchNorm.of([1], [0], [0]), activation


@pytest.mark.parametrize(("channels", "parts"), [(28, 1), (29, 2), (57, 2), (58, 3), (1024, 0)])
def test_float32_sums_only_what_it_holds_exactly(channels: int, parts: int) -> None:
    # 255 * 255 * 258 taps = 16 776 450 < 2**24 = 16 777 216: 28 channels of 3x3 are 252 taps
    weights = np.full((1, channels, 3, 3), 255, np.uint8)
    bn, activation = identity()
    layer = ConvLayer(weights, bn, activation)
    assert len(layer.parts) == parts
    assert layer.dtype is (np.float32 if parts else np.float64)
    for part in layer.parts:
        assert 255 * layer.weights[:, part].sum(1).max() < 1 << 24


@settings(max_examples=30, deadline=None)
@given(channels=st.integers(20, 140), seed=st.integers(0, 2**32 - 1), fold=st.booleans())
def test_sums_of_parts_equal_64_bit_integers(channels: int, seed: int, fold: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 256, (3, channels, 3, 3)).astype(np.uint8)
    _, activation = identity()
    arg_x = -100 if fold else -100 * 32768 + 1
    layer = ConvLayer(
        weights,
        BatchNorm.of([1] * 3, [0] * 3, [0] * 3),
        activation,
        arg_x=arg_x,
        shr_x=0 if fold else 15,
    )
    columns = rng.integers(0, 256, (channels * 9, 7))
    expected = weights.reshape(3, -1).astype(np.int64) @ columns
    expected += (arg_x * columns.sum(0)) >> (0 if fold else 15)
    np.testing.assert_array_equal(layer._accumulate(columns.astype(layer.dtype)), expected)


def test_the_largest_layer_does_not_lose_a_unit() -> None:
    weights = np.full((1, 1024, 1, 1), 255, np.uint8)
    weights[0, -1] = 254
    bn = BatchNorm.of([1], [0], [-(255 * 255 * 1024 - 255 - 3)])
    _, activation = identity()
    out = ConvLayer(weights, bn, activation).run(np.full((1024, 4, 4), 255, np.uint8))
    assert out.max() == out.min() == 3


def test_rounding_is_half_to_even_for_rising_segments() -> None:
    # v = acc = x; y = round(x / 2): 1 -> 0.5 -> 0, 3 -> 1.5 -> 2, 5 -> 2.5 -> 2
    activation = Activation.of(
        [LOWEST_START, 0, *PARKED], [0, 1, *[0] * 14], [0, 1, *[0] * 14], [0, 0, *[255] * 14]
    )
    layer = ConvLayer(np.ones((1, 1, 1, 1), np.uint8), BatchNorm.of([1], [0], [0]), activation)
    x = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.uint8).reshape(1, 2, 4)
    assert layer.run(x).reshape(-1).tolist() == [0, 0, 1, 2, 2, 2, 3, 4]


def test_rounding_of_falling_segments_moves_the_floor_down() -> None:
    # y = 100 + round(-x / 2): x = 1 -> -0.5: floor -1 is odd, so -2 -> 98; x = 3 -> -1.5: -2
    activation = Activation.of(
        [LOWEST_START, 0, *PARKED], [0, -1, *[0] * 14], [0, 1, *[0] * 14], [100, 100, *[255] * 14]
    )
    layer = ConvLayer(np.ones((1, 1, 1, 1), np.uint8), BatchNorm.of([1], [0], [0]), activation)
    x = np.array([0, 1, 2, 3, 4, 5, 6, 7], np.uint8).reshape(1, 2, 4)
    assert layer.run(x).reshape(-1).tolist() == [100, 98, 99, 98, 98, 96, 97, 96]


def test_a_batch_gives_what_its_images_give_alone() -> None:
    layer, _, _, _ = random_layer(3)
    x = np.random.default_rng(1).integers(0, 256, (5, layer.in_channels, 9, 40)).astype(np.uint8)
    np.testing.assert_array_equal(layer.run(x), np.stack([layer.run(one) for one in x]))


def test_maps_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(40):
        layer, x, _, _ = random_layer(seed)
        whole = layer.run(x)
        with monkeypatch.context() as patch:
            patch.setattr("k210tasks.kpu.conv.BLOCK", 7)
            patch.setattr("k210tasks.kpu.conv.SMALLEST_BLOCK", 5)
            patch.setattr("k210tasks.kpu.conv.BATCH_PIXELS", 1)
            np.testing.assert_array_equal(layer.run(x), whole)


def test_refusals_name_field_and_shape() -> None:
    bn, activation = identity()
    with pytest.raises(IllegalLayer, match=r"weights is of shape \(1, 1, 2, 2\); allowed: OC, IC"):
        ConvLayer(np.zeros((1, 1, 2, 2), np.uint8), bn, activation)
    with pytest.raises(IllegalLayer, match="batch norm is 1 entries; allowed: 2, one a channel"):
        ConvLayer(np.zeros((2, 1, 1, 1), np.uint8), bn, activation)
    layer = ConvLayer(np.zeros((1, 3, 1, 1), np.uint8), bn, activation)
    with pytest.raises(IllegalLayer, match=r"input is uint8 of shape \(1, 2, 4, 4\)"):
        layer.run(np.zeros((2, 4, 4), np.uint8))
