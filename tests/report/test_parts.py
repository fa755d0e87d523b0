"""Thumbnails, histograms, wording, the history: the parts a page is made of."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from k210tasks import wording
from k210tasks.artifacts.layer_table import LayerTable
from k210tasks.artifacts.measurement import (
    Answers,
    Measurement,
    OutputFigures,
    SampleFigures,
    Simulated,
    TopScores,
)
from k210tasks.compiler.options import CompiledLayer
from k210tasks.reference.litert import measurable
from k210tasks.report.builds import accuracy_of
from k210tasks.report.drawings import error_map, flash_drawing, histogram_drawing
from k210tasks.report.facts import FlashPart, Histogram, ImageFacts, Plot, Scores
from k210tasks.report.histograms import BINS, _drawn, histograms
from k210tasks.report.past import last_failures, last_run
from k210tasks.report.samples import THUMBNAIL, THUMBNAIL_BYTES, samples, thumbnail
from k210tasks.report.svg import element
from k210tasks.store.history import Line
from tests.compiler.tflite_builder import Net


def test_elements_are_escaped() -> None:
    made = element("g", "<b>", element("title", "a&b"), data_x='"><script>', class_=None, y=1.25)
    assert made == (
        '<g data-x="&#34;&gt;&lt;script&gt;" y="1.2">&lt;b&gt;<title>a&amp;b</title></g>'
    )


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (wording.count(1234567), "1\u202f234\u202f567"),
        (wording.size(1023), "1023 B"),
        (wording.size(1536), "1.5 KiB"),
        (wording.together("SNR 4.5 dB, 99 %; 3 steps"), "SNR 4.5\u00a0dB, 99\u00a0%; 3 steps"),
        (wording.size(3 << 20), "3.00 MiB"),
        (wording.big(4450304), "4.5 M"),
        (wording.milliseconds(12.34), "12.3 ms"),
        (wording.milliseconds(0.0012), "1.2 µs"),
        (wording.share(0.9999), "99.9 %"),
        (wording.share(1.0), "100 %"),
        (wording.decimals(0.99996, 4), "0.9999"),
        (wording.decimals(1.0, 4), "1.0000"),
        (wording.plain(-0.0), "0"),
        (wording.plain(-1.5), "−1.5"),
        (wording.plain(None), "–"),
        (wording.flowing("a\n        b\n      c"), "a b\n      c"),
    ],
)
def test_wording(made: str, text: str) -> None:
    assert made == text


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_small_picture_is_kept_pixel_by_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    uri = thumbnail(tmp_path / "a.png")
    assert uri is not None
    assert uri.startswith("data:image/png;base64,")
    assert np.array_equal(np.asarray(picture(uri)), pixels)


@pytest.mark.parametrize("size", [(2000, 1500), (3000, 20), (200, 200)])
def test_a_large_picture_becomes_small(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    uri = thumbnail(tmp_path / "a.png")
    assert uri is not None
    assert len(uri) < THUMBNAIL_BYTES * 4 / 3 + 40
    assert max(picture(uri).size) <= THUMBNAIL


def test_what_is_no_picture_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    np.save(tmp_path / "a.npy", np.zeros(3))
    for name in ("a.png", "a.npy", "missing.png"):
        assert thumbnail(tmp_path / name) is None


SCORES = OutputFigures("scores", (1, 2), 0.99, 0.9, None, 30.0, 0.1, None, None, 0, None)


def test_samples_come_worst_first_with_their_answers(tmp_path: Path) -> None:
    measured = Measurement(
        engine="e",
        kmodel=4,
        folder="f",
        samples=3,
        outputs=(SCORES,),
        images=(
            SampleFigures("good.png", (1.0,), (0.1,), ((0, 0),)),
            SampleFigures("bad.png", (0.5,), (0.4,), ((0, 1),)),
            SampleFigures("nan.png", (None,), (None,), (None,)),
        ),
        answers=(Answers("bad.png", (TopScores(((1, 0.2, None), (7, 0.1, 0.3))),)),),
    )
    found = samples(measured, ["cat", "dog"], tmp_path)
    assert [s.file for s in found] == ["bad.png", "nan.png", "good.png"]
    bad = found[0]
    assert (bad.float_class, bad.kmodel_class, bad.agrees) == ("cat", "dog", False)
    assert bad.answers == (("scores", Scores((("dog", 0.2, None), ("class 7", 0.1, 0.3)))),)


def test_score_bars_are_scaled_to_what_there_is() -> None:
    probabilities = Scores((("a", 0.5, 0.25),))
    assert (probabilities.width(0.5), probabilities.width(None)) == (50.0, 0.0)
    logits = Scores((("a", 3.0, 2.0), ("b", -1.0, 0.0)))
    assert (logits.width(3.0), logits.width(-1.0), logits.width(1.0)) == (100.0, 0.0, 50.0)


def test_a_histogram_is_summed_up_and_loses_nothing() -> None:
    counts = np.zeros(2048, np.int64)
    counts[1000:1700] = np.arange(700)
    drawn = _drawn("t", counts, -4)
    assert sum(drawn.counts) == counts.sum()
    assert len(drawn.counts) <= BINS + 1
    assert drawn.low <= (1000 - 1024) / 16
    assert drawn.high >= (1700 - 1024) / 16
    assert _drawn("t", np.zeros(2048, np.int64), 0).counts == (0,)


def test_histograms_are_those_of_the_calibration_data_as_it_is_written(tmp_path: Path) -> None:
    from k210tasks import compiler

    net = Net((1, 8, 8, 3))
    tensor = net.conv(net.input, 4)
    samples = [np.full((1, 8, 8, 3), x, np.float32) for x in (0.1, 0.7)]
    compiler.calibrate(net.build(), samples, measurable).to_npz(tmp_path / "calibration.npz")
    row = CompiledLayer(
        0, "conv", (), "y", "KPU", (), (), tensor=tensor, scale=0.01, zero_point=100
    )
    table = LayerTable(
        compiler="builtin", kmodel=4, bytes=1, kpu_bytes=1, main_bytes=1, layers=(row,)
    )
    (found,) = histograms(tmp_path / "calibration.npz", table, [])
    assert sum(found.counts) == 2 * 8 * 8 * 4
    assert found.chosen == pytest.approx((-1.0, 1.55))


def test_a_histogram_marks_what_is_clipped() -> None:
    drawing = histogram_drawing(Histogram("t", 0, (1, 5, 9, 5, 1), 0.0, 5.0, (1.0, 4.0)))
    assert drawing.count('class="bin"') == 3
    assert drawing.count('class="bin out"') == 2
    assert drawing.count('class="limit"') == 2


def test_an_error_map_is_a_picture_of_its_cells() -> None:
    uri = error_map(Plot((), rows=2, columns=3, largest=1.0, codes=(0, 1, 2, 3, 4, 255)))
    assert uri is not None
    found = picture(uri)
    assert found.size == (3, 2)
    assert found.getpixel((2, 1))[3] == 255
    assert error_map(Plot(())) is None


def test_a_flash_map_is_to_scale() -> None:
    part = FlashPart("m", 0x400000, 0x100000, True)
    drawing = flash_drawing(ImageFacts("i", "maixpy", "verified", parts=(part,)))
    assert 'x="250" y="0.5" width="62.5"' in drawing


def entry(run: str, task: str, did: str, ok: bool = True, message: str = "") -> Line:
    step, _, subject = task.partition(":")
    return Line(
        run=run, time=10.0, task=task, step=step, subject=subject, did=did, seconds=1.0, ok=ok,
        message=message,
    )  # fmt: skip


def test_the_last_run_tells_a_judgement_with_its_step() -> None:
    entries = [
        entry("a", "kmodel:m", "computed"),
        entry("b", "verify:m", "computed"),
        entry("b", "verify:m", "judged", ok=False, message="bad"),
    ]
    run = last_run(entries, ["kmodel:m", "verify:m", "convert:m"])
    assert run is not None
    assert [(e.task, e.did, e.ok, e.message) for e in run.events] == [
        ("verify:m", "computed", False, "bad")
    ]
    assert run.untouched == 2
    assert last_run([], []) is None


def test_a_failure_lasts_until_the_step_does_well() -> None:
    failed = entry("a", "kmodel:m", "failed", ok=False, message="no")
    assert last_failures([failed]) == {"kmodel:m": "no"}
    assert last_failures([failed, entry("b", "kmodel:m", "skipped")]) == {"kmodel:m": "no"}
    assert last_failures([failed, entry("b", "kmodel:m", "restored")]) == {}


@pytest.mark.parametrize("held_out", [True, False, None])
def test_whether_samples_are_held_out_is_told_or_not_known(held_out: bool | None) -> None:
    runtime = Simulated("arduino", "Maixduino", False)
    found = accuracy_of(
        Measurement(
            engine="e",
            kmodel=4,
            folder="f",
            samples=3,
            outputs=(SCORES,),
            held_out=held_out,
            runtime=runtime,
        )
    )
    assert found is not None
    assert (found.held_out, found.runtime) == (held_out, "Maixduino (not recorded)")


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PPM"])
def test_a_thumbnail_is_made_of_formats_that_samples_may_have_only(
    kind: str, tmp_path: Path
) -> None:
    """Pillow would hand an EPS to ghostscript."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, kind)
    assert thumbnail(path) is None


def test_a_thumbnail_is_not_made_of_more_pixels_than_a_sample_may_have(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (40_000, 20_000)).save(path)
    assert path.stat().st_size < 1 << 20
    assert thumbnail(path) is None
