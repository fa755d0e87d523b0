"""What a float model takes and gives, read from its file without running anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.bounded import read_bounded
from k210tasks.compiler.formats import is_onnx
from k210tasks.engine.job import Job
from k210tasks.errors import K210Error
from k210tasks.manifest.model import EXTERNAL
from k210tasks.tflite_verifier import DamagedTflite, verify

if TYPE_CHECKING:
    from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
    from k210tasks.reference.float_model import Given
    from k210tasks.steps.settings import Sizes


class UnusableModel(K210Error):
    """A float model that no step can work with."""

    def __init__(self, shown: str, why: str) -> None:
        super().__init__(f"{shown}: {why}")


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: ``shape`` batch first, channels last. ``planar``: that of the file,
    where it has channels first."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # in TFLite's words, in lower case: "float32", "int8", …
    planar: tuple[int, ...] | None = None


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
        UnusableModel: no TFLite file, damaged, several inputs, an open shape, a batch.
    """
    try:
        verify(tflite)
    except DamagedTflite as error:
        raise UnusableModel(shown, str(error)) from None
    inputs, outputs = _ports(tflite)
    if len(inputs) != 1:
        names = ", ".join(p.name for p in inputs) or "none"
        raise UnusableModel(
            shown,
            f"the model has {len(inputs)} inputs ({names}); K210 runtimes feed exactly one: "
            "join them into one tensor and split it in the model",
        )
    if not outputs:
        raise UnusableModel(shown, "the model has no output")
    for port in (*inputs, *outputs):
        if any(n <= 0 for n in port.shape):
            sizes = ", ".join("?" if n < 0 else str(n) for n in port.shape)
            raise UnusableModel(
                shown,
                f"tensor {port.name} has no fixed shape: [{sizes}]; convert the model with one",
            )
    shape = inputs[0].shape
    if len(shape) > 1 and shape[0] != 1:
        raise UnusableModel(
            shown,
            f"input {inputs[0].name} has a batch of {shape[0]}: {list(shape)}; a K210 runs one "
            "sample at a time, convert the model with a batch of 1",
        )
    return Signature(inputs[0], tuple(outputs))


def require_float(signature: Signature, shown: str, compiler: str) -> None:
    """Refuse a quantised model where the compiler quantises by itself."""
    for port in (signature.input, *signature.outputs):
        if port.dtype != "float32":
            raise UnusableModel(
                shown,
                f"tensor {port.name} is {port.dtype}; {compiler} quantises by itself, "
                "give the float model",
            )


def model_of(job: Job, sizes: Sizes | None) -> tuple[Given, Signature]:
    """The float model of a job, and its signature."""
    path = job.file("tflite")
    values = job.file("external") if "external" in job.inputs else None
    return read_model(path, path.as_posix(), sizes, values)


def read_model(
    path: Path, shown: str, sizes: Sizes | None = None, values: Path | None = None
) -> tuple[Given, Signature]:
    """The float model, as compiler and reference take it, and its signature.

    ``sizes``: of an ONNX model, where it leaves some open. Its values may lie in a file of the
    same name with ``.data`` behind it, which is read at ``values`` if that is given.
    """
    try:
        data = read_bounded(path)
    except OSError as error:
        raise UnusableModel(shown, error.strerror or str(error)) from None
    if not is_onnx(data):
        return data, read_signature(data, shown)
    from k210tasks.compiler.problems import CompileError
    from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource

    try:
        source = OnnxSource(data, sizes, beside(path, values))
        source.require()
        source.one_sample()
    except CompileError as error:
        raise UnusableModel(shown, str(error)) from error
    return source, _of_onnx(source)


def beside(path: str | Path, values: Path | None = None) -> Callable[[str], bytes]:
    """What reads the values of an ONNX model that lie in the file beside it, or in ``values``."""

    @cache
    def external(location: str) -> bytes:
        if location != Path(path).name + EXTERNAL:
            raise FileNotFoundError(location)
        return read_bounded(values or Path(path).with_name(location))

    return external


def _of_onnx(source: OnnxSource) -> Signature:
    given, *_ = source.inputs
    planar = source.file.shape if source.channels_first else None
    kind = "float32" if not source.codes else "int8"
    outputs = tuple(Port(p.name, p.shape, kind) for p in source.outputs)
    return Signature(Port(given.name, given.shape, kind, planar), outputs)


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
