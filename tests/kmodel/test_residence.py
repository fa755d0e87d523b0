from __future__ import annotations

from pathlib import Path

import pytest

from k210tasks.kmodel import parse
from k210tasks.kmodel.listing import kpu_bytes
from k210tasks.kmodel.residence import BEFORE, Resident, residents
from k210tasks.kmodel.v3 import KmodelV3
from tests.kmodel.test_listing import dense_on_the_kpu, worked_example

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "kmodel"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs ../shared/fixtures")


def test_each_map_lives_from_its_writer_to_its_last_reader() -> None:
    assert residents(worked_example()) == [
        Resident(31984, 784, 2, 3),
        Resident(31856, 128, 3, 4),
        Resident(32640, 128, 4, 5),
        Resident(32636, 4, 5, 5),
    ]


def test_what_no_layer_writes_is_the_input() -> None:
    model = KmodelV3(layers=[dense_on_the_kpu(16, 8, 100, 0, None)], outputs=[], main_mem=0)
    assert residents(model) == [Resident(100, 16, BEFORE, 0), Resident(0, 8, 0, 0)]


def test_a_map_ends_where_another_is_written_over_it() -> None:
    model = KmodelV3(
        layers=[
            dense_on_the_kpu(16, 8, 100, 0, None),
            dense_on_the_kpu(8, 16, 0, 100, None),
            dense_on_the_kpu(16, 8, 100, 0, None),
        ],
        outputs=[],
        main_mem=0,
    )
    assert residents(model) == [
        Resident(100, 16, BEFORE, 0),
        Resident(0, 8, 0, 1),
        Resident(100, 16, 1, 2),
        Resident(0, 8, 2, 2),
    ]


@real
@pytest.mark.parametrize("name", ["v3/face_detect", "v3/yolo20", "v4/slim-320", "v4/yolo20"])
def test_in_real_files_no_two_maps_share_a_row_while_both_are_needed(name: str) -> None:
    model = parse((FIXTURES / f"{name}.kmodel").read_bytes())
    found = residents(model)
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            # A layer may write over what it is the last to read.
            if a.overlaps(b.row, b.rows):
                assert min(a.last, b.last) <= max(a.born, b.born)
    top = max(r.row + r.rows for r in found) - min(r.row for r in found)
    assert 64 * top == kpu_bytes(model.layers)
