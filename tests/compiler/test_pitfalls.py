"""What upstream compilers get wrong (docs/kpu-and-kmodel.md, section 6), done right here."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler import executor
from k210tasks.compiler.encode_v3 import registers
from k210tasks.compiler.ir import Graph, Quant, Tensor, to_nchw
from k210tasks.compiler.ops import KpuConv
from k210tasks.compiler.options import Options
from k210tasks.compiler.passes.place import allocate, kpu_rows, lifetimes, nbytes
from k210tasks.compiler.passes.quantise import quantise
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.pipeline import lowered
from k210tasks.kmodel import parse, v3_layers, v4_ops
from k210tasks.kpu.registers import check
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.helpers import Outcome, pixels, proven, scaled
from tests.compiler.tflite_builder import Net


def compiled(net: Net, kmodel: int, *outputs: int, **options: Any) -> Any:
    return parse(Outcome(net.build(*outputs), kmodel, **options).compiled.kmodel)


# -- 6.1 format


def test_the_final_padding_is_written() -> None:
    for kmodel in (3, 4):
        net = Net((1, 8, 8, 3))
        net.conv(net.input, 5)
        data = Outcome(net.build(), kmodel).compiled.kmodel
        assert len(data) % 8 == 0
        assert parse(data).missing_padding == 0


def test_unused_bits_are_zero() -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 5, act="RELU")
    model = compiled(net, 4)
    data = model.to_bytes()
    assert struct.unpack_from("<I", data, 36)[0] == 0  # reserved0
    (conv,) = [n for n in model.nodes if isinstance(n, v4_ops.KpuConv2d)]
    assert conv.reserved == 0
    words = np.frombuffer(conv.activation.encode(), "<u8", 16)
    assert not (words >> np.uint64(60)).any()


def test_zeros_padded_around_a_map_are_its_zero_point() -> None:
    net = Net((1, 6, 6, 3))
    x = net.conv(net.input, 4, stride=(2, 2))
    net.conv(x, 4)
    model = compiled(net, 4)
    (pad,) = [n for n in model.nodes if isinstance(n, v4_ops.PadNode)]
    after = [n for n in model.nodes if isinstance(n, v4_ops.KpuConv2d)][-1]
    assert pad.value.payload[0] == after.registers.pad_value != 0
    proven(net, 4, 28.0)


def test_registers_are_those_the_geometry_asks_for() -> None:
    net = Net((1, 20, 36, 3))
    x = net.conv(net.input, 8, stride=(2, 2), act="RELU")
    x = net.depthwise(x, stride=(2, 2))
    net.conv(x, 400, (1, 1))
    for kmodel in (3, 4):
        for layer in compiled(net, kmodel).layers:
            if hasattr(layer, "registers"):
                assert not list(check(layer.registers))


def test_no_layer_loads_its_weights_in_more_than_64_steps() -> None:
    net = Net((1, 4, 4, 512))
    net.conv(net.input, 400)
    model = compiled(net, 3)
    convs = [b for b in model.layers if isinstance(b, v3_layers.K210Conv)]
    assert max(b.registers.load_time for b in convs) <= 63
    assert sum(b.registers.out_channels for b in convs[:2]) == 400


def test_concatenated_sizes_are_exact() -> None:
    net = Net((1, 5, 5, 3))
    parts = [net.reshape(net.conv(net.input, c, (1, 1)), (1, 25 * c)) for c in (1, 3)]
    net.concat(parts, 1)
    model = compiled(net, 3)
    (concat,) = [b for b in model.layers if isinstance(b, v3_layers.Concat)]
    assert [r.size for r in concat.inputs] == [100, 300]
    proven(net, 3, 30.0)


# -- 6.2 version 3


def test_a_map_read_by_kpu_and_cpu_is_kept_for_both() -> None:
    """Upstream forgets the KPU's copy when a CPU layer has read the tensor."""
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 4, act="RELU")
    mean = net.reduce("MEAN", x, [1, 2], True)
    y = net.conv(net.conv(x, 4), 4)
    late = net.conv(x, 4, (1, 1))
    proven(net, 3, 25.0, mean, y, late)


def test_max_pools_beside_the_kpu_keep_their_scale() -> None:
    net = Net((1, 15, 15, 3))
    x = net.pool(net.conv(net.input, 4), "MAX", (5, 5), stride=(2, 2), padding="VALID")
    net.outputs = [x]
    outcome = proven(net, 3, 28.0, x)
    assert "QuantizedMaxPool2d" in outcome.layers
    assert "MaxPool2d" not in outcome.layers  # no runtime has a handler for it


def test_ranges_do_not_depend_on_the_order_of_the_samples() -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.conv(net.input, 4, act="RELU"), 4)
    tflite, pictures = net.build(), pixels((1, 8, 8, 3), 5)
    made = [Outcome(tflite, 3, list(order)).compiled.kmodel for order in
            (pictures, pictures[::-1])]  # fmt: skip
    tables = [[b.activation.encode() for b in parse(m).layers if hasattr(b, "activation")]
              for m in made]  # fmt: skip
    assert tables[0] == tables[1]


def test_relu_does_not_rest_on_the_range() -> None:
    """Values below zero are cut at zero's code even where the range goes below it."""
    net = Net((1, 8, 8, 3))
    a = net.conv(net.input, 4, act="RELU")
    b = net.conv(net.input, 4)
    net.conv(net.concat([a, b], 3), 4)
    for kmodel in (3, 4):
        outcome = proven(net, kmodel, 28.0)
        tables = [b.activation for b in parse(outcome.compiled.kmodel).layers
                  if hasattr(b, "activation")]  # fmt: skip
        v = np.array([-(2**30)])
        assert _code(tables[0], v) == _code(tables[0], np.array([0]))


def _code(table: Any, v: np.ndarray) -> int:
    i = int(np.searchsorted(table.start, v[0]) - 1)
    shift = int(table.shift[max(i, 0)])
    a = int((v[0] - table.start[max(i, 0)]) * table.mul[max(i, 0)])
    return int(np.clip((a + (1 << shift >> 1) >> shift) + table.bias[max(i, 0)], 0, 255))


def test_stride_2_samples_tensorflows_pixels() -> None:
    """A single bright pixel must land where TensorFlow puts it; upstream is off by one."""
    net = Net((1, 8, 8, 1))
    kernel = np.zeros((1, 3, 3, 1), np.float32)
    kernel[0, 1, 1, 0] = 1
    weights, bias = net.const(kernel), net.const(np.zeros(1, np.float32))
    net.op("CONV_2D", [net.input, weights, bias], (1, 4, 4, 1), "Conv2DOptions", Padding=0,
           StrideH=2, StrideW=2, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    tflite = net.build()
    pictures = []
    for y in range(8):
        picture = np.zeros((8, 8, 1), np.uint8)
        picture[y, 7 - y] = 255
        pictures.append(picture)
    for kmodel in (3, 4):
        outcome = Outcome(tflite, kmodel, pictures, mean=0.5)
        for reference, got in zip(outcome.reference, outcome.got, strict=True):
            np.testing.assert_allclose(got[0], reference[0], atol=0.01)


def test_very_negative_logits_survive_the_v3_softmax() -> None:
    net = Net((1, 8, 8, 3))
    x = net.reshape(net.conv(net.input, 4, padding="VALID"), (1, 144))
    x = net.dense(x, 6, act="RELU")
    weights = net.const(net.rng.normal(0, 1, (3, 6)).astype(np.float32))
    bias = net.const(np.full(3, -500, np.float32))
    x = net.op("FULLY_CONNECTED", [x, weights, bias], (1, 3), "FullyConnectedOptions",
               FusedActivationFunction=0)  # fmt: skip
    net.softmax(x)
    outcome = Outcome(net.build(), 3)
    assert all(np.isfinite(g[0]).all() and abs(g[0].sum() - 1) < 1e-3 for g in outcome.got)


def test_very_negative_logits_of_a_float_layer_survive_too() -> None:
    net = Net((1, 6))
    weights = net.const(net.rng.normal(0, 1, (3, 6)).astype(np.float32))
    bias = net.const(np.full(3, -500, np.float32))
    x = net.op("FULLY_CONNECTED", [net.input, weights, bias], (1, 3), "FullyConnectedOptions",
               FusedActivationFunction=0)  # fmt: skip
    net.softmax(x)
    tflite = net.build()
    x0 = np.linspace(-1, 1, 6, dtype=np.float32)[None]
    calibration = compiler.calibrate(tflite, [x0], measurable)
    made = compiler.compile(tflite, calibration, Options(kmodel=3))
    got = Simulator(parse(made.kmodel)).run(x0)[0]
    np.testing.assert_allclose(got, FloatModel(tflite).run(x0)[0].ravel(), atol=1e-4)


# -- 6.3 version 4


@pytest.mark.parametrize("name", ["LOGISTIC", "TANH", "GELU", "ELU", "HARD_SWISH", "NEG", "EXP"])
def test_curved_functions_over_wide_ranges_stay_within_two_codes(name: str) -> None:
    net = Net((1, 12, 12, 3))
    x = net.conv(net.input, 4, (1, 1), gain=12.0 if name != "EXP" else 2.0)
    net.unary(name, x, "GeluOptions" if name == "GELU" else None)
    outcome = Outcome(net.build(), 4)
    reference = np.stack([r[0] for r in outcome.reference])
    got = np.stack([g[0] for g in outcome.got])
    step = (reference.max() - reference.min()) / 255
    # The codes before the function are rounded too; their share passes through its slope.
    assert np.percentile(np.abs(reference - got), 99) < 6 * step
    assert np.sqrt(np.mean((reference - got) ** 2)) < 2 * step


def test_relu6_after_a_clamped_layer_keeps_its_six() -> None:
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 4, gain=30.0, act="RELU")
    net.unary("RELU6", x)
    outcome = proven(net, 4, 30.0)
    assert max(g[0].max() for g in outcome.got) == pytest.approx(6, abs=0.05)


def test_a_transposed_convolution_keeps_its_bias() -> None:
    net = Net((1, 6, 6, 3))
    x = net.transpose_conv(net.input, 4, (3, 3), (2, 2))
    outcome = proven(net, 4, 40.0, x)
    names = outcome.layers
    assert names[names.index("conv2d_transpose") + 1] == "binary"


def test_a_falling_function_is_right_at_its_left_edge() -> None:
    net = Net((1, 8, 8, 3))
    net.unary("NEG", net.unary("HARD_SWISH", net.conv(net.input, 4, gain=8.0)))
    proven(net, 4, 30.0)


def test_ranges_beyond_a_thousand_are_kept() -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 4, gain=20000.0)
    for kmodel in (3, 4):
        outcome = proven(net, kmodel, 30.0)
        assert max(np.abs(g[0]).max() for g in outcome.got) > 5000


def test_bilinear_resizing_works_on_floats() -> None:
    """Of codes the runtime's result is cut off, not rounded."""
    net = Net((1, 8, 8, 3))
    net.resize(net.conv(net.input, 4), (16, 16), "BILINEAR")
    model = compiled(net, 4)
    (resize,) = [n for n in model.nodes if isinstance(n, v4_ops.ResizeImage)]
    assert resize.input.datatype == 0
    proven(net, 4, 30.0)


def test_four_pixel_pools_are_fused_with_stride_four_only() -> None:
    net = Net((1, 16, 16, 3))
    net.pool(net.conv(net.input, 4), "MAX", (4, 4), stride=(2, 2))
    for kmodel in (3, 4):
        proven(net, kmodel, 28.0)


def test_only_opcodes_of_the_first_betas_are_written() -> None:
    late = {0x12, 0x14}
    net = Net((1, 8, 8, 3))
    x = net.unary("LOGISTIC", net.input)
    x = net.unary("TANH", net.binary("MUL", x, net.conv(x, 3)))
    net.softmax(x)
    model = compiled(net, 4)
    assert not late & {n.OPCODE for n in model.nodes}


# -- 6.4, 6.5 rounding and preprocessing


def test_an_identity_layer_passes_all_codes_unchanged() -> None:
    net = Net((1, 16, 16, 1))
    net.reshape(net.input, (1, 256))
    tflite = net.build()
    for mean in (0.0, 0.5, 0.485):
        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
        x = scaled(ramp, mean)
        calibration = compiler.calibrate(tflite, [x], measurable)
        made = compiler.compile(tflite, calibration, Options(kmodel=3, mean=mean))
        got = Simulator(parse(made.kmodel)).run(np.ascontiguousarray(ramp[..., 0][None]))[0]
        np.testing.assert_allclose(got, x.ravel(), atol=1e-6)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.485, 0.229), (0.0, 1 / 255), (0.5, 1.0)])
def test_the_input_means_exactly_what_the_contract_says(
    kmodel: int, mean: float, std: float
) -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 4, (1, 1))
    tflite, pictures = net.build(), pixels((1, 8, 8, 3))
    inputs = [scaled(p, mean, std) for p in pictures]
    calibration = compiler.calibrate(tflite, inputs, measurable)
    made = compiler.compile(tflite, calibration, Options(kmodel=kmodel, mean=mean, std=std))
    assert made.input.scale == 1 / (255 * std)
    assert made.input.zero_point == 255 * mean
    model, simulator = FloatModel(tflite), Simulator(parse(made.kmodel))
    reference = np.stack([to_nchw(model.run(x)[0]).ravel() for x in inputs])
    got = np.stack([simulator.run(np.ascontiguousarray(np.moveaxis(p, -1, 0)))[0]
                    for p in pictures])  # fmt: skip
    step = (reference.max() - reference.min()) / 255
    assert abs((got - reference).mean()) < 0.1 * step  # no offset of half a code


# -- placement


def _random_graph(seed: int) -> Graph:
    net = Net((1, 12, 12, 4), seed=seed)
    x = net.conv(net.input, 8)
    branches = [net.conv(x, 8, act="RELU") for _ in range(3)]
    y = net.concat(branches, 3)
    z = net.binary("ADD", net.conv(y, 8), x)
    mean = net.reduce("MEAN", z, [1, 2], False)
    graph = lowered(net.build(mean, net.conv(z, 4)), 4)
    quantise(graph, _Fixed(), Quant(1 / 255, 0))
    return graph


class _Fixed(Ranges):
    def __init__(self) -> None:
        super().__init__(None, "minmax")

    def of_source(self, index: int | None) -> tuple[float, float]:
        return (-1.0, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_tensors_alive_together_never_overlap(seed: int) -> None:
    graph = _random_graph(seed)
    memory = allocate(graph)
    live = lifetimes(graph)
    joined = {t: op.output for op in graph.ops if op.kind == "kpu_concat" for t in op.inputs}
    alias = {op.output: op.input for op in graph.ops if op.kind == "reshape"}

    def root(t: Tensor) -> Tensor:
        t = alias.get(t, t)
        return joined.get(t, t)

    for table, size in ((memory.rows, kpu_rows), (memory.bytes, nbytes)):
        tensors = list(table)
        for i, a in enumerate(tensors):
            for b in tensors[:i]:
                together = live[a][0] <= live[b][1] and live[b][0] <= live[a][1]
                if together and root(a) is not root(b):
                    apart = table[a] + size(a) <= table[b] or table[b] + size(b) <= table[a]
                    assert apart, (a, b)


def test_inputs_and_outputs_of_a_layer_are_disjoint_in_kpu_memory() -> None:
    graph = _random_graph(0)
    memory = allocate(graph)
    for op in graph.ops:
        if op.kind == "kpu_conv":
            assert not list(check(registers(op, memory)))


def test_the_executor_agrees_that_shifts_move_by_one() -> None:
    x = Tensor("x", (1, 1, 4, 4))
    weights = np.zeros((1, 1, 3, 3), np.float32)
    weights[0, 0, 2, 2] = 1
    y = Tensor("y", (1, 1, 4, 4))
    op = KpuConv([x], [y], weights=weights, bias=np.zeros(1, np.float32), depthwise=True)
    values = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    got = executor.outputs(Graph([x], [y], [op]), values)[0]
    np.testing.assert_array_equal(got[0, 0, :3, :3], values[0, 0, 1:, 1:])


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("act", ["RELU", "LOGISTIC", "HARD_SWISH"])
def test_a_layer_that_calibration_never_woke_compiles(act: str, kmodel: int) -> None:
    """All its outputs are zero: no scale can be read off them, and any will do."""
    net = Net((1, 8, 8, 3))
    kernel = net.const(np.full((4, 1, 1, 3), 40, np.float32))
    bias = net.const(np.full(4, -5000, np.float32))
    x = net.op("CONV_2D", [net.input, kernel, bias], (1, 8, 8, 4), "Conv2DOptions", Padding=0,
               StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    dead = net.unary("RELU", x)
    after = net.unary(act, net.conv(dead, 4, gain=50.0))
    outcome = Outcome(net.build(dead, after), kmodel)
    for reference, got in zip(outcome.reference, outcome.got, strict=True):
        assert not got[0].any()
        spread = np.abs(reference[1]).max()
        np.testing.assert_allclose(got[1], reference[1], atol=0.02 * spread + 0.01)
