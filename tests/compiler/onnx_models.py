"""Small ONNX models as exporters write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

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
    "group norm as PyTorch exports it": (MAP, [
        node("Reshape", "x groups", "a"), node("InstanceNormalization", "a o z", "i"),
        node("Reshape", "i whole", "n"), node("Mul", "n c", "m"), node("Add", "m c"),
    ]),
    "gelu as PyTorch exports it, of the input": (MAP, [
        node("Div", "x sqrt2", "a"), node("Erf", "a", "e"), node("Add", "e one", "p"),
        node("Mul", "x p", "m"), node("Mul", "m half"),
    ]),
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
    "groups": np.array([0, 2, -1]), "whole": np.array([1, 4, 8, 10]), "o": np.ones(2, np.float32),
    "z": np.zeros(2, np.float32), "sqrt2": np.float32(np.sqrt(2)),
}  # fmt: skip


def spelled(name: str) -> bytes:
    """A model of :data:`SPELLED`."""
    shape, nodes = SPELLED[name]
    used = {n for one in nodes for n in one.input} - {n for one in nodes for n in one.output}
    constants = {k: v for k, v in {**CONSTANTS, **MORE}.items() if k in used}
    return model(nodes, shape, **constants)


def quantised() -> bytes:
    """QuantizeLinear and DequantizeLinear around a convolution, as onnxruntime writes them."""
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"), node("DequantizeLinear", "q xs xz", "dq"),
        node("DequantizeLinear", "wq ws wz", "wd"), node("Conv", "dq wd", "c1"),
        node("QuantizeLinear", "c1 ys yz", "cq"), node("DequantizeLinear", "cq ys yz"),
    ]  # fmt: skip
    return model(
        nodes, MAP, wq=CODES, ws=np.float32(0.02), wz=np.int8(0), xs=np.float32(0.05),
        xz=np.uint8(100), ys=np.float32(0.25), yz=np.int8(3),
    )  # fmt: skip


#: the weights of :func:`quantised`
CODES = np.clip(np.rint(W / 0.02), -127, 127).astype(np.int8)
