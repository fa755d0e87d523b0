from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kpu.layout import layout, map_bytes, map_rows, pack, read_map, write_map


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (4, (4, 1, 16)),
        (16, (4, 1, 16)),
        (17, (2, 1, 32)),
        (32, (2, 1, 32)),
        (33, (1, 1, 64)),
        (64, (1, 1, 64)),
        (65, (1, 2, 64)),
        (320, (1, 5, 64)),
    ],
)
def test_layout_by_width(width: int, expected: tuple[int, int, int]) -> None:
    assert layout(width) == expected


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((784, 4, 4), 784),
        ((128, 4, 4), 128),
        ((2, 4, 4), 4),
        ((3, 240, 320), 3600),
        ((1, 28, 28), 28),
    ],
)
def test_rows_of_maps_known_from_real_files(shape: tuple[int, int, int], rows: int) -> None:
    assert map_rows(*shape) == rows
    assert map_bytes(*shape) == 64 * rows


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 140))


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.integers(0, 3))
def test_every_pixel_is_where_the_reference_puts_it(shape: tuple[int, int, int], row: int) -> None:
    channels, height, width = shape
    x = np.random.default_rng(0).integers(1, 256, shape).astype(np.uint8)
    ram = np.zeros(64 * (map_rows(*shape) + row), np.uint8)
    write_map(ram, row, x)
    g, lines, pitch = layout(width)
    for c in range(channels):
        for y in range(height):
            base = 64 * row + (c // g) * lines * height * 64 + (c % g) * pitch + y * lines * 64
            np.testing.assert_array_equal(ram[base : base + width], x[c, y])
    assert np.count_nonzero(ram) == x.size  # nothing else was written
    np.testing.assert_array_equal(read_map(ram, row, *shape), x)


def test_a_width_of_whole_rows_is_plain_chw() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 128)).astype(np.uint8)
    assert pack(x).tobytes() == x.tobytes()
