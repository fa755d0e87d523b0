"""Reading TFLite: every refusal names op, tensor and remedy."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from k210tasks.compiler import forms
from k210tasks.compiler.problems import BadModel, CompileError, SeveralInputs, UnsupportedOps
from k210tasks.compiler.reader import load
from k210tasks.compiler.source import Source, source_of
from k210tasks.reference.litert import FloatModel
from tests.compiler.helpers import fixture
from tests.compiler.judging import compile_network, network
from tests.compiler.tflite_builder import Net


@pytest.mark.parametrize("name", ["iris", "vww_96_float", "ulffd_landmark"])
def test_real_models_are_read_into_legal_graphs(name: str) -> None:
    graph = load(fixture(f"{name}.tflite"))
    forms.check(graph, "read", forms.FLOAT)
    assert len(graph.inputs) == 1


def test_bytes_that_are_no_model() -> None:
    with pytest.raises(BadModel) as caught:
        load(b"\x00" * 64)
    assert str(caught.value) == (
        "not a usable TensorFlow Lite model: it does not carry the identifier TFL3 at byte 4"
    )


def test_a_cut_file_is_damaged() -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 4)
    data = net.build()
    with pytest.raises(BadModel):
        load(data[: len(data) // 2])


def test_all_unsupported_ops_are_named_at_once() -> None:
    net = Net((1, 8, 8, 3))
    x = net.op("custom:Secret", [net.input], (1, 8, 8, 3))
    x = net.op("CUMSUM", [x], (1, 8, 8, 3))
    net.op("SOFTMAX", [x], (1, 8, 8, 3), "SoftmaxOptions", Beta=1.0, version=99)
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert str(caught.value) == (
        "the model cannot be compiled:\n"
        "  custom op Secret #0: this op is not supported\n"
        "  CUMSUM #1: this op is not supported\n"
        "  SOFTMAX #2: version 99 of this op is not known, only up to 3"
    )


def test_dynamic_shapes_are_refused_by_tensor() -> None:
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 4)
    for tensor in (net.input, x):
        net.tensors[tensor]["signature"] = [1, -1, -1, net.shape(tensor)[3]]
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert str(caught.value) == (
        "the model cannot be compiled:\n"
        "  CONV_2D #0: Every tensor has a fixed shape: convert the model with a batch of 1 and a "
        "fixed size (tensor 'input' has shape [1, 8, 8, 3])"
    )


def test_a_batch_that_is_only_declared_open_is_taken() -> None:
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 4)
    net.tensors[x]["signature"] = [-1, 8, 8, 4]
    net.tensors[net.input]["signature"] = [-1, 8, 8, 3]
    assert len(load(net.build()).ops) == 1


def test_a_real_batch_is_refused() -> None:
    net = Net((4, 8, 8, 3))
    net.conv(net.input, 4)
    with pytest.raises((BadModel, UnsupportedOps), match="batch"):
        load(net.build())


def test_sparse_weights_are_refused() -> None:
    net = Net((1, 8, 8, 3))
    net.conv(net.input, 4)
    net.tensors[1]["sparse"] = True
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert "Weights are stored densely: convert the model without sparsity" in str(caught.value)
    assert "tensor 't1'" in str(caught.value)


def test_integer_computation_is_refused() -> None:
    net = Net((1, 8), dtype="int32")
    net.unary("ABS", net.input)
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert "tensor 'input' holds computed INT32 values" in str(caught.value)


def test_several_inputs_are_refused() -> None:
    net = Net((1, 8, 8, 3))
    other = net.tensor((1, 8, 8, 3), "second")
    net.inputs.append(other)
    net.binary("ADD", net.input, other)
    with pytest.raises(SeveralInputs) as caught:
        load(net.build())
    assert str(caught.value) == (
        "the model has 2 inputs (input, second); K210 runtimes feed exactly one: join them into "
        "one tensor and split it in the model"
    )


def test_computed_weights_are_refused() -> None:
    net = Net((1, 8, 8, 3))
    weights = net.conv(net.input, 4)
    net.op("FULLY_CONNECTED", [net.input, weights], (1, 4), "FullyConnectedOptions",
           FusedActivationFunction=0)  # fmt: skip
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert "FULLY_CONNECTED #1: Weights are constants (the weights are computed)" in str(
        caught.value
    )


def test_half_precision_weights_are_read() -> None:
    net = Net((1, 8, 8, 3))
    weights = net.const(np.ones((4, 1, 1, 3)), "float16")
    full = net.op("DEQUANTIZE", [weights], (4, 1, 1, 3))
    net.op("CONV_2D", [net.input, full], (1, 8, 8, 4), "Conv2DOptions", Padding=0, StrideH=1,
           StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    graph = load(net.build())
    assert graph.ops[0].weights.sum() == 12


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_weights_that_training_rounds_are_read_as_it_left_them(dtype: str) -> None:
    """Networks trained for quantisation round constants in the graph; the numbers are LiteRT's."""
    zero = 128 if dtype == "uint8" else 0
    net = Net((1, 8, 8, 3))
    weights = net.const(np.random.default_rng(0).normal(0, 0.4, (4, 3, 3, 3)), "float32")
    codes = net.op("QUANTIZE", [weights], (4, 3, 3, 3))
    net.tensors[codes].update(dtype=np.dtype(dtype), scale=1 / 127, zero_point=zero)
    rounded = net.op("DEQUANTIZE", [codes], (4, 3, 3, 3))
    bias = net.const(np.zeros(4, np.float32))
    net.op("CONV_2D", [net.input, rounded, bias], (1, 8, 8, 4), "Conv2DOptions", Padding=0,
           StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    tflite = net.build()
    (op,) = load(tflite).ops
    wanted = FloatModel(net.build(rounded)).run(np.zeros((1, 8, 8, 3), np.float32))[0]
    np.testing.assert_allclose(op.weights, wanted.transpose(0, 3, 1, 2), atol=1e-7)
    assert float(np.abs(op.weights).max()) <= 128 / 127  # and what does not fit is cut off


def test_int8_tensors_know_their_range() -> None:
    net = Net((1, 8, 8, 3), dtype="int8")
    net.tensors[net.input].update(scale=0.5, zero_point=-28)
    weights = net.const(np.full((4, 1, 1, 3), 2), "int8", scale=[0.1, 0.2, 0.3, 0.4])
    bias = net.const(np.full(4, 10), "int32", scale=[0.05, 0.1, 0.15, 0.2])
    y = net.op("CONV_2D", [net.input, weights, bias], (1, 8, 8, 4), "Conv2DOptions", Padding=0,
               StrideH=1, StrideW=1, DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    net.tensors[y].update(dtype=np.dtype("int8"), scale=0.25, zero_point=0)
    graph = load(net.build())
    assert graph.input.range == (-50.0, 77.5)
    assert graph.outputs[0].range == (-32.0, 31.75)
    np.testing.assert_allclose(graph.ops[0].weights[:, 0, 0, 0], [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(graph.ops[0].bias, [0.5, 1, 1.5, 2])


def test_ops_refused_for_the_same_reason_share_a_line_and_say_what_to_do() -> None:
    net = Net((1, 8))
    x = net.input
    for _ in range(6):
        x = net.unary("VAR_HANDLE", x)
    net.unary("CUMSUM", net.unary("CUMSUM", x))
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert str(caught.value) == (
        "the model cannot be compiled:\n"
        "  VAR_HANDLE #0 and 5 others: this op is not supported; the weights are kept in "
        "variables: convert with TFLiteConverter.from_keras_model or from_saved_model, or let "
        "k210 convert do it\n"
        "  CUMSUM #6, #7: this op is not supported"
    )


def _told(source: Source) -> list[Any]:
    """All that a file was read as."""
    ops = [(op.name, sorted(op.options.items()), op.inputs, op.outputs) for op in source.ops]
    tensors = [t for op in source.ops for t in (*op.inputs, *op.outputs) if t is not None]
    values = [None if t.value is None else np.asarray(t.value).tobytes() for t in tensors]
    return [repr(ops), values, [(t.name, t.shape, t.type, t.dynamic, t.open) for t in tensors]]


@pytest.mark.parametrize("seed", range(6))
def test_what_a_file_was_read_as_is_shared_and_nobody_changes_it(seed: int) -> None:
    made = network(seed)
    source = source_of(made.tflite)
    assert source_of(bytes(bytearray(made.tflite))) is source  # equal bytes, read again
    before = _told(source)
    for kmodel in (3, 4):
        with contextlib.suppress(CompileError):
            compile_network(made, made.tflite, kmodel)
    assert source_of(made.tflite) is source
    assert _told(source) == before
