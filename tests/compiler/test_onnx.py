"""ONNX files onto the graph: what exporters write, judged by onnxruntime; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from k210tasks.compiler import check, executor, forms, ops
from k210tasks.compiler.formats import is_onnx
from k210tasks.compiler.ir import Graph
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.problems import BadModel, CompileError, SeveralInputs
from k210tasks.compiler.reader import load, opened
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource

Node = tuple[Any, ...]
RNG = np.random.default_rng(0)


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | str],
    *outputs: str,
    opset: int = 13,
    kind: int = TensorProto.FLOAT,
    **constants: Any,
) -> bytes:
    """A model fed with ``x``; ``constants`` are its initialisers."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in outputs or ("y",)
        ],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    names = [n if n != "-" else "" for n in inputs.split()]
    return helper.make_node(op, names, output.split(), **attributes)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


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


W = floats(6, 4, 3, 3)
CONSTANTS = {
    "w": W, "b": floats(6), "d": floats(4, 1, 3, 3), "w1": floats(6, 4, 3),
    "wt": floats(4, 3, 3, 3),
    "two": np.float32(2), "half": np.float32(0.5), "one": np.float32(1), "three": np.float32(3),
    "six": np.float32(6), "zero": np.float32(0), "root": np.float32(1 / np.sqrt(2)),
    "c": floats(4, 1, 1), "m": floats(20, 8), "v": np.abs(floats(4)) + 0.1, "s": floats(4),
    "scales": np.array([1, 1, 2, 2], np.float32),
}  # fmt: skip
MAP = (1, 4, 8, 10)

#: what exporters write: nodes from x to y
SPELLED: dict[str, tuple[Sequence[int], list[Any]]] = {
    "conv with unlike pads": (MAP, [node("Conv", "x w b", pads=[0, 1, 2, 3], strides=[2, 1])]),
    "same lower": (MAP, [node("Conv", "x w", auto_pad="SAME_LOWER", strides=[2, 2])]),
    "dilated": (MAP, [node("Conv", "x w", dilations=[2, 3], pads=[2, 3, 2, 3])]),
    "depthwise": (MAP, [node("Conv", "x d", group=4, pads=[1] * 4)]),
    "one-dimensional": ((1, 4, 12), [
        node("Conv", "x w1 b", "a", pads=[2, 0]), node("Relu", "a", "r"),
        node("MaxPool", "r", "y", kernel_shape=[2], strides=[2]),
    ]),
    "one-dimensional, causal": ((1, 4, 12), [
        node("Pad", "x p", "a"), node("Conv", "a w1", "c1", dilations=[2]), node("Relu", "c1", "r"),
        node("GlobalAveragePool", "r", "g"), node("Flatten", "g"),
    ]),
    "transposed": (MAP, [
        node("ConvTranspose", "x wt", strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]),
    ]),
    "transposed in groups": (MAP, [node("ConvTranspose", "x wt", group=2, strides=[2, 2])]),
    "batch norm": (MAP, [node("Conv", "x w", "a"), node("BatchNormalization", "a b b b sq")]),
    "average with pads": (MAP, [
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    ]),
    "average up": (MAP, [
        node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1] * 4),
    ]),
    "hard swish": (MAP, [
        node("Add", "x three", "a"), node("Clip", "a zero six", "c6"), node("Mul", "x c6", "p"),
        node("Div", "p six"),
    ]),
    "mish": (MAP, [node("Softplus", "x", "a"), node("Tanh", "a", "t"), node("Mul", "x t")]),
    "gelu": (MAP, [
        node("Mul", "x root", "a"), node("Erf", "a", "e"), node("Add", "e one", "p"),
        node("Mul", "x p", "q"), node("Mul", "q half"),
    ]),
    "channel shuffle": (MAP, [
        node("Reshape", "x sh5", "a"), node("Transpose", "a", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t sh4"),
    ]),
    "pixel shuffle": ((1, 8, 3, 5), [node("DepthToSpace", "x", blocksize=2, mode="CRD")]),
    "focus": (MAP, [
        node("Slice", "x o0 big ax st", "a"), node("Slice", "x o1 big ax st", "c1"),
        node("Concat", "a c1", axis=1),
    ]),
    "flattened by its own shape": (MAP, [
        node("Shape", "x", "shp"), node("Gather", "shp i0", "n"), node("Unsqueeze", "n ax0", "n1"),
        node("Concat", "n1 minus", "to", axis=0), node("Reshape", "x to", "f"),
        node("MatMul", "f wide"),
    ]),
    "upsampled": (MAP, [
        node("Resize", "x - scales", mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"),
    ]),
    "upsampled, half pixel": (MAP, [node("Resize", "x - scales", mode="linear")]),
    "squeeze and excite": (MAP, [
        node("GlobalAveragePool", "x", "g"), node("Sigmoid", "g", "q"), node("Mul", "x q"),
    ]),
    "instance norm": (MAP, [node("InstanceNormalization", "x s s")]),
    "slopes": (MAP, [node("PRelu", "x c")]),
    "yolo head": (MAP, [
        node("Reshape", "x heads", "a"), node("Transpose", "a", "t", perm=[0, 1, 3, 4, 2]),
        node("Sigmoid", "t", "q"), node("Reshape", "q rows"),
    ]),
    "softmax of rows": (MAP, [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Reshape", "t pairs", "r"),
        node("Softmax", "r", axis=-1),
    ]),
    "matrix first": ((1, 20, 3), [node("MatMul", "mt x")]),
    "reflected": (MAP, [node("Pad", "x p2", mode="reflect")]),
    "edge": (MAP, [node("Pad", "x p2", mode="edge")]),
    "length": (MAP, [node("ReduceL2", "x", axes=[1]), ]),
    "mean of rows": ((1, 4, 12), [
        node("Conv", "x w1", "a"), node("ReduceMean", "a", "r", axes=[2], keepdims=0),
        node("Gemm", "r g6", transB=1),
    ]),
}  # fmt: skip
MORE = {
    "sq": np.abs(floats(6)) + 0.1, "p": np.array([0, 0, 4, 0, 0, 0]),
    "p2": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "sh5": np.array([1, 2, 2, 8, 10]),
    "sh4": np.array([1, 4, 8, 10]), "o0": np.array([0, 0]), "o1": np.array([1, 0]),
    "big": np.array([2**63 - 1] * 2), "ax": np.array([2, 3]), "st": np.array([2, 2]),
    "i0": np.array(0), "ax0": np.array([0]), "minus": np.array([-1]), "wide": floats(320, 7),
    "heads": np.array([1, 2, 2, 8, 10]), "rows": np.array([1, 160, 2]),
    "pairs": np.array([1, 160, 2]), "mt": floats(8, 20), "g6": floats(5, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_what_exporters_write_is_computed_as_onnxruntime_does(name: str) -> None:
    shape, nodes = SPELLED[name]
    used = {n for one in nodes for n in one.input} - {n for one in nodes for n in one.output}
    constants = {k: v for k, v in {**CONSTANTS, **MORE}.items() if k in used}
    agrees(model(nodes, shape, **constants))


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


def test_int8_models_keep_the_scales_of_the_file() -> None:
    """QuantizeLinear and DequantizeLinear around a convolution, as onnxruntime writes them."""
    codes = np.clip(np.rint(W / 0.02), -127, 127).astype(np.int8)
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "dq"),
        node("DequantizeLinear", "wq ws wz", "wd"), node("Conv", "dq wd", "c1"),
        node("QuantizeLinear", "c1 ys yz", "cq"), node("DequantizeLinear", "cq ys yz"),
    ]  # fmt: skip
    source = OnnxSource(model(
        nodes, MAP, wq=codes, ws=np.float32(0.02), wz=np.int8(0), xs=np.float32(0.05),
        xz=np.uint8(100), ys=np.float32(0.25), yz=np.int8(3),
    ))  # fmt: skip
    graph = source.graph()
    (conv,) = graph.ops
    assert isinstance(conv, ops.Conv)
    np.testing.assert_allclose(conv.weights, codes * 0.02, rtol=1e-6)
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
