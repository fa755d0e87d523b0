"""k210 check: what would become of a model, without images."""

from __future__ import annotations

from pathlib import Path

import pytest

from k210tasks import cli
from k210tasks.compiler import check
from tests.compiler.helpers import Outcome, fixture
from tests.compiler.tflite_builder import Net


def small() -> Net:
    net = Net((1, 16, 16, 3))
    x = net.conv(net.input, 8, stride=(2, 2), act="RELU")
    x = net.depthwise(x)
    x = net.reduce("MEAN", x, [1, 2], False)
    net.dense(x, 4)
    return net


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_figures_are_those_of_the_compiled_model(kmodel: int) -> None:
    tflite = small().build()
    report = check(tflite, kmodel)
    compiled = Outcome(tflite, kmodel).compiled
    assert report.supported
    assert report.kpu_bytes == compiled.kpu_bytes
    assert report.main_bytes == compiled.main_bytes
    assert report.model_bytes == len(compiled.kmodel)
    assert report.layers == len(compiled.layers)
    estimated = sum(row.estimated_us or 0 for row in compiled.layers)
    assert report.estimated_kpu_ms == pytest.approx(estimated / 1000, abs=1e-3)


def test_each_op_says_where_it_runs() -> None:
    report = check(small().build(), 4)
    assert [(op.label, op.where) for op in report.ops] == [
        ("CONV_2D #0", "KPU"),
        ("DEPTHWISE_CONV_2D #1", "KPU"),
        ("MEAN #2", "CPU"),
        ("FULLY_CONNECTED #3", "CPU"),
    ]


def test_every_op_that_kmodel_3_cannot_carry_is_named() -> None:
    net = Net((1, 8, 8, 4))
    x = net.transpose_conv(net.input, 4, (3, 3), (2, 2))
    x = net.resize(x, (32, 32), "BILINEAR")
    net.conv(x, 4)
    report = check(net.build(), 3)
    assert not report.supported
    assert [(op.label, op.reasons) for op in report.ops] == [
        ("TRANSPOSE_CONV #0", ("a transposed convolution; needs kmodel 4",)),
        ("RESIZE_BILINEAR #1", ("bilinear resizing; needs kmodel 4",)),
        ("CONV_2D #2", ()),
    ]
    assert check(net.build(), 4).supported


def test_maps_beyond_the_memory_are_a_problem_with_numbers() -> None:
    net = Net((1, 240, 320, 3))
    net.conv(net.conv(net.input, 32), 32)
    report = check(net.build(), 4)
    assert not report.supported
    (problem,) = report.problems
    assert problem == (
        "CONV_2D #1 needs 4915200 bytes of KPU memory at once, the K210 has 2097152; alive at "
        "that layer: t3 32x240x320 (2457600 bytes), t6 32x240x320 (2457600 bytes); a smaller "
        "input or fewer channels there would make it fit"
    )


def test_the_verb_prints_verdicts_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(small().build())
    assert cli.main(["check", str(path), "--firmware", "maixpy-minimum"]) == 0
    out = capsys.readouterr().out
    assert f"{path}: can be compiled to kmodel 3\n" in out
    assert "kmodel 4" not in out
    assert "  MEAN #2               1x8: CPU\n" in out
    assert "  KPU memory usage: " in out
    assert " ms, estimated; CPU layers come on top\n" in out


def test_the_verb_fails_with_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net((1, 8, 8, 4))
    net.op("CUMSUM", [net.input], (1, 8, 8, 4))
    path = tmp_path / "odd.tflite"
    path.write_bytes(net.build())
    assert cli.main(["check", str(path), "--kmodel", "4"]) == 1
    assert capsys.readouterr().out == (
        f"{path}: cannot be compiled to kmodel 4\n"
        "  CUMSUM #0  1x8x8x4: NO: this op is not supported\n"
    )


def test_a_missing_file_and_a_wrong_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(tmp_path / "none.tflite")]) == 1
    assert "none.tflite cannot be read: No such file or directory" in capsys.readouterr().err
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"no model at all")
    assert cli.main(["check", str(bad)]) == 1
    assert capsys.readouterr().err == (
        f"k210 check: {bad}: not a usable TensorFlow Lite model: it does not carry the "
        "identifier TFL3 at byte 4\n"
    )
    path = tmp_path / "small.tflite"
    path.write_bytes(small().build())
    assert cli.main(["check", str(path), "--firmware", "sdk", "--kmodel", "4"]) == 1
    assert capsys.readouterr().err == ("k210 check: sdk: this firmware loads kmodel 3, not 4\n")


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", ["iris", "vww_96_float", "ulffd_landmark"])
def test_real_models_are_supported(name: str, kmodel: int) -> None:
    assert check(fixture(f"{name}.tflite"), kmodel).supported


def test_maps_that_do_not_fit_the_kpu_are_reported_with_their_bytes() -> None:
    net = Net((1, 240, 320, 3))
    net.conv(net.conv(net.input, 32), 4)
    for kmodel in (3, 4):
        report = check(net.build(), kmodel)
        assert not report.supported
        needed, last = {3: (2841600, 384000), 4: (2764800, 307200)}[kmodel]  # 3: a spare channel
        assert report.problems == (
            f"CONV_2D #1 needs {needed} bytes of KPU memory at once, the K210 has 2097152; alive "
            f"at that layer: t3 32x240x320 (2457600 bytes), t6 4x240x320 ({last} bytes); a smaller "
            "input or fewer channels there would make it fit",
        )


def test_a_model_that_fills_the_memory_is_reported_with_its_bytes() -> None:
    net = Net((1, 1024))
    net.dense(net.dense(net.input, 1600), 10)
    report = check(net.build(), 4)
    assert not report.supported
    size, main = report.model_bytes, report.main_bytes
    assert report.problems == (
        f"the model ({size} bytes) and its main memory ({main} bytes) need {size + main} bytes of "
        "SRAM, the K210 has 6291456 for the program too; fewer weights or a smaller input would "
        "make it fit",
    )


def test_a_refused_layer_is_named_after_its_convolution() -> None:
    net = Net((1, 4, 4, 600))
    net.unary("HARD_SWISH", net.depthwise(net.input, (9, 9)))
    report = check(net.build(), 3)
    assert [bool(op.reasons) for op in report.ops] == [True, False]
