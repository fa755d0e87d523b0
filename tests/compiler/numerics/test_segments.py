"""Activation tables, on the KPU's own arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.compiler.numerics import segments
from k210tasks.kpu.activation import activate_exact
from k210tasks.kpu.tables import Activation, BatchNorm


def through_kpu(table: segments.ActivationTable, v: np.ndarray) -> np.ndarray:
    """Codes as the KPU's definition computes them: accumulator = result, batch norm neutral."""
    bn = BatchNorm.of([1], [0], [0])
    activation = Activation.of(table.start, table.mul, table.shift, table.bias)
    return activate_exact(v[None], bn, activation)[0]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_linear_is_the_rounded_clamp(fraction, zero, a, b):
    low, high = min(a, b), max(a, b)
    table = segments.linear(fraction, zero, low, high)
    v = np.arange(-400 << fraction, 400 << fraction, max(1, (1 << fraction) // 9), dtype=np.int64)
    real = v / 2**fraction + zero
    codes = table.apply(v)
    assert np.array_equal(codes, through_kpu(table, v))
    assert (np.abs(codes - np.clip(real, low, high)) <= 0.5).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(4, segments.CURVE_FRACTION), st.integers(0, 255), st.floats(0.005, 1.0))
def test_leaky_is_within_a_hundredth_of_rounding(fraction, zero, alpha):
    table = segments.leaky(fraction, zero, alpha)
    v = np.arange(-600 << fraction, 300 << fraction, max(1, (1 << fraction) // 5), dtype=np.int64)
    p = v / 2**fraction
    exact = np.clip(np.where(p < 0, alpha * p, p) + zero, 0, 255)
    codes = table.apply(v)
    assert np.array_equal(codes, through_kpu(table, v))
    # 600 codes times the slope's own rounding, and the start's, half a digit of v
    slack = 600 * 2.0 ** (fraction - 21) + 0.5 * 2.0**-fraction
    assert np.abs(codes - exact).max() <= 0.5 + slack + 1e-9


def logistic(x):
    return 1 / (1 + np.exp(-x))


#: name, function, pre-activation range, output range, worst error allowed in codes
CURVES = [
    ("logistic", logistic, (-8, 8), (0, 1), 1.4),
    ("logistic wide", logistic, (-60, 60), (0, 1), 2.2),
    ("tanh", np.tanh, (-4, 4), (-1, 1), 1.4),
    ("hard swish", lambda x: x * np.clip(x + 3, 0, 6) / 6, (-6, 6), (-0.375, 6), 1.5),
    ("elu", lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), (-4, 4), (-1, 4), 0.8),
    ("square", lambda x: x * x, (-4, 4), (0, 16), 3.0),
    ("falling", lambda x: -x, (-4, 4), (-4, 4), 2.1),
    ("constant", lambda x: 0 * x + 0.3, (-4, 4), (0, 1), 0.6),
    ("step", lambda x: (x > 1) * 1.0, (-4, 4), (0, 1), 255.1),
]


@pytest.mark.parametrize(("name", "f", "span", "out", "allowed"), CURVES, ids=lambda a: str(a)[:9])
def test_fitted_curves_and_their_proof(name, f, span, out, allowed):
    fraction, scale = 9, (out[1] - out[0]) / 255
    zero = round(-out[0] / scale)
    step = (span[1] - span[0]) / 255 * 2.0**-fraction

    def curve(v):
        return f(v * step) / scale + zero

    low, high = round(span[0] / step), round(span[1] / step)
    fit = segments.fit(curve, low, high)
    v = np.unique(np.linspace(low, high, 9001).round().astype(np.int64))
    codes = fit.table.apply(v)
    assert np.array_equal(codes, through_kpu(fit.table, v))
    error = np.abs(codes - np.clip(curve(v.astype(float)), 0, 255)).max()
    assert error <= fit.max_error + 0.05
    assert fit.max_error <= allowed
    assert fit.rms_error <= {"square": 0.75, "step": 7.0}.get(name, 1.3)
    # Beyond the range the table goes on from its ends, it does not jump (segment 0 would be 0).
    ends = fit.table.apply(np.array([-(2**34), low], np.int64))
    assert abs(int(ends[0]) - int(ends[1])) <= 3


def test_a_function_falling_at_the_left_edge_does_not_start_at_code_zero() -> None:
    fit = segments.fit(lambda v: 255 - v / 512, 0, 255 * 512)
    assert fit.table.apply(np.array([-5, 0, 1], np.int64)).min() >= 253


def test_weights_move_the_error_to_rare_results() -> None:
    def curve(v):
        return 255 * logistic(v / 4000)

    where = np.zeros(1024)
    where[480:544] = 1
    even, dense = (
        segments.fit(curve, -32000, 32000),
        segments.fit(curve, -32000, 32000, weights=where),
    )
    v = np.arange(-2000, 2000, dtype=np.int64)

    def rms(fit):
        return np.sqrt(np.mean((fit.table.apply(v) - curve(v.astype(float))) ** 2))

    assert rms(dense) < rms(even)


def test_too_many_segments_are_refused() -> None:
    with pytest.raises(ValueError, match="16 segments, a table holds 15 and the left end"):
        segments.table([segments.Segment(i, 0, 0, 0) for i in range(16)], 0)


def test_what_a_curve_is_constant_from_keeps_its_code_however_far_beyond() -> None:
    def curve(v):
        return np.minimum(255 * np.tanh(np.minimum(v, 3000) / 3000), 255) + 0.4

    open_end, ended = (segments.fit(curve, 0, 3000, constant_above=c) for c in (False, True))
    beyond = np.array([3001, 30_000, 2**34], np.int64)
    assert set(ended.table.apply(beyond)) == {round(float(curve(np.array(3000.0))))}
    assert set(open_end.table.apply(beyond)) != set(ended.table.apply(beyond))
    assert ended.rms_error <= 1.3 * open_end.rms_error
