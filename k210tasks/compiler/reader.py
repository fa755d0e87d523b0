"""TFLite to the compiler's graph: one function a kind of op, nothing optimised here."""

from __future__ import annotations

from k210tasks.compiler.constraints import violations
from k210tasks.compiler.ir import Graph
from k210tasks.compiler.problems import BadModel, CompileError
from k210tasks.compiler.reading import elementwise, layers, moves
from k210tasks.compiler.reading.state import Handler, Reader
from k210tasks.compiler.source import Source
from k210tasks.compiler.source_ops import SourceOp

HANDLERS: dict[str, Handler] = {
    **layers.HANDLERS,
    **elementwise.HANDLERS,
    **moves.HANDLERS,
}


MOST_LINES = 20  # of an error that names ops; `k210 check` names all


def _several(names: list[str]) -> str:
    """A few names as they are, of many the first and how many there are."""
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} others"


class UnsupportedOps(CompileError):
    """Every op of the model that is not taken, each with its reasons."""

    def __init__(self, found: list[tuple[SourceOp, list[str]]]):
        self.found = found
        same: dict[tuple[str, str], list[str]] = {}
        for op, reasons in found:
            for reason in reasons:
                same.setdefault((op.name, reason), []).append(f"#{op.index}")
        lines = [f"{name} {_several(at)}: {reason}" for (name, reason), at in same.items()]
        if len(lines) > MOST_LINES:
            lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} more"]
        super().__init__("the model cannot be compiled:\n  " + "\n  ".join(lines))


class SeveralInputs(CompileError):
    """No K210 runtime feeds more than one input."""

    def __init__(self, names: list[str]):
        super().__init__(
            f"the model has {len(names)} inputs ({', '.join(names)}); "
            "K210 runtimes feed exactly one: join them into one tensor and split it in the model"
        )


def load(tflite: bytes | Source) -> Graph:
    """The graph of a TFLite file (or what was read of it); all unsupported ops are named at once.

    Raises :class:`BadModel`, :class:`SeveralInputs` or :class:`UnsupportedOps`.
    """
    source = tflite if isinstance(tflite, Source) else Source(tflite)
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
