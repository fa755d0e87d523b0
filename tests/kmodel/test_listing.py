from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kmodel import parse, v3_layers, write
from k210tasks.kmodel.listing import listing_text, memory_lines, summary
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kpu.registers import conv_registers
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm
from tests.kmodel import samples
from tests.simulator import models

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs ../shared/fixtures")


def dense_on_the_kpu(
    inputs: int, outputs: int, src: int, dst: int, out_mem: int | None
) -> v3_layers.Body:
    registers = conv_registers(
        in_channels=inputs,
        height=4,
        width=4,
        out_channels=outputs,
        kernel=1,
        src_row=src,
        dst_row=dst,
    )
    return v3_layers.K210Conv(
        flags=int(out_mem is not None),
        out_mem=out_mem or 0,
        registers=registers,
        weights=np.zeros((outputs, inputs, 1, 1), np.uint8),
        bn=BatchNorm.of([1] * outputs, [0] * outputs, [0] * outputs),
        activation=Activation.of([LOWEST_START, *[0] * 15], [1] * 16, [0] * 16, [0] * 16),
    )


def worked_example() -> KmodelV3:
    """Section 2.5's model: 784 -> 128 -> 128 -> 2 on the KPU, placed as ncc 0.1 rc2 places it."""
    return KmodelV3(
        layers=[
            v3_layers.TensorflowFlatten(
                in_mem=0, out_mem=3136, shape=v3_layers.WHC(28, 28, 1), flags=1
            ),
            v3_layers.Quantize(in_mem=3136, out_mem=2352, count=784, scale=1 / 255, bias=0.0),
            v3_layers.K210AddPadding(in_mem=2352, out_kpu=31984, channels=784),
            dense_on_the_kpu(784, 128, 31984, 31856, None),
            dense_on_the_kpu(128, 128, 31856, 32640, None),
            dense_on_the_kpu(128, 2, 32640, 32636, 0),
            v3_layers.K210RemovePadding(in_mem=0, out_mem=32, channels=2, flags=1),
            v3_layers.Dequantize(in_mem=32, out_mem=40, count=2, scale=0.5, bias=-1.0, flags=1),
            v3_layers.Softmax(in_mem=40, out_mem=48, channels=2, flags=1),
        ],
        outputs=[v3_layers.Output(48, 8)],
        main_mem=6272,
    )


def test_the_listing_reads_as_ncc_01_prints_it() -> None:
    found = summary(parse(write(worked_example())))
    assert listing_text(found) == (
        "0: TensorflowFlatten 1x1x28x28 -> 1x784\n"
        "1: Quantize 1x784 -> 1x784\n"
        "2: K210AddPadding 1x784 -> 1x784x4x4\n"
        "3: K210Conv2d 1x784x4x4 -> 1x128x4x4\n"
        "4: K210Conv2d 1x128x4x4 -> 1x128x4x4\n"
        "5: K210Conv2d 1x128x4x4 -> 1x2x4x4\n"
        "6: K210RemovePadding 1x2x4x4 -> 1x2\n"
        "7: Dequantize 1x2 -> 1x2\n"
        "8: Softmax 1x2 -> 1x2\n"
    )
    assert memory_lines(found) == ("KPU memory usage: 58368 B", "Main memory usage: 6272 B")


def test_figures_of_kpu_layers() -> None:
    row = summary(worked_example()).layers[3].kpu
    assert row is not None
    assert (row.kernel, row.depthwise, row.pool) == (1, False, "none")
    assert (row.macs, row.weight_bytes) == (784 * 128 * 16, 784 * 128)
    assert (row.rows_in, row.rows_out) == (784, 128)
    # 784 * 128 cycles of one row each at 400 MHz, and 100352 bytes at 1.05 GB/s
    assert row.estimated_us == pytest.approx(250.9 + 95.6, abs=0.1)


def test_shapes_are_carried_through_main_memory() -> None:
    registers = conv_registers(
        in_channels=1, height=8, width=8, out_channels=3, kernel=1, dst_row=100
    )
    conv = dense_on_the_kpu(1, 3, 0, 100, 0)
    assert isinstance(conv, v3_layers.K210Conv)
    conv.registers = registers
    model = KmodelV3(
        layers=[
            conv,
            v3_layers.Dequantize(in_mem=0, out_mem=192, count=192, scale=0.25, bias=-2.0),
            v3_layers.Logistic(in_mem=192, out_mem=192, channels=192),
        ],
        outputs=[v3_layers.Output(192, 768)],
        main_mem=960,
    )
    found = summary(model)
    assert [str(row) for row in found.layers] == [
        "0: K210Conv2d 1x1x8x8 -> 1x3x8x8",
        "1: Dequantize 1x3x8x8 -> 1x3x8x8",
        "2: Logistic 1x3x8x8 -> 1x3x8x8",
    ]
    assert found.outputs[0].shape == (1, 3, 8, 8)
    assert found.outputs[0].scale is None  # the logistic came after
    model.layers.pop()
    assert (summary(model).outputs[0].scale, summary(model).outputs[0].zero_point) == (0.25, 8)


@pytest.mark.parametrize(("scale", "bias"), [(float("nan"), 0.0), (0.5, float("inf")), (0.0, 1.0)])
def test_a_scale_that_is_no_number_is_not_told(scale: float, bias: float) -> None:
    body = v3_layers.Dequantize(in_mem=0, out_mem=8, count=2, scale=0.5, bias=-1.0)
    model = KmodelV3(layers=[body], outputs=[v3_layers.Output(8, 8)], main_mem=16)
    told = summary(model).outputs[0]
    assert (told.scale, told.zero_point) == (0.5, 2)
    body.scale, body.bias = scale, bias
    found = summary(model).outputs[0]
    assert (found.scale, found.zero_point) == (None, None)


def test_notes_say_what_runtimes_do_not_run() -> None:
    assert summary(models.net_v3()).notes == ()
    assert summary(models.net_v4()).notes == (
        "nnil_unary_method: not in runtimes of nncase 0.2 beta2 and before, MaixPy's among them",
    )
    assert summary(worked_example()).notes == (
        "the first layer is TensorflowFlatten: runtimes start with K210Conv2d or FullyConnected",
    )
    model = models.net_v3()
    first = model.layers[0]
    assert isinstance(first, v3_layers.K210Conv)
    first.registers = replace(first.registers, coef_group=4)
    assert summary(model).notes == (
        "layer 0 (K210Conv2d): register coef_group is 4, its geometry asks for 2",
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_summary_of_any_parsed_model_can_be_made(seed: int, four: bool) -> None:
    model = samples.model_v4(seed) if four else samples.model_v3(seed)
    found = summary(parse(write(model)))
    assert len(found.layers) == len(model.layers)
    assert found.model_bytes == len(write(model))


@real
@pytest.mark.parametrize(
    ("name", "kpu", "main", "macs"),
    [
        ("v3/face_detect", 983040, 45000, 205555200),
        ("v3/mnist", 8960, 14112, 1021184),
        ("v4/ulffd_landmark", 1474560, 460800, 207275520),
        ("v4/slim-320", 1704960, 236480, 150622720),
    ],
)
def test_real_files(name: str, kpu: int, main: int, macs: int) -> None:
    found = summary(parse((FIXTURES / "kmodel" / f"{name}.kmodel").read_bytes()))
    assert (found.kpu_bytes, found.main_bytes, found.macs) == (kpu, main, macs)
    assert None not in [row.output for row in found.layers]
