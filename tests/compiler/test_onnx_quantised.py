"""Quantised ONNX models: onnxruntime's ops on codes one by one, and whole networks that its own
quantiser made, without pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from k210tasks import compiler
from k210tasks.compiler import Options, executor
from k210tasks.compiler.problems import CompileError
from k210tasks.compiler.reading.onnx.in_codes import MICROSOFT, OPS, attributes_of
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
from k210tasks.kmodel import parse
from k210tasks.reference.metrics import snr_db
from k210tasks.simulator import Simulator
from tests.compiler.onnx_models import node

X, Y, Z = (np.float32(0.03), np.uint8(120)), (np.float32(0.05), np.uint8(131)), (0.02, -7)
MAP = (1, 6, 8, 8)


def session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options)


def single(
    op: str, inputs: str, shape: tuple[int, ...], y: tuple[Any, Any] = Y, **more: Any
) -> bytes:
    """x in codes, the op, and its output in reals. Attributes are lower case, constants upper."""
    constants = {k: np.asarray(v) for k, v in more.items() if k.isupper()}
    attributes = {k: v for k, v in more.items() if not k.isupper()}
    made = helper.make_node(
        op, [n if n != "-" else "" for n in inputs.split()], ["q"],
        domain="" if op == "QLinearMatMul" else MICROSOFT, **attributes,
    )  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x XS XZ", "c"), made, node("DequantizeLinear", "q YS YZ", "y")
    ]  # fmt: skip
    scales: list[Any] = [*X, np.float32(y[0]), y[1]]
    constants |= dict(zip(("XS", "XZ", "YS", "YZ"), map(np.asarray, scales), strict=True))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(MICROSOFT, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


RNG = np.random.default_rng(11)
WEIGHTS = RNG.integers(-127, 128, (6, 5)).astype(np.int8)
SCALES = np.linspace(0.005, 0.02, 5).astype(np.float32)
SIGNED: dict[str, Any] = {"WS": np.float32(0.01), "WZ": np.int8(0)}
CODES = RNG.integers(0, 256, MAP).astype(np.uint8)
SINGLE: dict[str, bytes] = {
    "QLinearAdd of two": single("QLinearAdd", "c XS XZ c XS XZ YS YZ", MAP),
    "QLinearAdd of a constant": single(
        "QLinearAdd", "c XS XZ A AS AZ YS YZ", MAP, (0.06, np.uint8(131)),
        A=CODES, AS=np.float32(0.01), AZ=np.uint8(99),
    ),
    "QLinearMul": single(
        "QLinearMul", "A AS AZ c XS XZ YS YZ", MAP,
        A=CODES, AS=np.float32(0.01), AZ=np.uint8(99),
    ),
    "QLinearSigmoid": single("QLinearSigmoid", "c XS XZ YS YZ", MAP, (1 / 256, np.uint8(0))),
    "QLinearLeakyRelu": single(
        "QLinearLeakyRelu", "c XS XZ YS YZ", MAP, (0.03, np.uint8(60)), alpha=0.25
    ),
    "QLinearConcat": single(
        "QLinearConcat", "YS YZ c XS XZ A AS AZ", MAP, axis=1,
        A=CODES, AS=np.float32(0.01), AZ=np.uint8(99),
    ),
    "QLinearAveragePool": single(
        "QLinearAveragePool", "c XS XZ YS YZ", MAP, kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 1, 1], count_include_pad=1,
    ),
    "QLinearGlobalAveragePool": single(
        "QLinearGlobalAveragePool", "c XS XZ YS YZ", MAP, channels_last=0
    ),
    "QLinearSoftmax": single(
        "QLinearSoftmax", "c XS XZ YS YZ", (1, 10), (1 / 256, np.uint8(0)), axis=-1, opset=13
    ),
    "QLinearSoftmax as opset 11 has it": single(
        "QLinearSoftmax", "c XS XZ YS YZ", (1, 4, 5), (1 / 256, np.uint8(0)), axis=1, opset=11
    ),
    "QGemm": single(
        "QGemm", "c XS XZ W WS WZ B YS YZ", (1, 6), W=WEIGHTS, **SIGNED,
        B=np.array([50, -900, 3000, 0, 7], np.int32),
    ),
    "QGemm turned, a scale a channel, no bias": single(
        "QGemm", "c XS XZ W WS WZ - YS YZ", (1, 6), W=WEIGHTS.T, WS=SCALES,
        WZ=np.zeros(5, np.int8), transB=1,
    ),
    "QLinearMatMul": single("QLinearMatMul", "c XS XZ W WS WZ YS YZ", (1, 6), W=WEIGHTS, **SIGNED),
    "QLinearMatMul, a scale a channel": single(
        "QLinearMatMul", "c XS XZ W WS WZ YS YZ", (1, 6), W=WEIGHTS, WS=SCALES,
        WZ=np.zeros(5, np.int8),
    ),
}  # fmt: skip


def step_of(data: bytes) -> float:
    made = onnx.load_model_from_string(data)
    return next(float(numpy_helper.to_array(t)) for t in made.graph.initializer if t.name == "YS")


@pytest.mark.parametrize("name", SINGLE)
def test_an_op_on_codes_is_the_op_on_reals_but_for_its_rounding(name: str) -> None:
    """onnxruntime's output is at most a rounding of ours away, where it is not clipped."""
    data = SINGLE[name]
    source = OnnxSource(data)
    graph = source.graph()
    step = step_of(data)
    shape = tuple(source.file.shape)
    codes = np.random.default_rng(len(name)).integers(60, 181, shape)
    x = ((codes - float(X[1])) * X[0]).astype(np.float32)
    (wanted,) = session(data).run(None, {"x": x})
    (mine,) = executor.outputs(graph, x.reshape(graph.input.shape))
    ends = graph.outputs[0].range
    assert ends is not None
    clipped = np.clip(mine.reshape(wanted.shape), *ends)
    assert np.abs(clipped - wanted).max() <= 0.75 * step
    assert np.abs(wanted - wanted.mean()).max() > 3 * step  # there is something to be wrong


def test_every_op_of_the_table_is_tested() -> None:
    assert {name.split()[0].rstrip(",") for name in SINGLE} == set(OPS)


@pytest.mark.parametrize("op", sorted(set(OPS) - {"QLinearMatMul"}))
def test_attributes_are_those_that_onnxruntime_knows(op: str) -> None:
    """Every attribute of ours is one of its own: a model with one that it does not know is refused
    by its checker when it is loaded."""
    data = next(d for name, d in SINGLE.items() if name.split()[0] == op)
    made = onnx.load_model_from_string(data)
    given = {a.name for n in made.graph.node if n.op_type == op for a in n.attribute}
    assert given <= attributes_of(op)
    made.graph.node[1].attribute.append(helper.make_attribute("strange", 1))
    with pytest.raises(CompileError, match="strange is no attribute of it"):
        compiler.load(made.SerializeToString())


@pytest.mark.parametrize(
    ("op", "change", "said"),
    [
        ("QLinearAveragePool", {"channels_last": 1}, "channels_last is 1; 0 is possible"),
        ("QLinearSoftmax", {"axis": 7}, "axis"),
        ("QLinearConcat", {"axis": 9}, "axis"),
        ("QGemm", {"transB": 5}, "transB is 5, 0 or 1 is possible"),
    ],
)
def test_settings_that_cannot_be_are_named(op: str, change: dict[str, int], said: str) -> None:
    made = onnx.load_model_from_string(next(d for n, d in SINGLE.items() if n.split()[0] == op))
    (changed,) = (n for n in made.graph.node if n.op_type == op)
    kept = [a for a in changed.attribute if a.name not in change]
    del changed.attribute[:]
    changed.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in change.items())])
    with pytest.raises(CompileError, match=f"{op} q") as caught:
        compiler.load(made.SerializeToString())
    assert said in str(caught.value)


def test_other_ops_of_the_domain_are_refused_by_name() -> None:
    made = onnx.load_model_from_string(SINGLE["QLinearSigmoid"])
    made.graph.node[1].op_type = "QLinearWhere"
    with pytest.raises(
        CompileError, match=r"this op of the domain com\.microsoft is not supported"
    ):
        compiler.load(made.SerializeToString())


def weights(*shape: int) -> np.ndarray:
    scale = 2 / np.sqrt(np.prod(shape[1:]))
    return np.random.default_rng(shape).normal(0, scale, shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """Convolutions, depthwise too, an addition, swish, a concatenation and a dense layer."""
    nodes = [
        node("Conv", "x w b", "a", pads=[1] * 4, strides=[2, 2]), node("Relu", "a", "r"),
        node("Conv", "r d", "e", pads=[1] * 4, group=8), node("Relu", "e", "f"),
        node("Conv", "f p", "g"), node("Add", "g r", "s"),
        node("MaxPool", "s", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "m q", "n", pads=[1] * 4), node("Sigmoid", "n", "ns"),
        node("Mul", "n ns", "sw"), node("Concat", "sw m", "cc", axis=1),
        node("AveragePool", "cc", "ap", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "ap", "t"), node("Flatten", "t", "u"),
        node("Gemm", "u v", "y", transB=1),
    ]  # fmt: skip
    constants = {
        "w": weights(8, 3, 3, 3), "b": weights(8, 1).ravel(), "d": weights(8, 1, 3, 3),
        "p": weights(8, 8, 1, 1), "q": weights(16, 8, 3, 3), "v": weights(5, 24),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int, seed: int) -> list[np.ndarray]:
    """Coarse ones: their means differ, and so do the answers."""
    numbers = np.random.default_rng(seed)
    coarse = numbers.uniform(-1, 1, (count, 1, 3, 4, 4)) + numbers.normal(
        0, 0.3, (count, 1, 3, 1, 1)
    )
    return list(np.clip(coarse.repeat(8, 3).repeat(8, 4), -1, 1).astype(np.float32))


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._rest = iter([{"x": p} for p in pictures(30, 1)])

    def get_next(self) -> Any:
        return next(self._rest, None)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, bool], bytes]:
    """By format, type of weights, and whether each channel has a scale of its own."""
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(network(), folder / "float.onnx")
    found = {}
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        for kind, each in (
            (QuantType.QInt8, True),
            (QuantType.QInt8, False),
            (QuantType.QUInt8, False),
        ):
            quantize_static(
                folder / "float.onnx", folder / "made.onnx", Pictures(), quant_format=form,
                per_channel=each, weight_type=kind, activation_type=QuantType.QUInt8,
            )  # fmt: skip
            found[form.name, kind.name, each] = Path(folder / "made.onnx").read_bytes()
    return found


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize(
    "key",
    [(f, *k) for f in ("QDQ", "QOperator")
     for k in (("QInt8", True), ("QInt8", False), ("QUInt8", False))],
    ids=str,
)  # fmt: skip
def test_a_network_quantised_by_onnxruntime_needs_no_pictures(
    key: tuple[str, str, bool], kmodel: Any, quantised: dict[tuple[str, str, bool], bytes]
) -> None:
    """As near to the float network as the quantised one is in onnxruntime, less 1 dB."""
    data = quantised[key]
    ops_there = {n.op_type for n in onnx.load_model_from_string(data).graph.node}
    assert ("QLinearConv" in ops_there) == (key[0] == "QOperator")
    made = compiler.compile(data, None, Options(kmodel=kmodel))
    (fed,) = OnnxSource(data).graph().inputs
    assert fed.range is not None
    low, high = fed.range
    simulator, theirs = Simulator(parse(made.kmodel)), session(data)
    real = session(network().SerializeToString())
    signal = ours = runtime = 0.0
    for x in pictures(24, 2):
        (wanted,) = real.run(None, {"x": x})
        codes = np.clip(np.rint((x[0] - low) * 255 / (high - low)), 0, 255).astype(np.uint8)
        (got,) = simulator.run(codes if kmodel == 3 else x[0])  # kmodel 4 is fed with floats
        (quant,) = theirs.run(None, {"x": x})
        signal += float((wanted**2).sum())
        ours += float(((got.ravel() - wanted.ravel()) ** 2).sum())
        runtime += float(((quant - wanted) ** 2).sum())
    assert snr_db(signal, ours) > snr_db(signal, runtime) - 1
    assert snr_db(signal, ours) > 20
