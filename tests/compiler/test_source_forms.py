"""Forms in which converters write what is simpler than it looks, and what stands in the way."""

from __future__ import annotations

import numpy as np
import pytest

from k210tasks.compiler import check
from tests.check_and_convert import disagreement
from tests.compiler.helpers import proven
from tests.compiler.tflite_builder import Net


def rows(net: Net, x: int, columns: int) -> int:
    """``x`` as rows of a matrix, as a converter writes it for an open batch: it says one row."""
    y = net.op("RESHAPE", [x, net.const(np.array([-1, columns], np.int32))], (1, columns))
    net.tensors[y]["signature"] = [-1, columns]
    return y


def dense_on_rows(net: Net, x: int, columns: int, units: int) -> int:
    weights = net.rng.normal(0, 0.5, (units, columns)).astype(np.float32)
    y = net.op(
        "FULLY_CONNECTED", [rows(net, x, columns), net.const(weights)], (1, units),
        "FullyConnectedOptions",
    )  # fmt: skip
    net.tensors[y]["signature"] = [-1, units]
    return y


def test_rows_put_into_an_open_batch_are_as_many_as_there_are() -> None:
    net = Net((1, 8, 8, 3))
    x = net.unary("RELU", dense_on_rows(net, net.conv(net.input, 4), 4, 6))
    net.tensors[x]["signature"] = [-1, 6]
    y = dense_on_rows(net, x, 6, 5)
    net.reshape(y, (1, 8, 8, 5))
    outcome = proven(net, 4)
    assert "matmul 64x4 -> 64x6\n" in outcome.compiled.listing
    (reason,) = [r for op in check(net.build(), 3).ops for r in op.reasons][:1]
    assert reason == "a dense layer on 64 rows; needs kmodel 4"
    assert disagreement(net.build(), 3) is None
    assert disagreement(net.build(), 4) is None


def test_an_output_of_rows_has_its_real_shape() -> None:
    net = Net((1, 8, 8, 3))
    dense_on_rows(net, net.conv(net.input, 4), 4, 6)
    assert proven(net, 4).compiled.outputs[0].shape == (64, 6)


def test_a_cut_of_rows_has_the_shape_that_follows() -> None:
    net = Net((1, 8, 8, 3))
    y = rows(net, net.conv(net.input, 4), 4)
    cut = [net.const(np.array(v, np.int32)) for v in ([0, 0], [2, 2])]
    z = net.op("SLICE", [y, *cut], (1, 2), "SliceOptions")
    net.tensors[z]["signature"] = [-1, 2]
    net.reshape(z, (1, 4))
    proven(net, 4)


def test_a_shape_that_does_not_follow_is_not_believed() -> None:
    net = Net((1, 8, 8, 3))
    y = rows(net, net.conv(net.input, 4), 4)
    z = net.op("CUMSUM", [y, net.const(np.array(0, np.int32))], (1, 4), "CumsumOptions")
    net.tensors[z]["signature"] = [-1, 4]
    w = net.op("RELU", [z], (1, 4))
    net.tensors[w]["signature"] = [-1, 4]
    report = check(net.build(), 4)
    (reason,) = [r for op in report.ops if op.label == "RELU #3" for r in op.reasons]
    assert reason.startswith("Every tensor has a fixed shape")


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_cut_into_blocks_of_one_pixel_is_a_pad(kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    consts = [net.const(np.array(v, np.int32)) for v in ([1, 1], [[1, 2], [0, 1]])]
    x = net.op("SPACE_TO_BATCH_ND", [net.conv(net.input, 4), *consts], (1, 11, 9, 4))
    net.conv(x, 4, padding="VALID", stride=(2, 2))
    proven(net, kmodel)


def dilated(net: Net, x: int, block: int, pads: tuple[int, int], *, axis: int = 1) -> int:
    """A dilated one-dimensional convolution as it is written for an open batch."""
    _, places, channels = net.shape(x)
    at, around = net.const(np.array([block], np.int32)), net.const(np.array([pads], np.int32))
    none = net.const(np.zeros((1, 2), np.int32))
    n = (places + sum(pads)) // block
    cut = net.op("SPACE_TO_BATCH_ND", [x, at, around], (block, n, channels))
    shape = [block, n, channels]
    shape.insert(axis, 1)
    wide = net.op("EXPAND_DIMS", [cut, net.const(np.array(axis, np.int32))], shape)
    kernel = (1, 3) if axis == 1 else (3, 1)
    y = net.conv(wide, 5, kernel, padding="VALID", act="RELU")
    size = [block, n - 2, 5]
    net.shape(y)[0] = block
    narrow = net.op("SQUEEZE", [y], size, "SqueezeOptions")
    return net.op("BATCH_TO_SPACE_ND", [narrow, at, none], (1, (n - 2) * block, 5))


@pytest.mark.parametrize(("block", "pads"), [(2, (2, 2)), (2, (0, 0)), (4, (8, 0))])
def test_a_dilated_convolution_of_a_row_is_one_again(block: int, pads: tuple[int, int]) -> None:
    net = Net((1, 8, 8, 3))
    x = net.reshape(net.conv(net.input, 4), (1, 64, 4))
    y = dilated(net, x, block, pads)
    net.reshape(y, (1, 1, *net.shape(y)[1:]))
    proven(net, 4)


def test_a_cut_that_belongs_to_nothing_is_refused_with_what_to_do() -> None:
    net = Net((1, 8, 8, 3))
    x = net.reshape(net.conv(net.input, 4), (1, 64, 4))
    dilated(net, x, 2, (2, 2), axis=2)
    report = check(net.build(), 4)
    (reason,) = [r for op in report.ops if op.label == "SPACE_TO_BATCH_ND #2" for r in op.reasons]
    assert reason == (
        "Only around one unpadded convolution, which is then a dilated one (nothing to join it "
        "with was found; convert the model with a batch of 1, keras.Input(shape, batch_size=1), "
        "and the converter joins them)"
    )


def test_a_loop_is_refused_by_name_with_what_to_do() -> None:
    net = Net((1, 8))
    y = net.op("WHILE", [net.input], (1, 8), "WhileOptions", CondSubgraphIndex=0)
    net.dense(y, 3)
    (reason,) = [r for op in check(net.build(), 4).ops for r in op.reasons]
    assert reason.startswith("this op is not supported; it is a loop, as Keras writes LSTM")
    assert "unroll=True" in reason


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("int16", "tensor 'input' holds INT16; give the float model"),
        ("int8", "tensor 'input' holds INT8 without a scale"),
        ("float16", "tensor 'input' holds computed FLOAT16 values"),
    ],
)
def test_numbers_that_nothing_is_known_of_are_refused(dtype: str, words: str) -> None:
    net = Net((1, 8, 8, 3), dtype=dtype)
    net.conv(net.input, 4)
    (reason,) = {r for op in check(net.build(), 4).ops for r in op.reasons}
    assert words in reason


def test_a_constant_output_is_refused_with_what_to_do() -> None:
    net = Net((1, 8, 8, 3))
    table = net.const(np.zeros((1, 16, 4), np.float32), name="anchors")
    y = net.conv(net.input, 4)
    (problem,) = check(net.build(y, table), 4).problems
    assert problem == (
        "output 'anchors': it is a constant of shape [1, 16, 4], the same for every input; leave "
        "this output out and keep its values as a table on the board"
    )


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("stride", [3, 65536])
def test_a_stride_over_one_value_is_any(stride: int, kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 6)
    cut = net.strided_slice(x, [0, 0, 0, 0], [1, 4, 8, 6], [stride, 1, 1, 1])
    net.conv(cut, 4)
    assert disagreement(net.build(), kmodel) is None
    if kmodel == 4:
        proven(net, kmodel)
