"""Step sizes of a feature map's codes, channel by channel.

A map's channels share one zero point, but not one step where every reader can take the
difference back: a KPU layer multiplies each input channel by its weights anyway, a
depthwise one even by a factor of its own. So small channels get finer codes (what is
known as cross-layer equalisation), as far as that does not cost precision in the weights.

Channel extremes are measured on few pixels in late layers, and what calibration did not
see must not be cut off: an extreme seen on ``n`` pixels is stretched by a share that
falls with the square root of ``n``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.numerics.range_choice import scale_with

Floats = NDArray[np.float64]

CHANNEL_MARGIN = 24.0  # over sqrt(pixels): stretch of a channel's own extremes
MAP_MARGIN = 6.0  # the same for the whole map's
BALANCE = 0.7  # 0: one step for all channels, 1: each its finest
FREE_BALANCE = 1.0  # the balance where readers take the difference back at no cost
TELLING = 2000  # pixels of one sample that tell something new; in larger maps neighbours are alike
FINEST = 0.1  # least step of a channel, as a share of the map's


def telling_pixels(pixels: int, samples: int) -> int:
    """On how many pixels, as far as they tell anything, extremes were measured."""
    return min(pixels, TELLING) * samples


def margin(factor: float, pixels: int) -> float:
    """What an extreme measured on so many pixels is multiplied by."""
    return 1.0 + factor / float(np.sqrt(max(pixels, 1)))


def channel_scales(
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    span: tuple[float, float],
    zero_point: int,
    pixels: int,
    *,
    balance: float = BALANCE,
) -> Floats:
    """``step[C]``: real = (code - zero_point) * step.

    ``low``, ``high`` [C] are measured extremes of the channels on ``pixels`` pixels in
    all; ``span`` is the range the whole map shall cover, zero inside. No channel gets
    more than ``span``, so a function that ends at a bound of it ends there still.
    """
    largest = scale_with(*span, zero_point)
    stretch = margin(CHANNEL_MARGIN, pixels)
    top = np.minimum(np.maximum(high.astype(np.float64), 0.0) * stretch, max(span[1], 0.0))
    bottom = np.maximum(np.minimum(low.astype(np.float64), 0.0) * stretch, min(span[0], 0.0))
    own = np.zeros(len(top))
    if zero_point < 255:
        own = np.maximum(own, top / (255 - zero_point))
    if zero_point > 0:
        own = np.maximum(own, -bottom / zero_point)
    own = np.clip(own, FINEST * largest, largest)
    return np.asarray(own**balance * largest ** (1.0 - balance))
