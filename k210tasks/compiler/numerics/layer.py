"""One layer's weights and bias, chosen on what the layers before it really put out.

Given are rows of input codes at sampled pixels and what the float model has there. The
weights are first moved a little so that the layer maps the *quantised* input to the float
output (a ridge regression around the float weights, which also undoes part of the errors
of the layers before), then rounded with error feedback, then the bias takes up what is
left on average.

Where the float output is known only after a clamping activation, values at a bound say
no more than that the value before was at it or beyond: they pull only where they are
missed (a censored regression).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.numerics import moments, weights

Floats = NDArray[np.float64]

RIDGE = 3.0  # pull towards the float weights, as a share of the inputs' mean power
DAMPING = 0.01  # added to H before rounding, as a share of its mean diagonal
WIDE = 640  # weights per output channel from which on H is kept in blocks
SPREAD = 255 / math.sqrt(12)  # standard deviation of codes that are all alike often
#: a bound is met by what float32 arithmetic makes of it, a share of the larger bound beside it
NEAR = 1e-6
BLOCK = 576  # and their size: whole 3x3 windows of 64 channels


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """A layer's inputs at P sampled pixels: codes minus zero point, integer-valued float64.

    ``rows`` is [P, K], or for a depthwise layer [C, P, K]. ``h`` are their second moments,
    for a wide layer in blocks along the diagonal: a list of one or more [k, k], or one
    [C, K, K] for depthwise.
    """

    rows: Floats
    h: list[Floats]

    @property
    def depthwise(self) -> bool:
        return self.rows.ndim == 3

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Inputs:
        """From codes minus zero point, float32."""
        wide = rows.astype(np.float64)
        if rows.ndim == 3:
            return cls(wide, [np.matmul(wide.transpose(0, 2, 1), wide)])
        taps = rows.shape[1]
        each = taps if taps <= WIDE else BLOCK
        return cls(
            wide,
            [
                moments.second_moments(np.ascontiguousarray(rows[:, k : k + each]))
                for k in range(0, taps, each)
            ],
        )

    @classmethod
    def unmeasured(cls, middle: Floats) -> Inputs:
        """Of maps that no sample shows: all codes alike often, each by itself. ``middle`` [K], or
        for a depthwise layer [C, K], is the mean of the codes minus zero point. It makes
        what is rounded off the weights add up to nothing where inputs have one sign."""
        if middle.ndim == 2:
            eye = np.broadcast_to(np.eye(middle.shape[1]), (len(middle), *2 * middle.shape[1:]))
            return cls(
                np.empty((len(middle), 0, middle.shape[1])),
                [SPREAD**2 * eye + middle[:, :, None] * middle[:, None, :]],
            )
        taps = len(middle)
        each = taps if taps <= WIDE else BLOCK
        parts = [middle[k : k + each] for k in range(0, taps, each)]
        h = [SPREAD**2 * np.eye(len(part)) + np.outer(part, part) for part in parts]
        return cls(np.empty((0, taps)), h)

    @property
    def power(self) -> NDArray[np.float64]:
        """Mean of the diagonal of ``h``; depthwise: [C]."""
        if self.depthwise:
            return np.asarray(np.einsum("ckk->ck", self.h[0]).mean(axis=1))
        return np.array(sum(np.trace(h) for h in self.h) / self.rows.shape[1])

    def apply(self, w: Floats) -> Floats:
        """``[P, OC]``: the layer without bias."""
        if self.depthwise:
            return np.asarray(np.matmul(self.rows, w[:, :, None])[:, :, 0].T)
        return self.rows @ w.T

    def project(self, residual: Floats) -> Floats:
        """``[OC, K]``: the correlation of ``residual`` [P, OC] with the inputs."""
        if self.depthwise:
            return np.asarray(np.matmul(residual.T[:, None, :], self.rows)[:, 0])
        return residual.T @ self.rows


@dataclass(slots=True, eq=False)
class Target:
    """What the float model has at the sampled pixels, [P, OC] in reals.

    After clamping to ``low..high``; infinite where it is the value before any activation.
    """

    values: Floats
    low: float = -math.inf
    high: float = math.inf
    _most: Floats | None = field(init=False, default=None)
    _least: Floats | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # Bounds for every value: a masked minimum takes four times as long as a whole one.
        near = NEAR * max(abs(end) for end in (self.low, self.high, 0.0) if math.isfinite(end))
        if self.low > -math.inf:
            self._most = np.where(self.values <= self.low + near, 0.0, math.inf)
        if self.high < math.inf:
            self._least = np.where(self.values >= self.high - near, 0.0, -math.inf)

    def residual(self, predicted: Floats) -> Floats:
        """By how much ``predicted`` values before the activation should change."""
        r = self.values - predicted
        if self._most is not None:
            np.minimum(r, self._most, out=r)
        if self._least is not None:
            np.maximum(r, self._least, out=r)
        return r


def adapt(
    w: Floats, bias: Floats, inputs: Inputs, target: Target, *, ridge: float = RIDGE
) -> tuple[Floats, Floats]:
    """Weights [OC, K] and bias [OC] moved towards the target on the quantised inputs.

    Minimises ``|residual|**2 + ridge * mean(diag h) * |change|**2``, the bias free; with
    fewer pixels than weights the pull grows by their ratio. Solved directly: an iteration
    would let the last bits of the matrix products, which differ from one BLAS kernel to
    another, grow.
    """
    pixels, taps = inputs.rows.shape[-2:]
    pull = ridge * max(1.0, taps / pixels) * np.maximum(inputs.power, 1e-12)
    y = inputs.apply(w)
    bias = bias + target.residual(y + bias).mean(axis=0)
    residual = target.residual(y + bias)
    left = residual.mean(axis=0)
    residual = residual - left
    mean = inputs.rows.mean(axis=-2)
    if inputs.depthwise:
        spread = inputs.h[0] - pixels * mean[:, :, None] * mean[:, None, :]
        spread += pull[:, None, None] * np.eye(taps)
        change = np.linalg.solve(spread, inputs.project(residual)[:, :, None])[:, :, 0]
        shift = (change * mean).sum(axis=1)
    elif len(inputs.h) == 1:
        spread = inputs.h[0] - pixels * np.outer(mean, mean) + pull * np.eye(taps)
        change = np.linalg.solve(spread, inputs.project(residual).T).T
        shift = change @ mean
    else:  # wide: the same over pixels instead of weights, of which there are fewer
        rows = inputs.rows - mean
        change = np.linalg.solve(rows @ rows.T + pull * np.eye(pixels), residual).T @ rows
        shift = change @ mean
    return w + change, bias + left - shift


def settle_bias(
    w: Floats, bias: Floats, inputs: Inputs, target: Target, *, turns: int = 2
) -> Floats:
    """The bias that leaves no error on average, for final weights ``w``."""
    y = inputs.apply(w)
    for _ in range(turns):
        bias = bias + target.residual(y + bias).mean(axis=0)
    return bias


def round_layer(
    w: Floats,
    inputs: Inputs,
    *,
    bits: int = 8,
    feedback: bool = True,
    passes: int = 0,
) -> weights.QuantisedWeights:
    """Weights [OC, K] in units of input codes as codes, rounded for these inputs."""
    zero_point, scale = weights.grid(w, bits=bits)
    if not feedback:
        return weights.round_nearest(w, zero_point, scale, bits=bits)
    if inputs.depthwise:
        h = weights.damped(inputs.h[0], DAMPING)
        return weights.round_depthwise(w, zero_point, scale, h, bits=bits)
    codes, first = [], 0
    for block in inputs.h:
        part = w[:, first : first + len(block)]
        h = weights.damped(block, DAMPING)
        done = weights.round_feedback(part, zero_point, scale, h, bits=bits, passes=passes)
        codes.append(done.codes)
        first += len(block)
    joined: NDArray[Any] = np.concatenate(codes, axis=1)
    return weights.QuantisedWeights(joined, zero_point, scale)
