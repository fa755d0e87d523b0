"""What a ``.tflite`` takes and gives, read from its header without running anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k210tasks.errors import K210Error
from k210tasks.tflite_verifier import DamagedTflite, verify


class UnusableTflite(K210Error):
    """A ``.tflite`` that no step can work with."""

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"{shown}: {why}")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: ``shape`` as the file declares it, batch first, channels last."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # in TFLite's words, in lower case: "float32", "int8", …


@dataclass(frozen=True, slots=True)
class Signature:
    """The one input and the outputs of a model, in the file's order."""

    input: Port
    outputs: tuple[Port, ...]

    @property
    def is_float(self) -> bool:
        return all(p.dtype == "float32" for p in (self.input, *self.outputs))


def read_signature(tflite: bytes, shown: str) -> Signature:
    """The signature of a model with one input of fixed shape and a batch of 1.

    ``shown`` names the file in errors.

    Raises:
        UnusableTflite: no TFLite file, damaged, several inputs, an open shape, a batch.
    """
    try:
        verify(tflite)
    except DamagedTflite as error:
        raise UnusableTflite(shown, str(error)) from None
    inputs, outputs = _ports(tflite)
    if len(inputs) != 1:
        names = ", ".join(p.name for p in inputs) or "none"
        raise UnusableTflite(
            shown,
            f"the model has {len(inputs)} inputs ({names}); K210 runtimes feed exactly one: "
            "join them into one tensor and split it in the model",
        )
    if not outputs:
        raise UnusableTflite(shown, "the model has no output")
    for port in (*inputs, *outputs):
        if any(n <= 0 for n in port.shape):
            sizes = ", ".join("?" if n < 0 else str(n) for n in port.shape)
            raise UnusableTflite(
                shown,
                f"tensor {port.name} has no fixed shape: [{sizes}]; convert the model with one",
            )
    shape = inputs[0].shape
    if len(shape) > 1 and shape[0] != 1:
        raise UnusableTflite(
            shown,
            f"input {inputs[0].name} has a batch of {shape[0]}: {list(shape)}; a K210 runs one "
            "sample at a time, convert the model with a batch of 1",
        )
    return Signature(inputs[0], tuple(outputs))


def require_float(signature: Signature, shown: str, compiler: str) -> None:
    """Refuse a quantised model where the compiler quantises by itself."""
    for port in (signature.input, *signature.outputs):
        if port.dtype != "float32":
            raise UnusableTflite(
                shown,
                f"tensor {port.name} is {port.dtype}; {compiler} quantises by itself, "
                "give the float model",
            )


def read_model(path: Path, shown: str) -> tuple[bytes, Signature]:
    """The file's bytes and its signature."""
    try:
        tflite = path.read_bytes()
    except OSError as error:
        raise UnusableTflite(shown, error.strerror or str(error)) from None
    return tflite, read_signature(tflite, shown)


def _ports(data: bytes) -> tuple[list[Port], list[Port]]:
    from k210tasks import tflite_schema

    graph = tflite_schema.Model.GetRootAs(data, 0).Subgraphs(0)
    names = {v: k.lower() for v, k in tflite_schema.members("TensorType").items()}

    def port(index: int) -> Port:
        tensor: Any = graph.Tensors(index)
        shape = [tensor.Shape(i) for i in range(tensor.ShapeLength())]
        open_ = [tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength())]
        for axis, size in enumerate(open_):
            # An open batch is harmless: interpreters take it as the 1 of ``shape``.
            if size < 0 and axis > 0 and axis < len(shape):
                shape[axis] = size
        name = (tensor.Name() or b"").decode("utf-8", "replace")
        name = "".join(c if c.isprintable() else "\ufffd" for c in name)
        return Port(name, tuple(int(n) for n in shape), names.get(tensor.Type(), "unknown"))

    return (
        [port(graph.Inputs(i)) for i in range(graph.InputsLength())],
        [port(graph.Outputs(i)) for i in range(graph.OutputsLength())],
    )
