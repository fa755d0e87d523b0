"""Second moments of a layer's inputs, exact whatever BLAS kernel adds them up.

Inputs are codes minus their zero point, small integers, so a sum of products over 256
rows stays below 2**24 and is exact in float32; blocks of that many rows are added in
float64, where they are exact too. The result has the same bits with any number of
threads and any kernel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = 256  # 256 * 255**2 < 2**24


def second_moments(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """``x' x`` [K, K] of integer-valued rows ``x`` [P, K], |x| <= 255."""
    total = np.zeros((x.shape[1], x.shape[1]))
    for first in range(0, len(x), _ROWS):
        block = x[first : first + _ROWS]
        total += block.T @ block
    return total
