"""ONNX files onto the graph: what exporters write, judged by onnxruntime; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from k210tasks.compiler import check, executor, forms, ops
from k210tasks.compiler.formats import is_onnx
from k210tasks.compiler.ir import Graph
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.problems import BadModel, CompileError, SeveralInputs
from k210tasks.compiler.reader import load, opened
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
from tests.compiler.onnx_models import (
    CODES,
    CONSTANTS,
    MAP,
    SPELLED,
    W,
    floats,
    model,
    node,
    quantised,
    spelled,
)  # fmt: skip


def agrees(data: bytes, external: Any = None) -> tuple[OnnxSource, Graph]:
    """That the graph computes what onnxruntime does."""
    source = OnnxSource(data, external=external)
    graph = source.graph()
    forms.check(graph, "read", forms.FLOAT)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source.file.proto.SerializeToString(), options)
    x = floats(*source.file.shape)
    wanted = session.run(None, {source.file.input: x})
    given = source.of_port(source.inputs[0]).of_file(x)
    given = given.transpose(0, 3, 1, 2) if given.ndim == 4 else given.reshape(graph.input.shape)
    for each in (graph, simplify(source.graph())):
        for y, port, real in zip(
            executor.outputs(each, given), source.outputs, wanted, strict=True
        ):
            shown = y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
            mine = source.of_port(port).to_file(shown).reshape(real.shape)
            np.testing.assert_allclose(mine, real, atol=2e-4, rtol=1e-4)
    return source, graph


@pytest.mark.parametrize("name", SPELLED)
def test_what_exporters_write_is_computed_as_onnxruntime_does(name: str) -> None:
    agrees(spelled(name))


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_an_old_softmax_is_over_all_axes_from_its_own_on(opset: int, axis: int) -> None:
    agrees(model([node("Softmax", "x", axis=axis)], (1, 3, 4, 5), opset=opset))


@pytest.mark.parametrize("opset", range(8, 23))
def test_settings_that_became_inputs(opset: int) -> None:
    """Squeeze, Unsqueeze, Slice, Split, Clip, Pad and reductions in every opset."""
    constants: dict[str, Any] = {}

    def setting(name: str, value: list[int], since: int) -> tuple[str, dict[str, Any]]:
        if opset < since:
            return "", {name: value}
        constants[name] = np.array(value)
        return f" {name}", {}

    ax, axes = setting("axes", [2], 13)
    nodes = [node("Conv", "x w", "a", pads=[1] * 4)]
    if opset < 11:
        nodes.append(node("Clip", "a", "cl", min=0.0, max=6.0))
        nodes.append(node("Pad", "cl", "pd", pads=[0, 0, 1, 1, 0, 0, 0, 0], value=0.5))
    else:
        constants |= {"lo": np.float32(0), "hi": np.float32(6), "fill": np.float32(0.5)}
        constants["pads"] = np.array([0, 0, 1, 1, 0, 0, 0, 0])
        nodes += [node("Clip", "a lo hi", "cl"), node("Pad", "cl pads fill", "pd")]
    rs, reduced = setting("raxes", [3], 18)
    if "raxes" in reduced:
        reduced = {"axes": reduced["raxes"]}
    nodes.append(node("ReduceMax", f"pd{rs}", "r", keepdims=1, **reduced))
    nodes += [node("Unsqueeze", f"r{ax}", "u", **axes), node("Squeeze", f"u{ax}", "sqz", **axes)]
    sp, parts = setting("split", [2, 4], 13)
    nodes.append(node("Split", f"sqz{sp}", "s0 s1", axis=1, **parts))
    nodes.append(node("Concat", "s1 s0", "y", axis=1))
    agrees(model(nodes, MAP, opset=opset, w=W, **constants))


@pytest.mark.parametrize("value", [-np.inf, np.finfo(np.float32).min, -1e9])
def test_what_is_padded_for_a_max_pool_belongs_to_it(value: float) -> None:
    constants: dict[str, Any] = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 0]),
        "low": np.float32(value),
    }
    nodes = [node("Conv", "x w", "a"), node("Pad", "a pads low", "p"),
             node("MaxPool", "p", "y", kernel_shape=[3, 3], strides=[2, 2])]  # fmt: skip
    source, graph = agrees(model(nodes, MAP, w=W, **constants))
    assert not any(isinstance(op, ops.Pad) for op in simplify(graph).ops)
    assert "p" not in {tensor.name for tensor in source.tensors.values()}


def test_a_model_fed_channels_last_is_fed_as_cameras_give() -> None:
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "c1"),
             node("Relu", "c1", "r"), node("Transpose", "r", "y", perm=[0, 2, 3, 1])]  # fmt: skip
    source, graph = agrees(model(nodes, (1, 8, 10, 4), w=W))
    assert not any(isinstance(op, ops.Transpose) for op in graph.ops)
    assert source.inputs[0].shape == (1, 8, 10, 4)
    assert source.outputs[0].shape == (1, 6, 8, 6)


def test_old_exports_list_constants_as_inputs_and_leave_the_batch_open() -> None:
    made = onnx.load_model_from_string(model([node("Conv", "x w")], ("N", 4, 8, 8), w=W))
    made.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape))
    source, _ = agrees(made.SerializeToString())
    assert source.inputs[0].shape == (1, 8, 8, 4)


def test_open_sizes_are_asked_for_and_pinned() -> None:
    data = model([node("Conv", "x w")], ("batch", 4, "height", "width"), w=W)
    with pytest.raises(CompileError) as caught:
        OnnxSource(data)
    assert "height, width is not fixed" in str(caught.value)
    assert "inputs: {x: [1, 4, 224, 224]}" in str(caught.value)
    assert OnnxSource(data, {"x": [1, 4, 8, 16]}).outputs[0].shape == (1, 6, 14, 6)
    for wrong in ({"z": [1, 4, 8, 8]}, {"x": [1, 4, 8]}, {"x": [1, 3, 8, 8]}, {"x": [1, 4, 0, 8]}):
        with pytest.raises(CompileError, match="the model's input is 'x' of shape"):
            OnnxSource(data, wrong)


def test_values_beside_the_model() -> None:
    made = onnx.load_model_from_string(model([node("Conv", "x w")], MAP, w=W))
    w = made.graph.initializer[0]
    raw = b"junk" + w.raw_data
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "net.onnx.data"), ("offset", "4"), ("length", str(W.nbytes))):
        w.external_data.add(key=key, value=value)
    data = made.SerializeToString()
    agrees(data, {"net.onnx.data": raw}.__getitem__)

    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(CompileError, match=r"'net.onnx.data', which must lie beside the model"):
        OnnxSource(data, external=missing)
    with pytest.raises(BadModel, match="which has 20"):
        OnnxSource(data, external=lambda name: raw[:20])
    for place in ("../net.data", "/etc/passwd", "a\\b"):
        w.external_data[0].value = place
        with pytest.raises(BadModel, match="not beside it"):
            OnnxSource(made.SerializeToString(), external=lambda name: raw)


#: nodes, and what the refusal says
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "op": (lambda: model([node("LSTM", "x w w")], (1, 3, 4), w=W), "export the steps unrolled"),
    "domain": (
        lambda: model([helper.make_node("Thing", ["x"], ["y"], domain="my.own")], MAP),
        "domain my.own",
    ),
    "computed kernel": (
        lambda: model([node("Add", "x x", "k"), node("Conv", "x k")], MAP),
        "the kernel is computed",
    ),
    "training": (
        lambda: model(
            [node("BatchNormalization", "x s s s v", training_mode=1)],
            MAP,
            opset=14,
            s=CONSTANTS["s"],
            v=CONSTANTS["v"],
        ),
        "model.eval()",
    ),
    "opset": (lambda: model([node("Relu", "x")], MAP, opset=99), "export it with opset_version=17"),
    "old opset": (lambda: model([node("Relu", "x")], MAP, opset=6), "older than what is known"),
    "attribute": (lambda: model([node("Relu", "x", strength=3)], MAP), "strength is no attribute"),
    "batch": (lambda: model([node("Conv", "x w")], (2, 4, 8, 8), w=W), "the batch must be 1"),
    "two maps": (lambda: model([node("MatMul", "x x")], (1, 5, 5)), "both factors are computed"),
    "half": (
        lambda: model([node("Relu", "x")], MAP, kind=TensorProto.FLOAT16),
        "holds FLOAT16; export the model in float32",
    ),
    "infinity": (
        lambda: model([node("Add", "x c")], MAP, c=np.full((4, 1, 1), np.inf, np.float32)),
        "holds infinity",
    ),
    "huge": (lambda: model([node("Tile", "x t")], MAP, t=np.array([1, 1, 4000, 4000])), "shape"),
    "window": (
        lambda: model([node("Conv", "x w", dilations=[65536, 65536])], MAP, w=W),
        "dilations is [65536, 65536]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_what_and_why(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        load(make())
    assert said in str(caught.value)


def test_all_that_is_refused_is_told_at_once_by_the_names_of_the_file() -> None:
    nodes = [helper.make_node("TopK", ["x", "k"], ["a", "b"], name="/head/TopK"),
             node("Einsum", "x", "e"), node("Add", "a e")]  # fmt: skip
    report = check(model(nodes, MAP, k=np.array([1])), 4)
    told = {op.label: op.reasons for op in report.ops if op.reasons}
    assert set(told) == {"TopK /head/TopK", "Einsum e"}
    assert "let the program pick" in told["TopK /head/TopK"][0]


def test_several_inputs_are_named() -> None:
    made = onnx.load_model_from_string(model([node("Add", "x z")], MAP))
    made.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, MAP))
    with pytest.raises(SeveralInputs, match="2 inputs"):
        load(made.SerializeToString())


@pytest.mark.parametrize(("opset", "scales"), [(18, 2), (21, 4)])
@pytest.mark.parametrize("shape", [MAP, (1, 4, 12)])
def test_groups_have_scales_until_opset_21_channels_since(
    opset: int, scales: int, shape: tuple[int, ...]
) -> None:
    one = node("GroupNormalization", "x sc bi", num_groups=2, epsilon=1e-3)
    constants: dict[str, Any] = {"sc": floats(scales), "bi": floats(scales)}
    agrees(model([one], shape, opset=opset, **constants))
    wrong = {name: np.concatenate([value, value]) for name, value in constants.items()}
    with pytest.raises(CompileError, match="the scale has"):
        OnnxSource(model([one], shape, opset=opset, **wrong)).graph()  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [0, 3, -2])
def test_groups_divide_the_channels(groups: int) -> None:
    one = node("GroupNormalization", "x s s", num_groups=groups)
    with pytest.raises(CompileError, match=f"num_groups is {groups} for 4 channels"):
        OnnxSource(model([one], MAP, opset=21, s=floats(4))).graph()


def test_int8_models_keep_the_scales_of_the_file() -> None:
    """QuantizeLinear and DequantizeLinear around a convolution, as onnxruntime writes them."""
    source = OnnxSource(quantised())
    graph = source.graph()
    (conv,) = graph.ops
    assert isinstance(conv, ops.Conv)
    np.testing.assert_allclose(conv.weights, CODES * 0.02, rtol=1e-6)
    assert graph.input.range == pytest.approx((-5.0, 7.75))
    assert conv.output.range == pytest.approx((-131 * 0.25, 124 * 0.25))


def test_onnx_is_imported_only_for_onnx(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom k210tasks import compiler\n"
        "from tests.compiler.tflite_builder import Net\n"
        "net = Net((1, 8, 8, 3))\nout = net.unary('RELU', net.input)\n"
        "compiler.check(net.build(out), 4)\n"
        "from k210tasks.reference.float_model import Reference\nReference(net.build(out))\n"
        "print([m for m in ('onnx', 'onnxruntime') if m in sys.modules])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_form_is_told_by_the_bytes() -> None:
    assert is_onnx(model([node("Relu", "x")], MAP))
    assert not is_onnx(b"\x08\0\0\0TFL3")
    with pytest.raises(BadModel, match="ONNX"):
        opened(b"\x08\x07garbage")


@pytest.mark.parametrize("value", [2, 127, -1])
def test_a_flag_is_0_or_1(value: int) -> None:
    """Of another number onnxruntime makes a shape that is none of ours."""
    pool = node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=value)
    found = OnnxSource(model([pool], MAP)).found
    assert [r for _, reasons in found for r in reasons] == [
        f"ceil_mode is {value}, 0 or 1 is possible"
    ]


HUGE = np.full((3, 3, 1, 1), 3e38, np.float32)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Conv", "x w", "a"), node("Conv", "a w")], {"w": HUGE}),
        ([node("Mul", "a a", "w"), node("Conv", "x w")], {"a": HUGE}),
        (
            [node("BatchNormalization", "x s b m v")],
            {"s": HUGE[:, 0, 0, 0], "b": np.zeros(3, np.float32), "m": np.zeros(3, np.float32),
             "v": np.full(3, 1e-30, np.float32)},
        ),
        (
            [node("DequantizeLinear", "q s", "w"), node("Conv", "x w")],
            {"q": np.full((3, 3, 1, 1), 100, np.int8), "s": np.float32(3e38)},
        ),
    ],
)  # fmt: skip
def test_numbers_beyond_float32_are_refused_in_words(nodes: Any, constants: Any) -> None:
    """numpy's own warnings would be met on the terminal."""
    data = model(nodes, [1, 3, 8, 8], **constants)
    for kmodel in (3, 4):
        report = check(data, kmodel)
        said = [*report.problems, *(reason for op in report.ops for reason in op.reasons)]
        assert said
