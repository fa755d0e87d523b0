"""The bytes of an ``.onnx``: nodes, constants, input and outputs, with every size fixed.

Nothing here runs native code on what the file says but protobuf's parser; onnx is imported when
an ``.onnx`` is read, and not before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler.problems import BadModel, CompileError
from k210tasks.compiler.reading.onnx.nodes import Node

#: opsets whose ops are known here; what the newer of them changed is in the handlers
OLDEST, NEWEST = 7, 25
#: bytes of a constant, at most: more than any K210 could hold as codes of one byte
MOST_BYTES = 64 << 20

External = Callable[[str], bytes]
Sizes = Mapping[str, Sequence[int]]


class BadOnnx(BadModel):
    """The file is no ONNX model, or a damaged one."""

    format = "ONNX"


class OtherOpset(CompileError):
    """Exported for a version of ONNX that is not known here."""

    def __init__(self, opset: int):
        what = "newer" if opset > NEWEST else "older"
        super().__init__(
            f"the model uses ONNX opset {opset}, {what} than what is known ({OLDEST} to {NEWEST}); "
            "export it with opset_version=17"
        )


class FreeSizes(CompileError):
    """The input has dimensions that the file leaves open."""

    def __init__(self, name: str, shape: Sequence[int | str]):
        free = ", ".join(str(n) for n in shape[1:] if not isinstance(n, int))
        example = [1, *(n if isinstance(n, int) else 224 for n in shape[1:])]
        super().__init__(
            f"input {name!r} has shape [{', '.join(map(str, shape))}], and {free} is not fixed; "
            f"say which size the model gets: inputs: {{{name}: {example}}}"
        )


class OtherSizes(CompileError):
    """Sizes were given that the input cannot have."""

    def __init__(self, given: Mapping[str, Sequence[int]], name: str, shape: Sequence[int | str]):
        said = "; ".join(f"{n}: {list(s)}" for n, s in given.items())
        super().__init__(
            f"inputs says {said}, the model's input is {name!r} of shape "
            f"[{', '.join(map(str, shape))}]"
        )


class NoExternalData(CompileError):
    """Weights that lie in another file, which is not there."""

    def __init__(self, tensor: str, location: str):
        super().__init__(
            f"the values of {tensor!r} are in the file {location!r}, which must lie beside the "
            "model and be called as it is, with .data behind: MODEL.onnx.data; or export with all "
            "weights in one file (torch.onnx.export: external_data=False)"
        )


@dataclass(slots=True)
class OnnxFile:
    """``proto`` is the model with sizes fixed and external data in it, as onnxruntime may be
    given it; ``shape`` that of the one input, batch first."""

    proto: Any
    input: str
    shape: tuple[int, ...]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    others: list[str] = field(default_factory=list)  # further inputs, which nobody can feed


def parse(data: bytes, sizes: Sizes | None = None, external: External | None = None) -> OnnxFile:
    """Raises :class:`BadOnnx`, :class:`OtherOpset`, :class:`FreeSizes`, :class:`OtherSizes` or
    :class:`NoExternalData`. ``external`` gives the bytes of a file beside the model by the name
    that the model has for it; it raises OSError where it is not there."""
    import onnx
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise BadOnnx("its bytes cannot be read as one") from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise BadOnnx("it holds no graph")
    if proto.functions:
        proto = _inlined(proto)
    opsets = {_text(o.domain) or "ai.onnx": int(o.version) for o in proto.opset_import}
    opset = opsets.get("ai.onnx", 0)
    if not OLDEST <= opset <= NEWEST:
        raise OtherOpset(opset)
    graph = proto.graph
    constants = {}
    for tensor in graph.initializer:
        _fetch(tensor, external)
        constants[_text(tensor.name)] = array_of(tensor)
    inputs = [i for i in graph.input if _text(i.name) not in constants]
    if not inputs:
        raise BadOnnx("it has no input")
    nodes = [_node(k, n, opsets, external) for k, n in enumerate(graph.node)]
    _written_once([n for node in nodes for n in node.outputs], [*constants, _text(inputs[0].name)])
    shape = _fixed(inputs[0], sizes or {})
    del graph.value_info[:]  # it may tell of sizes that were open
    return OnnxFile(
        proto,
        _text(inputs[0].name),
        shape,
        [_text(o.name) for o in graph.output],
        nodes,
        constants,
        [_text(i.name) for i in inputs[1:]],
    )


def _text(name: str | bytes) -> str:
    """A name of the file, which protobuf hands out as bytes where it is no UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _inlined(proto: Any) -> Any:
    """The model without functions of its own, as exporters of recent years write them."""
    from onnx import inliner

    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:  # native code raises whatever it meets
        raise BadOnnx(f"its functions cannot be resolved ({error})") from error


def _written_once(names: list[str], given: list[str]) -> None:
    seen = set(given)
    for name in filter(None, names):
        if name in seen:
            raise BadOnnx(f"tensor {name!r} is written twice")
        seen.add(name)


def _fixed(given: Any, sizes: Sizes) -> tuple[int, ...]:
    """The shape of the input, also in the model from now on."""
    kind = given.type.tensor_type
    if kind.elem_type != 1:
        import onnx

        known = {v: k for k, v in onnx.TensorProto.DataType.items()}
        raise BadOnnx(
            f"input {given.name!r} holds {known.get(kind.elem_type, 'no tensor')}; export the "
            "model in float32, and leave what makes floats of pixels to preprocess:"
        )
    if not kind.HasField("shape") or not kind.shape.dim:
        shape: list[int | str] = []
    else:
        shape = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in kind.shape.dim]
    wanted = sizes.get(given.name)
    if sizes and (wanted is None or len(sizes) > 1 or (shape and len(wanted) != len(shape))):
        raise OtherSizes(sizes, given.name, shape)
    if wanted is not None:
        for n, (said, own) in enumerate(zip(wanted, shape or wanted, strict=True)):
            if said < 1 or (isinstance(own, int) and own != said and n):
                raise OtherSizes(sizes, given.name, shape)
        shape = list(wanted)
    if not shape:
        raise FreeSizes(given.name, ["?", "?"])
    if not isinstance(shape[0], int):
        shape[0] = 1
    if any(not isinstance(n, int) for n in shape):
        raise FreeSizes(given.name, shape)
    fixed = tuple(int(n) for n in shape)
    if len(fixed) > 4:
        raise BadOnnx(f"input {given.name!r} has shape {list(fixed)}, at most four dimensions")
    if math.prod(fixed) * 4 > MOST_BYTES:
        raise BadOnnx(f"input {given.name!r} has shape {list(fixed)}, more than any K210 holds")
    del kind.shape.dim[:]
    for n in fixed:
        kind.shape.dim.add().dim_value = n
    return fixed


def _fetch(tensor: Any, external: External | None) -> None:
    """Bring values that lie in a file beside the model into it."""
    if tensor.data_location != 1:
        return
    told = {_text(e.key): _text(e.value) for e in tensor.external_data}
    location = told.get("location", "")
    path = PurePosixPath(location)
    if not location or path.is_absolute() or ".." in path.parts or "\\" in location:
        raise BadOnnx(f"the values of {tensor.name!r} are in the file {location!r}, not beside it")
    if external is None:
        raise NoExternalData(tensor.name, location)
    try:
        data = external(location)
    except FileNotFoundError as error:
        raise NoExternalData(tensor.name, location) from error
    except OSError as error:
        raise CompileError(
            f"the values of {tensor.name!r} are in the file {location!r}, which cannot be read: "
            f"{error.strerror or error}"
        ) from error
    try:
        offset = int(told.get("offset", 0))
        length = int(told.get("length", len(data) - offset))
    except ValueError as error:
        raise BadOnnx(f"where the values of {tensor.name!r} lie is damaged") from error
    if offset < 0 or length < 0 or offset + length > len(data):
        raise BadOnnx(
            f"the values of {tensor.name!r} are bytes {offset} to {offset + length} of "
            f"{location!r}, which has {len(data)}"
        )
    tensor.raw_data = data[offset : offset + length]
    del tensor.external_data[:]
    tensor.data_location = 0


def array_of(tensor: Any) -> NDArray[Any]:
    """The values of a constant, of its shape: float32, integers or bool as they are."""
    from onnx import numpy_helper

    count = 1
    for n in tensor.dims:
        count *= max(int(n), 0)
    if count * 2 > MOST_BYTES or any(n < 0 for n in tensor.dims):
        raise BadOnnx(f"constant {tensor.name!r} has shape {list(tensor.dims)}")
    try:
        value = np.asarray(numpy_helper.to_array(tensor))
        value = value.reshape(tuple(tensor.dims))
    except Exception as error:  # it raises whatever damaged bytes lead to
        raise BadOnnx(
            f"constant {tensor.name!r} of shape {list(tensor.dims)} is damaged"
        ) from error
    if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        return np.asarray(value, object)  # refused where it is used
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _node(index: int, node: Any, opsets: Mapping[str, int], external: External | None) -> Node:
    domain = _text(node.domain) or "ai.onnx"
    attributes = {_text(a.name): _attribute(a, external) for a in node.attribute}
    return Node(
        _text(node.op_type),
        _text(node.name),
        index,
        tuple(map(_text, node.input)),
        tuple(map(_text, node.output)),
        attributes,
        opsets.get(domain, 0),
        "" if domain == "ai.onnx" else domain,
    )


def _attribute(a: Any, external: External | None) -> Any:
    """A value of plain Python; None for graphs and whatever else no op of the table has."""
    if a.type == 4:
        _fetch(a.t, external)
        return array_of(a.t)
    kinds: dict[int, Callable[[], Any]] = {
        1: lambda: float(a.f),
        2: lambda: int(a.i),
        3: lambda: a.s.decode("utf-8", "replace"),
        6: lambda: [float(x) for x in a.floats],
        7: lambda: [int(x) for x in a.ints],
        8: lambda: [s.decode("utf-8", "replace") for s in a.strings],
    }
    return kinds[a.type]() if a.type in kinds else None


def tensor_names(file: OnnxFile) -> Iterator[str]:
    """Every tensor that is not a constant of the file, the input first: their numbers."""
    yield file.input
    for node in file.nodes:
        yield from filter(None, node.outputs)
