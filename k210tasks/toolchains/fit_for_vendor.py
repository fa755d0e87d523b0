"""What is looked at in a ``.tflite`` before a vendor's compiler gets it.

Those of the K210 take float models only, and some end in a segmentation fault, or worse
in a wrong kmodel, when they are given another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k210tasks.tflite_verifier import DamagedTflite, verify
from k210tasks.toolchains.errors import BadRequest


class QuantisedModel(BadRequest):
    """A model whose numbers were already made integers."""

    def __init__(self, path: Path, tensor: str, kind: str):
        super().__init__(
            f"{path} is quantised: its tensor {tensor} is {kind}. Give the float model, converted "
            "without optimisations; the kmodel compiler quantises it itself"
        )


def require_float(tflite: Path) -> None:
    """Raise :class:`QuantisedModel` for a model with quantised tensors, whatever else it is."""
    from k210tasks import tflite_schema as schema

    names = schema.members("TensorType")
    integers = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}
    try:
        graph = _graph(tflite)
    except BadRequest:
        return  # for the compiler to judge
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        scales = tensor.Quantization()
        if tensor.Type() in integers and scales is not None and scales.ScaleLength():
            name = (tensor.Name() or b"").decode("utf-8", "replace")
            raise QuantisedModel(tflite, name, names[tensor.Type()].lower())


def input_shape(tflite: Path) -> list[int]:
    """The shape of a ``.tflite``'s only input, batch first."""
    graph = _graph(tflite)
    if (count := graph.InputsLength()) != 1:
        raise BadRequest(f"{tflite} has {count} inputs; K210 runtimes feed exactly one")
    tensor = graph.Tensors(graph.Inputs(0))
    return [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]


def _graph(tflite: Path) -> Any:
    """The graph of a file that can be followed; raises :class:`BadRequest` for another."""
    from k210tasks import tflite_schema

    data = tflite.read_bytes()
    try:
        verify(data)
    except DamagedTflite as error:
        raise BadRequest(f"{tflite}: {error}") from None
    return tflite_schema.Model.GetRootAsModel(data, 0).Subgraphs(0)
