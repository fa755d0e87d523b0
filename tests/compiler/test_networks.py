"""Networks of the kinds people run on a K210, small ones, through the whole compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k210tasks import compiler
from k210tasks.compiler.options import Options
from k210tasks.compiler.passes.place import allocate
from k210tasks.compiler.problems import NeedsKmodel4, UnsupportedOps
from k210tasks.compiler.reader import load
from k210tasks.kmodel import parse
from tests.compiler.helpers import Outcome, kinds, proven, same_after_legalise
from tests.compiler.tflite_builder import Net


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_first_layers_of_a_mobilenet_of_224_pixels_fit_the_kpu(kmodel: int) -> None:
    net = Net((1, 224, 224, 3))
    x = net.pad(net.input, [(0, 0), (0, 1), (0, 1), (0, 0)])
    x = net.conv(x, 24, stride=(2, 2), padding="VALID", act="RELU6")
    net.depthwise(x, stride=(2, 2), act="RELU6")
    graph = same_after_legalise(net.build(), kmodel)
    assert allocate(graph, rounds=0).kpu_bytes <= 2 << 20


def test_shapes_computed_from_an_open_batch_are_constants() -> None:
    net = Net((1, 8, 8, 3))
    x = net.conv(net.input, 4)
    for tensor in (net.input, x):
        net.tensors[tensor]["signature"] = [-1, *net.shape(tensor)[1:]]
    shape = net.tensor((4,), dtype="int32")
    net.ops.append(("SHAPE", [x], [shape], "ShapeOptions", {"OutType": 2}, 1))
    ends = [net.const(np.array([n], np.int32)) for n in (0, 1, 1)]
    batch = net.tensor((), dtype="int32")
    fields = {"ShrinkAxisMask": 1}
    net.ops.append(("STRIDED_SLICE", [shape, *ends], [batch], "StridedSliceOptions", fields, 1))
    flat = net.tensor((2,), dtype="int32")
    rest = net.const(np.array(256, np.int32))
    net.ops.append(("PACK", [batch, rest], [flat], "PackOptions", {"ValuesCount": 2}, 1))
    y = net.op("RESHAPE", [x, flat], (1, 256), "ReshapeOptions")
    net.dense(y, 3)
    same_after_legalise(net.build(), 4)
    proven(net, 3)


def upsampled(net: Net, x: int) -> int:
    """Twice the pixels, the way Keras writes it: repeat each row, then each column."""
    _, h, w, c = net.shape(x)
    x = net.reshape(x, (1, h, 1, w, c))
    x = net.op("TILE", [x, net.const(np.array([1, 1, 2, 1, 1], np.int32))], (1, h, 2, w, c))
    x = net.reshape(x, (1, 2 * h, w, 1, c))
    x = net.op("TILE", [x, net.const(np.array([1, 1, 1, 2, 1], np.int32))], (1, 2 * h, w, 2, c))
    return net.reshape(x, (1, 2 * h, 2 * w, c))


@pytest.mark.parametrize("kmodel", [3, 4])
def test_rows_and_columns_repeated_are_one_resize_layer(kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    net.conv(upsampled(net, net.conv(net.input, 4)), 2)
    outcome = proven(net, kmodel)
    resizes = [name for name in outcome.layers if "esize" in name]
    assert resizes == ["QuantizedResizeNearestNeighbor" if kmodel == 3 else "resize_image"]


@pytest.mark.parametrize("kmodel", [3, 4])
def test_shuffled_channels_go_into_the_weights_after_them(kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    x = net.reshape(net.conv(net.input, 8), (1, 8, 8, 2, 4))
    x = net.reshape(net.transpose(x, (0, 1, 2, 4, 3)), (1, 8, 8, 8))
    net.conv(x, 4, (1, 1))
    assert proven(net, kmodel).layers[-1] in ("Dequantize", "dequantize")
    assert len(proven(net, kmodel).layers) == 3


def swish(net: Net, x: int) -> int:
    return net.binary("MUL", x, net.unary("LOGISTIC", x))


def softsign(net: Net, x: int) -> int:
    one = net.const(np.float32(1))
    return net.binary("DIV", x, net.binary("ADD", net.unary("ABS", x), one))


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("function", [swish, softsign])
def test_functions_of_one_value_in_several_ops_are_one_table(function: Any, kmodel: int) -> None:
    net = Net((1, 8, 8, 3))
    net.conv(function(net, net.conv(net.input, 4)), 2)
    assert len(proven(net, kmodel).layers) == 3


def test_such_a_function_of_floats_beside_the_kpu() -> None:
    net = Net((1, 20))
    net.dense(swish(net, net.dense(net.input, 8)), 3)
    assert same_after_legalise(net.build(), 4)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_more_channels_than_the_kpu_has_are_computed_in_groups(kmodel: int) -> None:
    net = Net((1, 4, 4, 8))
    x = net.conv(net.input, 1280, (1, 1), act="RELU6")
    net.dense(net.reduce("MEAN", x, [1, 2], False), 5)
    outcome = proven(net, kmodel)
    convs = [row for row in outcome.compiled.layers if row.runs_on == "KPU"]
    assert [row.output_shape[1] for row in convs if row.output_shape[1] > 8][:2] == [640, 640]


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_cut_into_a_batch_is_a_dilated_one(block: int, depthwise: bool) -> None:
    net = Net((1, 12, 12, 4))
    sizes = net.const(np.array([block, block], np.int32))
    grow = (-(12 + 2 * block)) % block
    pads = [[block, block + grow]] * 2
    inner = (12 + 2 * block + grow) // block
    cut = net.op("SPACE_TO_BATCH_ND", [net.input, sizes, net.const(np.array(pads, np.int32))],
                 (block * block, inner, inner, 4))  # fmt: skip
    y = net.depthwise(cut, padding="VALID") if depthwise else net.conv(cut, 4, padding="VALID")
    net.tensors[y]["shape"][0] = block * block
    crops = net.const(np.array([[0, grow]] * 2, np.int32))
    net.op("BATCH_TO_SPACE_ND", [y, sizes, crops], (1, 12, 12, 4))
    graph = same_after_legalise(net.build(), 4)
    assert set(kinds(graph)) <= {"kpu_conv", "kpu_part", "dequantize", "upload", "quantize", "pad"}


def test_a_batch_that_is_no_dilated_convolution_is_refused() -> None:
    net = Net((1, 8, 8, 4))
    sizes = net.const(np.array([2, 2], np.int32))
    none = net.const(np.zeros((2, 2), np.int32))
    net.op("SPACE_TO_BATCH_ND", [net.input, sizes, none], (4, 4, 4, 4))
    with pytest.raises(UnsupportedOps) as caught:
        load(net.build())
    assert str(caught.value) == (
        "the model cannot be compiled:\n"
        "  SPACE_TO_BATCH_ND #0: Only around one unpadded convolution, which is then a dilated one "
        "(nothing to join it with was found; convert the model with a batch of 1, "
        "keras.Input(shape, batch_size=1), and the converter joins them)"
    )


def packed(net: Net, x: int) -> int:
    parts = [net.tensor((1, 8, 8)) for _ in range(4)]
    net.ops.append(("UNPACK", [x], parts, "UnpackOptions", {"Num": 4, "Axis": 3}, 1))
    fields = {"ValuesCount": 3, "Axis": 3}
    return net.op("PACK", [parts[2], parts[0], parts[3]], (1, 8, 8, 3), "PackOptions", **fields)


def mirrored(mode: int) -> Any:
    def layer(net: Net, x: int) -> int:
        pads = net.const(np.array([[0, 0], [2, 1], [0, 2], [0, 0]], np.int32))
        return net.op("MIRROR_PAD", [x, pads], (1, 11, 10, 4), "MirrorPadOptions", Mode=mode)

    return layer


def deeper(net: Net, x: int) -> int:
    return net.op("SPACE_TO_DEPTH", [x], (1, 4, 4, 16), "SpaceToDepthOptions", BlockSize=2)


def wider(net: Net, x: int) -> int:
    return net.op("DEPTH_TO_SPACE", [x], (1, 16, 16, 1), "DepthToSpaceOptions", BlockSize=2)


def gathered(net: Net, x: int) -> int:
    at = net.const(np.array([3, 0, 0], np.int32))
    return net.op("GATHER", [x, at], (1, 8, 8, 3), "GatherOptions", Axis=3)


def rows(net: Net, x: int) -> int:
    at = net.const(np.array([1, 2, 7, 0], np.int32))
    return net.op("GATHER", [x, at], (1, 4, 8, 4), "GatherOptions", Axis=1)


def tripled(net: Net, x: int) -> int:
    return net.op("ADD_N", [x, net.conv(x, 4, (1, 1)), x], net.shape(x))


def powered(net: Net, x: int) -> int:
    return net.op("POW", [x, net.const(np.float32(2))], net.shape(x))


def slopes(net: Net, x: int) -> int:
    each = net.const(net.rng.uniform(0, 0.5, (8, 8, 4)).astype(np.float32))
    return net.op("PRELU", [x, each], net.shape(x))


@pytest.mark.parametrize(
    ("layer", "beyond_v3"),
    [
        (packed, False), (mirrored(0), True), (mirrored(1), True), (deeper, False), (wider, True),
        (gathered, False), (rows, True), (tripled, False), (powered, False), (slopes, True),
    ],
    ids=lambda x: getattr(x, "__qualname__", ""),
)  # fmt: skip
def test_ops_between_two_convolutions(layer: Any, beyond_v3: bool) -> None:
    net = Net((1, 8, 8, 3))
    net.conv(layer(net, net.conv(net.input, 4)), 4)
    proven(net, 4, 22)
    if beyond_v3:
        with pytest.raises(NeedsKmodel4):
            same_after_legalise(net.build(), 3)
    else:
        proven(net, 3, 22)


def along(net: Net, x: int, channels: int, *args: Any, **more: Any) -> int:
    """A convolution along a one-dimensional map (1, places, channels)."""
    row = net.reshape(x, (1, 1, *net.shape(x)[1:]))
    y = net.conv(row, channels, (1, 3), *args, **more)
    return net.reshape(y, net.shape(y)[1:])


@pytest.mark.parametrize("kmodel", [3, 4])
def test_one_dimensional_networks(kmodel: int) -> None:
    net = Net((1, 32, 3))
    x = net.pad(net.input, [(0, 0), (2, 0), (0, 0)])
    x = along(net, x, 8, padding="VALID", act="RELU")
    x = along(net, x, 8, act="RELU")
    net.softmax(net.dense(net.reduce("MEAN", x, [1], False), 4))
    proven(net, kmodel)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_normalised_vector_costs_no_layer(kmodel: int) -> None:
    net = Net((1, 16))
    x = net.binary("SUB", net.input, net.const(net.rng.normal(0, 1, (1, 16)).astype(np.float32)))
    x = net.binary("DIV", x, net.const(net.rng.uniform(1, 2, (1, 16)).astype(np.float32)))
    x = net.dense(x, 8)
    x = net.binary("MUL", x, net.const(net.rng.uniform(1, 2, (1, 8)).astype(np.float32)))
    x = net.binary("ADD", x, net.const(net.rng.normal(0, 1, (1, 8)).astype(np.float32)))
    net.unary("RELU", x)
    graph = same_after_legalise(net.build(), kmodel)
    if kmodel == 4:
        assert kinds(graph) == ["dequantize", "dense"]
    else:  # a clamp of floats takes two bytes, see passes/clamps.py
        assert kinds(graph) == [
            "dense", "quantize", "dequantize", "dequantize", "binary", "quantize", "dequantize",
            "binary",
        ]  # fmt: skip


@pytest.mark.parametrize("how", ["MEAN", "REDUCE_MAX"])
@pytest.mark.parametrize("axes", [[1, 2], [1], [2]])
def test_means_and_maxima_of_maps_in_kmodel_3(how: str, axes: list[int]) -> None:
    net = Net((1, 8, 12, 3))
    net.reduce(how, net.conv(net.input, 4), axes, True)
    proven(net, 3)


def test_transposes_of_five_dimensions_take_few_layers() -> None:
    net = Net((1, 8, 8, 16))
    x = net.reshape(net.conv(net.input, 16), (1, 8, 8, 2, 2, 4))
    net.reshape(net.transpose(x, (0, 1, 3, 2, 4, 5)), (1, 16, 16, 4))
    outcome = proven(net, 4)
    assert outcome.layers.count("transpose") <= 3


#: what runtimes of beta1 and beta2 know, MaixPy's among them (reference, section 3.4)
BETA1 = {*range(0x12), 0x13, 0x2001, 0x2002}


def scores(net: Net) -> int:
    x = net.resize(net.conv(net.input, 4), (16, 16))
    return net.unary("TANH", net.reshape(x, (1, 1024)))


def test_functions_beside_the_kpu_are_tables_where_beta4_is_asked_for() -> None:
    net = Net((1, 8, 8, 3))
    scores(net)
    plain, tables = (proven(net, 4, 25, opcodes=o) for o in ("beta1", "beta4"))
    codes = [{n.OPCODE for n in parse(o.compiled.kmodel).nodes} for o in (plain, tables)]
    assert codes[0] <= BETA1
    assert codes[1] - BETA1 == {0x12}
    assert len(tables.layers) < len(plain.layers)
    assert "table_lookup1d" in tables.layers


@pytest.mark.parametrize("function", ["LOGISTIC", "TANH", "HARD_SWISH", "ELU", "SQRT", "NEG"])
def test_only_opcodes_of_beta1_unless_asked(function: str) -> None:
    net = Net((1, 8, 8, 4))
    x = net.unary(function, net.reshape(net.unary("ABS", net.input), (1, 256)))
    x = net.binary("ADD", x, net.const(np.float32(1)))
    net.softmax(x)
    nodes = parse(Outcome(net.build(), 4).compiled.kmodel).nodes
    assert {node.OPCODE for node in nodes} <= BETA1


def test_one_float_layer_is_not_worth_a_table() -> None:
    net = Net((1, 8, 8, 3))
    net.unary("RELU", net.resize(net.conv(net.input, 4), (16, 16)))
    assert "table_lookup1d" not in proven(net, 4, opcodes="beta4").layers


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(5, 1, 1), (5, 2, 1), (3, 1, 2), (7, 1, 1)]
)
def test_large_depthwise_kernels_of_many_channels_stay_on_the_kpu(
    kernel: int, stride: int, dilation: int, kmodel: int
) -> None:
    net = Net((1, 24, 24, 72))
    x = net.depthwise(net.input, (kernel, kernel), stride=(stride, stride), act="RELU",
                      dilation=(dilation, dilation))  # fmt: skip
    net.conv(x, 8, (1, 1))
    graph = same_after_legalise(net.build(), kmodel)
    # Kmodel 4 leaves to the CPU what is few products for many weights.
    assert "conv" not in kinds(graph) or (kmodel == 4 and (kernel, stride) != (5, 1))
    size = len(proven(net, kmodel).compiled.kmodel)
    assert size < (1_000_000 if kmodel == 3 else 200_000)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_quantised_mobilenet_needs_no_pictures(kmodel: int) -> None:
    def coded(tensor: int, scale: float) -> int:
        net.tensors[tensor].update(dtype=np.dtype("int8"), scale=scale, zero_point=0)
        return tensor

    net = Net((1, 8, 8, 3), dtype="int8")
    coded(net.input, 1 / 64)
    x = coded(net.conv(net.input, 16, act="RELU6"), 1 / 20)
    x = coded(net.reduce("MEAN", x, [1, 2], True), 1 / 40)
    x = coded(net.conv(x, 160, (1, 1)), 1 / 40)
    third = coded(net.const(np.float32(1 / 3)), 1 / 127)
    net.tensors[third]["value"] = np.array(42, np.int8)
    x = coded(net.binary("MUL", x, third), 1 / 100)
    x = coded(net.reshape(x, (1, 160)), 1 / 100)
    x = coded(net.dense(x, 40, act="RELU"), 1 / 50)
    x = coded(net.dense(x, 60), 1 / 50)
    made = compiler.compile(net.build(), None, Options(kmodel=kmodel))
    assert any(row.runs_on == "KPU" for row in made.layers)


@pytest.mark.parametrize("kmodel", [3, 4])
def test_a_quantised_mean_before_a_dense_layer_has_its_range(kmodel: int) -> None:
    net = Net((1, 8, 8, 3), dtype="int8")
    x = net.conv(net.input, 160, act="RELU6")
    y = net.reduce("MEAN", x, [1, 2], False)
    z = net.dense(y, 40)
    for tensor in (net.input, x, y, z):
        net.tensors[tensor].update(dtype=np.dtype("int8"), scale=1 / 20, zero_point=0)
    made = compiler.compile(net.build(), None, Options(kmodel=kmodel))
    assert sum(row.runs_on == "KPU" for row in made.layers) >= 2


def excited(net: Net, x: int) -> int:
    """Squeeze and excite: each channel times what its means make of it."""
    gate = net.conv(net.reduce("MEAN", x, [1, 2], True), 4, (1, 1), act="RELU")
    return net.binary("MUL", x, net.unary("LOGISTIC", net.conv(gate, 8, (1, 1))))


def attended(net: Net, x: int) -> int:
    return net.binary("MUL", x, net.unary("LOGISTIC", net.conv(x, 1)))


def without_mean(net: Net, x: int) -> int:
    return net.binary("SUB", x, net.reduce("MEAN", x, [1, 2], True))


def of_other_sizes(net: Net, x: int) -> int:
    wide = net.binary("MUL", net.conv(x, 8, act="RELU"), net.const(np.float32(40)))
    return net.binary("MUL", wide, net.unary("LOGISTIC", net.conv(x, 8)))


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("layer", [excited, attended, without_mean, of_other_sizes])
def test_products_of_maps(layer: Any, kmodel: int) -> None:
    net = Net((1, 12, 12, 3))
    net.conv(layer(net, net.conv(net.input, 8)), 4, (1, 1))
    proven(net, kmodel, 28)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "depthwise"),
    [(5, 1, 1, False), (7, 2, 1, False), (3, 1, 4, False), (5, 1, 1, True)],
)
def test_large_kernels_of_one_dimensional_networks(
    kernel: int, stride: int, dilation: int, depthwise: bool, kmodel: int
) -> None:
    net = Net((1, 1, 40, 4))
    more: dict[str, Any] = {"stride": (1, stride), "dilation": (1, dilation), "act": "RELU"}
    if depthwise:
        x = net.depthwise(net.input, (1, kernel), **more)
    else:
        x = net.conv(net.input, 8, (1, kernel), **more)
    net.dense(net.reshape(x, (1, int(np.prod(net.shape(x))))), 4)
    graph = same_after_legalise(net.build(), kmodel)
    assert "conv" not in kinds(graph)
    proven(net, kmodel)
