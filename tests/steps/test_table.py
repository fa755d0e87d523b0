"""A measurement as text, column by column."""

from __future__ import annotations

from typing import Any

from k210tasks.artifacts.measurement import Measurement
from k210tasks.jsondata import read
from k210tasks.steps.table import details, table


def test_the_table_keeps_its_columns() -> None:
    output = {
        "name": "scores", "shape": [1, 2], "cosine_mean": 0.5, "cosine_min": -0.25,
        "cosine_min_file": "a/1.png",
        "snr_db": -3.21, "max_abs_error": 123456.0, "top1_agreement": 0.5,
        "max_abs_error_file": "a/1.png", "non_finite": 0,
        "non_finite_file": None,
    }  # fmt: skip
    bad = output | {
        "name": "a_long_name", "cosine_mean": 0.9, "top1_agreement": None, "non_finite": 2,
        "non_finite_file": "b.png",
    }  # fmt: skip
    result = {
        "outputs": [output, bad],
        "samples": 1,
        "folder": "images",
        "kmodel": 4,
        "accuracy": {"float": 0.9, "kmodel": 0.85, "classes": 2, "output": "scores"},
        "held_out": None,
        "engine": "simulator",
        "runtime": {"name": "host", "title": "the host build", "recorded": True},
    }
    assert table(read(Measurement, result)) == [
        "output       cosine     min  SNR dB  max error    top-1",
        "scores       0.5000  -0.2500    -3.2  1.235e+05     50 %",
        "a_long_name  0.9000  -0.2500    -3.2  1.235e+05        -",
        "  infinite or not a number for 2 samples, first images/b.png",
        "1 sample, worst images/a/1.png",
        "accuracy: float 90 %, kmodel 85 %",
        "held out or not is not known, runtime host",
    ]


def test_details_rank_the_samples_and_list_the_layers() -> None:
    images = [
        {"file": "good.png", "cosine": [0.99, 0.98], "top1": [[1, 1], None]},
        {"file": "bad.png", "cosine": [0.5, 0.9], "top1": [[1, 0], None]},
        {"file": "broken.png", "cosine": [None, 0.9], "top1": [None, None]},
    ]
    layers = [
        {
            "index": 3,
            "name": "K210Conv2d",
            "source": ["CONV_2D #1"],
            "snr_db": 31.25,
            "cosine_mean": 1.0,
        },
        {"index": 5, "name": "Quantize", "source": [], "snr_db": -1.0, "cosine_mean": 0},
    ]

    def found(images: Any, layers: Any) -> Measurement:
        few = {"engine": "e", "kmodel": 3, "folder": "f", "samples": 3, "outputs": []}
        return read(Measurement, few | {"images": images, "layers": layers})

    assert details(found(images, layers)) == [
        "worst samples, by the cosine of their worst output:",
        "  none 0.9000  broken.png",
        "  0.5000 0.9000  bad.png, float model picks 1, kmodel 0",
        "  0.9900 0.9800  good.png",
        "layers against the float model's tensors:",
        "    31.2 dB  3: K210Conv2d of CONV_2D #1",
        "    -1.0 dB  5: Quantize",
    ]
    assert details(found(images[:1], [])) == []
