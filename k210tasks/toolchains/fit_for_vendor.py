"""What is looked at in a ``.tflite`` before a vendor's compiler gets it.

Those of the K210 take float models only, and some end in a segmentation fault, or worse
in a wrong kmodel, when they are given another.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from k210tasks.toolchains.errors import BadRequest

#: whatever the generated accessors stumble over in bytes that are no flatbuffer
_DAMAGE = (struct.error, IndexError, AttributeError, TypeError, ValueError, OverflowError)


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
        graph = _graph(tflite.read_bytes())
        for index in range(graph.TensorsLength()):
            tensor = graph.Tensors(index)
            scales = tensor.Quantization()
            if tensor.Type() in integers and scales is not None and scales.ScaleLength():
                raise QuantisedModel(tflite, tensor.Name().decode(), names[tensor.Type()].lower())
    except _DAMAGE:
        return  # for the compiler to judge


def input_shape(tflite: Path) -> list[int]:
    """The shape of a ``.tflite``'s only input, batch first."""
    data = tflite.read_bytes()
    if data[4:8] != b"TFL3":
        raise BadRequest(f"{tflite} is not a TFLite file")
    try:
        graph = _graph(data)
        count = graph.InputsLength()
        tensor = graph.Tensors(graph.Inputs(0)) if count == 1 else None
        shape = (
            [] if tensor is None else [int(tensor.Shape(i)) for i in range(tensor.ShapeLength())]
        )
    except _DAMAGE:
        raise BadRequest(f"{tflite} is a damaged TFLite file") from None
    if count != 1:
        raise BadRequest(f"{tflite} has {count} inputs; K210 runtimes feed exactly one")
    return shape


def _graph(data: bytes) -> Any:
    from k210tasks import tflite_schema

    return tflite_schema.Model.GetRootAsModel(data, 0).Subgraphs(0)
