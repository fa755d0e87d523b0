"""A model's file to the compiler's graph; of TFLite, one function a kind of op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from k210tasks.compiler.constraints import violations
from k210tasks.compiler.formats import is_onnx
from k210tasks.compiler.ir import Graph
from k210tasks.compiler.problems import BadModel, SeveralInputs, UnsupportedOps
from k210tasks.compiler.reading.state import Handler, Reader
from k210tasks.compiler.reading.tflite import elementwise, layers, moves
from k210tasks.compiler.source import Source, source_of

if TYPE_CHECKING:
    from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource

#: a model's file taken apart
Model: TypeAlias = "Source | OnnxSource"

HANDLERS: dict[str, Handler] = {
    **layers.HANDLERS,
    **elementwise.HANDLERS,
    **moves.HANDLERS,
}


def opened(
    model: bytes | Model,
    sizes: Mapping[str, Sequence[int]] | None = None,
    external: Callable[[str], bytes] | None = None,
) -> Model:
    """A model's file taken apart, by what its bytes are.

    ``sizes`` and ``external`` are for an ONNX model (:class:`OnnxSource`). Raises
    :class:`BadModel`, for ONNX also what :func:`k210tasks.compiler.reading.onnx.file.parse` does.
    """
    if not isinstance(model, bytes):
        return model
    if is_onnx(model):
        from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource

        return OnnxSource(model, sizes, external)
    return source_of(model)


def load(model: bytes | Model) -> Graph:
    """The graph of a model's file (or what was read of it); all unsupported ops are named at once.

    Raises :class:`BadModel`, :class:`SeveralInputs` or :class:`UnsupportedOps`.
    """
    source = opened(model)
    if not isinstance(source, Source):
        source.one_sample()
        return source.graph()
    if len(source.inputs) != 1:
        raise SeveralInputs([t.name for t in source.inputs])
    found = [(op, reasons) for op in source.ops if (reasons := violations(op))]
    if found:
        raise UnsupportedOps(found)
    return _graph(source)


def _graph(source: Source) -> Graph:
    """The graph, every op of the file being supported."""
    start = source.inputs[0]
    if start.dynamic:
        raise BadModel(
            f"input {start.name!r} has no fixed shape; convert the model with a fixed one"
        )
    if source.unfixed:
        raise BadModel(
            f"output {source.unfixed[0]!r} has no fixed shape; convert the model with a fixed one"
        )
    if start.shape[:1] != (1,):
        raise BadModel(f"input {start.name!r} has shape {list(start.shape)}; the batch must be 1")
    reader = Reader()
    fed = reader.values[start.index] = reader.like(start)
    for op in source.ops:
        reader.label = op.label
        try:
            HANDLERS[op.name](reader, op)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise BadModel(f"{op.label} is malformed ({type(error).__name__}: {error})") from error
    graph = Graph([fed], [reader.get(t) for t in source.outputs], reader.ops)
    graph.sort()
    return graph
