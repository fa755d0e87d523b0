"""Weight codes: covering grids, and error feedback that beats plain rounding."""

import numpy as np
import pytest

from k210tasks.compiler.numerics import layer, moments, weights


def correlated(rng: np.random.Generator, rows, columns):
    """Non-negative correlated inputs as codes, like feature maps after ReLU."""
    base = rng.normal(size=(rows, max(2, columns // 4)))
    x = np.maximum(base @ rng.normal(size=(base.shape[1], columns)), 0)
    return np.rint(x / x.max() * 255).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 16])
def test_grid_covers_every_channel_without_clipping(bits: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(12, 40)) * rng.uniform(0.01, 10, size=(12, 1)) + 0.3
    zero, scale = weights.grid(w, bits=bits)
    q = weights.round_nearest(w, zero, scale, bits=bits)
    assert 0 <= zero < 2**bits
    assert q.codes.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (np.abs(q.real() - w) <= scale[:, None] * 0.5 + 1e-12).all()


def test_grid_of_zero_and_one_signed_channels() -> None:
    w = np.array([[0.0, 0.0], [1.0, 0.5], [-1.0, -0.25]])
    zero, scale = weights.grid(w)
    q = weights.round_nearest(w, zero, scale)
    assert (q.codes[0] == zero).all()
    assert np.abs(q.real() - w).max() <= 0.5 * scale.max()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shared", [True, False])
def test_weights_of_an_int8_file_are_not_rounded_again(shared, bits: int):
    rng = np.random.default_rng(3)
    codes = rng.integers(-90, 128, (6, 18))
    codes[2] = rng.integers(-40, 41, 18)  # a channel that does not use all codes
    codes[4] = 0
    steps = rng.uniform(0.001, 0.1, (1 if shared else 6, 1)).astype(np.float32)
    w = (codes * steps.astype(np.float64)).astype(np.float32).astype(np.float64) * 0.37
    q = weights.round_nearest(w, *weights.grid(w, bits=bits), bits=bits)
    assert np.abs(q.real() - w).max() < 1e-6 * np.abs(w).max()


def test_the_few_weights_of_a_sum_find_steps_that_suit_them() -> None:
    rng = np.random.default_rng(5)
    w = np.zeros((200, 8))
    for channel, row in enumerate(w):  # as a residual block adds: one weight of each map
        row[[channel % 4, 4 + channel % 4]] = rng.uniform(0.3, 1.0, 2)
    zero_point, steps = weights.grid(w)
    real = weights.round_nearest(w, zero_point, steps).real()
    assert np.abs(real - w).max() <= steps.max() / 2
    # The widest step without clipping, which suits the larger weight alone, is off by 0.09 / 255.
    assert np.abs(real - w)[w > 0].mean() < 0.03 / 255


def test_error_feedback_beats_rounding_on_the_inputs_it_was_given() -> None:
    rng = np.random.default_rng(1)
    x = correlated(rng, 600, 48)
    w = rng.normal(size=(16, 48))
    h = moments.second_moments(x)
    zero, scale = weights.grid(w)
    plain = weights.round_nearest(w, zero, scale)
    fed = weights.round_feedback(w, zero, scale, weights.damped(h))
    swept = weights.round_feedback(w, zero, scale, weights.damped(h), passes=5)

    def error(q):
        return float((((q.real() - w) @ x.T.astype(float)) ** 2).sum())

    assert error(fed) < 0.5 * error(plain)
    assert error(swept) <= error(fed) * 1.02


def test_error_feedback_on_uncorrelated_inputs_is_plain_rounding() -> None:
    rng = np.random.default_rng(2)
    w = rng.normal(size=(5, 20))
    zero, scale = weights.grid(w)
    fed = weights.round_feedback(w, zero, scale, np.eye(20))
    assert np.array_equal(fed.codes, weights.round_nearest(w, zero, scale).codes)


def test_depthwise_feedback() -> None:
    rng = np.random.default_rng(3)
    x = np.stack([correlated(rng, 500, 9) for _ in range(6)])
    w = rng.normal(size=(6, 9))
    h = np.stack([moments.second_moments(channel) for channel in x])
    zero, scale = weights.grid(w)
    plain = weights.round_nearest(w, zero, scale)
    fed = weights.round_depthwise(w, zero, scale, weights.damped(h))

    def error(q):
        return float((np.einsum("cpk,ck->cp", x, q.real() - w) ** 2).sum())

    assert error(fed) < 0.7 * error(plain)


def test_moments_are_exact_integers() -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(-255, 256, size=(1000, 30)).astype(np.float32)
    exact = x.astype(np.int64).T @ x.astype(np.int64)
    assert np.array_equal(moments.second_moments(x), exact)


class TestLayer:
    """Adapting weights to quantised inputs (numerics/layer.py)."""

    def setup_method(self) -> None:
        rng = np.random.default_rng(5)
        self.x = correlated(rng, 800, 36)
        self.w = rng.normal(size=(10, 36)) / 255
        self.b = rng.normal(size=10)
        noisy = self.x + rng.normal(size=self.x.shape) * 2
        self.before = noisy.astype(float) @ (self.w * 1.05).T + self.b + 0.1
        self.inputs = layer.Inputs.of(self.x)

    def error(self, w, b, after):
        return float(np.mean((after(self.inputs.apply(w) + b) - after(self.before)) ** 2))

    def test_adapting_lowers_the_error(self) -> None:
        target = layer.Target(self.before)
        w, b = layer.adapt(self.w, self.b, self.inputs, target)
        assert self.error(w, b, lambda y: y) < 0.6 * self.error(self.w, self.b, lambda y: y)

    def test_values_behind_a_clamp_are_enough(self) -> None:
        def relu6(y):
            return np.clip(y, 0, 6)

        target = layer.Target(relu6(self.before), 0.0, 6.0)
        w, b = layer.adapt(self.w, self.b, self.inputs, target)
        assert self.error(w, b, relu6) < 0.6 * self.error(self.w, self.b, relu6)

    def test_a_perfect_layer_is_left_alone(self) -> None:
        target = layer.Target(self.inputs.apply(self.w) + self.b)
        w, b = layer.adapt(self.w, self.b, self.inputs, target)
        assert np.allclose(w, self.w, atol=1e-9)
        assert np.allclose(b, self.b, atol=1e-9)

    def test_the_bias_leaves_no_mean_error(self) -> None:
        target = layer.Target(self.before)
        b = layer.settle_bias(self.w, self.b, self.inputs, target)
        miss = (self.inputs.apply(self.w) + b - self.before).mean(axis=0)
        assert np.abs(miss).max() < 1e-9

    def test_wide_layers_are_rounded_in_blocks(self) -> None:
        rng = np.random.default_rng(6)
        x = correlated(rng, 300, 1200)
        w = rng.normal(size=(4, 1200)) / 255
        inputs = layer.Inputs.of(x)
        assert [len(h) for h in inputs.h] == [576, 576, 48]
        fed, plain = (layer.round_layer(w, inputs, feedback=f) for f in (True, False))

        def error(q):
            return float((inputs.apply(q.real() - w) ** 2).sum())

        assert error(fed) < 0.5 * error(plain)

    def test_wide_layers_adapt_as_narrow_ones_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        target = layer.Target(self.before)
        narrow = layer.adapt(self.w, self.b, self.inputs, target)
        monkeypatch.setattr(layer, "WIDE", 30)
        monkeypatch.setattr(layer, "BLOCK", 20)
        wide = layer.adapt(self.w, self.b, layer.Inputs.of(self.x), target)
        assert np.allclose(wide[0], narrow[0], rtol=1e-9, atol=1e-12)
        assert np.allclose(wide[1], narrow[1], rtol=1e-9)

    def test_depthwise_adapts_channel_by_channel(self) -> None:
        rng = np.random.default_rng(7)
        rows = np.stack([correlated(rng, 400, 9) for _ in range(5)])
        inputs = layer.Inputs.of(rows)
        w, b = rng.normal(size=(5, 9)) / 255, rng.normal(size=5)
        target = layer.Target(inputs.apply(w * 1.1) + b + 0.2)
        adapted, bias = layer.adapt(w, b, inputs, target)
        before = inputs.apply(w) + b - target.values
        after = inputs.apply(adapted) + bias - target.values
        assert (after**2).mean() < 0.2 * (before**2).mean()
