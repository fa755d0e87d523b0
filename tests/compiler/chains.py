"""Random networks of maps for tests that draw by hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.compiler.drawing import chain, pruned
from tests.compiler.tflite_builder import Net


def networks() -> st.SearchStrategy[Net]:
    """Chains of structures on a map, outputs chosen."""
    return st.integers(0, 1 << 20).map(lambda n: pruned(chain(np.random.default_rng(n)).net))
