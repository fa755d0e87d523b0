"""ONNX files that the tests of the chain build and sign."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def floats(*shape: int) -> np.ndarray:
    """The same for the same shape."""
    normal = np.random.default_rng(shape).normal
    return normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)


def saved(path: Path, nodes: list[onnx.NodeProto], name: str, shape: list[int | str],
          beside: bool, **constants: np.ndarray) -> None:  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    location = f"{path.name}.data"
    onnx.save(model, path, save_as_external_data=beside, location=location, size_threshold=0)


def picture_network(path: Path, *, beside: bool = True) -> None:
    saved(
        path,
        [
            helper.make_node("Conv", ["image", "w", "b"], ["a"], "/stem/conv", pads=[1] * 4),
            helper.make_node("Relu", ["a"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "g"], ["scores"], transB=1),
        ],
        "image", ["batch", 3, "height", "width"], beside,
        w=floats(8, 3, 3, 3), b=floats(8), g=floats(4, 8),
    )  # fmt: skip
