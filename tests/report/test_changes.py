from __future__ import annotations

from dataclasses import replace

from k210tasks.report.changes import compare
from k210tasks.report.facts import Accuracy, Build, Layer


def layer(index: int, name: str = "conv", output: str = "1x4x8x8", **more: object) -> Layer:
    return Layer(index, name, "1x3x8x8", output, "KPU", kernel="3x3", **more)  # type: ignore[arg-type]


BEFORE = Build(
    "before",
    "a",
    kmodel=3,
    compiler="builtin",
    nbytes=1000,
    kpu_bytes=64,
    main_bytes=32,
    macs=500,
    estimated_ms=2.0,
    layers=(layer(0, snr_db=40.0), layer(1), layer(2, output="1x9x8x8")),
    accuracy=Accuracy(cosine=0.98, snr_db=20.0, samples=10),
)


def figure(found, key: str):
    return next(f for f in found.figures if f.key == key)


def test_equal_builds_differ_in_nothing() -> None:
    found = compare(BEFORE, replace(BEFORE, title="after"))
    assert found.changed_figures == ()
    assert found.changed_layers == ()
    assert len(found.layers) == 3


def test_a_figure_says_how_much_and_whether_that_is_good() -> None:
    after = replace(
        BEFORE, nbytes=1100, kpu_bytes=32, accuracy=Accuracy(cosine=0.99, snr_db=20.0, samples=12)
    )
    found = compare(BEFORE, after)
    size = figure(found, "nbytes")
    assert (size.before_text, size.after_text) == ("1\u202f000", "1\u202f100")
    assert (size.change, size.direction) == ("+100 (+10.0 %)", "worse")
    large = compare(replace(BEFORE, nbytes=1_352_588), replace(BEFORE, nbytes=1_352_232))
    assert figure(large, "nbytes").change == "−356"  # no "−0.0 %"
    assert figure(found, "kpu_bytes").change == "−32 (−50.0 %)"
    assert figure(found, "kpu_bytes").direction == "better"
    assert figure(found, "cosine").direction == "better"
    assert figure(found, "snr_db").direction == "same"
    measured = replace(BEFORE, accuracy=Accuracy(snr_db=48.36))
    assert figure(compare(measured, measured), "snr_db").after_text == "48.4"  # as verify says it
    assert figure(found, "samples").direction == "other"


def test_what_only_one_build_knows_is_shown_without_a_change() -> None:
    found = compare(replace(BEFORE, kpu_bytes=None, macs=None), replace(BEFORE, macs=None))
    kpu = figure(found, "kpu_bytes")
    assert (kpu.before_text, kpu.after_text, kpu.change) == ("unknown", "64", "")
    assert not any(f.key == "macs" for f in found.figures)


def test_layers_are_aligned_by_what_they_are() -> None:
    new = (layer(0, snr_db=30.0), layer(1, "pad"), layer(2), layer(3, output="1x9x8x8"))
    found = compare(BEFORE, replace(BEFORE, layers=new))
    kinds = [(c.kind, c.before and c.before.index, c.after.index) for c in found.layers if c.after]
    assert kinds == [("changed", 0, 0), ("added", None, 1), ("same", 1, 2), ("same", 2, 3)]
    assert found.layers[0].changes == ("SNR 40.0 → 30.0 dB",)


def test_another_shape_at_the_same_place_is_a_change() -> None:
    new = (*BEFORE.layers[:2], layer(2, output="1x8x8x8"))
    [change] = compare(BEFORE, replace(BEFORE, layers=new)).changed_layers
    assert change.kind == "changed"
    assert change.changes == ("output 1x9x8x8 → 1x8x8x8",)


def test_a_file_that_does_not_tell_its_layers_has_none_that_differ() -> None:
    assert compare(replace(BEFORE, layers=()), BEFORE).layers == ()
