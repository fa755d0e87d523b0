"""Weights as codes: one zero point a layer, one scale an output channel (docs section 4.2).

The layer's arithmetic subtracts one weight offset from all channels, while the batch-norm
multiplier takes any factor back per channel. So ``w ~ (code - zero_point) * scale[oc]``
with a shared zero point and free scales, chosen here together.

Rounding is by error feedback: with ``H`` the second moments of the layer's (already
quantised) inputs, the expected squared error of the output is ``d H d'`` for a rounding
error ``d``; weights are rounded one after the other, each first moved by what the errors
before it can have compensated (the GPTQ/OPTQ family, in the LDL form, which needs one
Cholesky factor and no inverse), then single codes are moved while that lowers the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: weights of a channel that are so few that a step can be found which suits them all
FEW = 4


@dataclass(frozen=True, slots=True)
class QuantisedWeights:
    """``real = (codes - zero_point) * scale[:, None]``.

    ``codes`` has the shape of the weights, first axis the output channel (depthwise: the
    channel), uint8 or uint16; ``scale`` is float64 per output channel.
    """

    codes: NDArray[np.uint8] | NDArray[np.uint16]
    zero_point: int
    scale: Floats

    def real(self) -> Floats:
        shape = (-1,) + (1,) * (self.codes.ndim - 1)
        return (self.codes.astype(np.float64) - self.zero_point) * self.scale.reshape(shape)


def grid(w: Floats, *, bits: int = 8) -> tuple[int, Floats]:
    """``(zero_point, scale[oc])`` that cover all weights ``w`` [OC, K] without clipping.

    The zero point is the one with the least sum of squared relative steps, for a channel's
    step relative to its own finest possible one. Weights that are int8 codes already, of a
    quantised file, keep their steps: another grid would round them a second time.
    """
    top = 2**bits - 1
    high = np.maximum(w.max(axis=1), 0.0)
    low = np.maximum(-w.min(axis=1), 0.0)
    span = np.maximum(high + low, 1e-30)
    # 16 bits: 255 choices are as good as 65535.
    points = np.rint(np.linspace(0, top, 256)).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(high[:, None] > 0, high[:, None] / (top - points), 0.0)
        down = np.where(low[:, None] > 0, low[:, None] / points, 0.0)
        cost = ((np.maximum(up, down) * top / span[:, None]) ** 2).sum(axis=0)
    cost = np.where(np.isfinite(cost), cost, np.inf)
    best = int(np.argmin(cost))
    scale = np.maximum(up[:, best], down[:, best])
    scale = np.where(scale > 0, scale, 1.0)
    if not _multiples(w, scale) and (steps := _int8_steps(w)) is not None:
        return 1 << (bits - 1), steps
    if np.count_nonzero(w, axis=1).max(initial=0) <= FEW:
        scale = _fitting(w, scale)
    return int(points[best]), scale


def _fitting(w: Floats, scale: Floats) -> Floats:
    """Steps [OC], up to a quarter wider than ``scale``, of which the few weights of a channel
    that are not zero are as nearly whole numbers as can be: those of a sum or of a PRelu, whose
    rounding no other weight makes up for."""
    largest = np.sort(np.abs(w), axis=1)[:, -FEW:]
    steps = scale[:, None] * np.linspace(1, 1.25, 65)
    codes = largest[:, None] / steps[:, :, None]
    off = np.square((codes - np.rint(codes)) * steps[:, :, None]).sum(axis=2)
    return np.asarray(steps[np.arange(len(w)), off.argmin(axis=1)])


def _multiples(w: Floats, steps: Floats) -> bool:
    """Whether the weights [OC, K] are whole numbers of steps [OC], but for float32's rounding."""
    q = w / steps[:, None]
    return bool(np.abs(q - np.rint(q)).max(initial=0.0) < 1e-4)


def _int8_steps(w: Floats) -> Floats | None:
    """Steps [OC] of which the weights are -127 to 127 times; None where there are none.

    A file has one step for all channels, or each has its own, of which the largest weight
    need not be the 127th.
    """
    largest = np.abs(w).max(axis=1)
    steps = np.full(len(w), max(float(largest.max()), 1e-30) / 127)
    if _multiples(w, steps):
        return steps
    counts = np.arange(127, 31, -1)
    for channel in np.flatnonzero(largest):
        row = w[channel : channel + 1]
        some = row[0, :8, None] * counts / largest[channel]  # tells floats apart at once
        near = counts[(np.abs(some - np.rint(some)) < 1e-4).all(axis=0)]
        found = (largest[channel] / n for n in near)
        step = next((s for s in found if _multiples(row, np.array([s]))), None)
        if step is None:
            return None
        steps[channel] = step
    return steps


def round_nearest(w: Floats, zero_point: int, scale: Floats, *, bits: int = 8) -> QuantisedWeights:
    """Every weight [OC, K] at its nearest code."""
    q = np.rint(w / scale[:, None]) + zero_point
    return _codes(q, zero_point, scale, bits)


def _codes(q: Floats, zero_point: int, scale: Floats, bits: int) -> QuantisedWeights:
    clipped = np.clip(q, 0, 2**bits - 1)
    if bits == 8:
        return QuantisedWeights(clipped.astype(np.uint8), zero_point, scale)
    return QuantisedWeights(clipped.astype(np.uint16), zero_point, scale)


def damped(h: Floats, damping: float = 0.01) -> Floats:
    """``h`` [..., K, K] with ``damping`` times its mean diagonal added to the diagonal."""
    diagonal = np.einsum("...kk->...k", h)
    extra = damping * diagonal.mean(axis=-1) + 1e-12
    result = h.copy()
    np.einsum("...kk->...k", result)[...] += extra[..., None]
    return result


def round_feedback(
    w: Floats,
    zero_point: int,
    scale: Floats,
    h: Floats,
    *,
    bits: int = 8,
    passes: int = 0,
) -> QuantisedWeights:
    """Weights [OC, K] rounded with error feedback over ``h`` [K, K], positive definite.

    Columns go in the order of falling ``h[k, k]``. ``passes`` rounds of single-code moves
    follow. All channels at once; float64.
    """
    low, high = -zero_point, 2**bits - 1 - zero_point
    order = np.argsort(-np.diagonal(h), kind="stable")
    hp = h[order[:, None], order]
    x = np.ascontiguousarray((w / scale[:, None]).T[order])  # [K, OC]: a weight's channels together
    factor = _unit_upper(hp).T.copy()  # row k: what the errors before k add to weight k
    q = np.empty_like(x)
    errors = np.empty_like(x)
    block = 32
    for first in range(0, len(x), block):
        last = min(first + block, len(x))
        moved = x[first:last]
        if first:
            moved = moved + factor[first:last, :first] @ errors[:first]
        for k in range(first, last):
            t = moved[k - first]
            if k > first:
                t = t + factor[k, first:k] @ errors[first:k]
            code = np.rint(t)
            np.maximum(code, low, out=code)
            np.minimum(code, high, out=code)
            q[k] = code
            np.subtract(x[k], code, out=errors[k])
    for _ in range(passes):
        if not _descend(x, q, hp, low, high):
            break
    back = np.empty((len(w), len(x)))
    back[:, order] = q.T
    return _codes(back + zero_point, zero_point, scale, bits)


def _unit_upper(h: Floats) -> Floats:
    """``M`` of ``h = M D M'``, unit upper triangular, ``D`` diagonal."""
    lower = np.linalg.cholesky(h[::-1, ::-1])
    upper = lower[::-1, ::-1]
    return np.ascontiguousarray(upper / np.diagonal(upper))


def _descend(x: Floats, q: Floats, h: Floats, low: int, high: int) -> bool:
    """One sweep over the weights moving codes to the exact minimum given all others.

    Arrays [K, OC]; changes ``q`` in place; whether anything moved.
    """
    gradient = h @ (q - x)
    moved = False
    for k in range(len(x)):
        step = np.clip(np.rint(q[k] - gradient[k] / h[k, k]), low, high) - q[k]
        columns = np.flatnonzero(step)
        if len(columns):
            moved = True
            q[k, columns] += step[columns]
            gradient[:, columns] += h[:, k, None] * step[columns]
    return moved


def round_depthwise(
    w: Floats,
    zero_point: int,
    scale: Floats,
    h: Floats,
    *,
    bits: int = 8,
    passes: int = 3,
) -> QuantisedWeights:
    """Depthwise weights [C, K] with feedback over every channel's own ``h`` [C, K, K]."""
    top = 2**bits - 1
    x = w / scale[:, None]
    lower = np.linalg.cholesky(h[:, ::-1, ::-1])
    upper = lower[:, ::-1, ::-1]
    factor = upper / np.einsum("ckk->ck", upper)[:, None, :]
    q = np.empty_like(x)
    errors = np.zeros_like(x)
    for k in range(x.shape[1]):
        t = x[:, k] + (errors[:, :k] * factor[:, :k, k]).sum(axis=1)
        q[:, k] = np.clip(np.rint(t), -zero_point, top - zero_point)
        errors[:, k] = x[:, k] - q[:, k]
    diagonal = np.einsum("ckk->ck", h)
    for _ in range(passes):
        before = q.copy()
        for k in range(x.shape[1]):
            gradient = ((q - x) * h[:, :, k]).sum(axis=1)
            q[:, k] = np.clip(
                np.rint(q[:, k] - gradient / diagonal[:, k]), -zero_point, top - zero_point
            )
        if (q == before).all():
            break
    return _codes(q + zero_point, zero_point, scale, bits)
