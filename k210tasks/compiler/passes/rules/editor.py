"""A graph under edit, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable

from k210tasks.compiler.ir import Graph, Op, Tensor


class Editor:
    """A graph under edit, with who writes and who reads each tensor."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.refresh()

    def refresh(self) -> None:
        self.producers = self.graph.producers()
        self.consumers = self.graph.consumers()
        self.kept = set(self.graph.outputs)

    def before(self, tensor: Tensor) -> Op | None:
        return self.producers.get(tensor)

    def only_reader(self, tensor: Tensor) -> bool:
        """Whether a single op reads ``tensor`` and no output is it."""
        return len(self.consumers.get(tensor, ())) == 1 and tensor not in self.kept

    def insert_before(self, op: Op, new: Op) -> None:
        self.graph.ops.insert(self.graph.ops.index(op), new)

    def put(self, new: Op, instead_of: Op) -> bool:
        """Let ``new`` compute what an op did, in its place; True, as rules end with it."""
        new.outputs, new.origin = instead_of.outputs, instead_of.origin
        self.graph.ops[self.graph.ops.index(instead_of)] = new
        return True

    def remove(self, op: Op) -> None:
        self.graph.ops.remove(op)

    def absorb(self, op: Op, into: Op) -> None:
        """Take ``op`` out: ``into``, before it, computes what it did and writes its output."""
        into.outputs = [op.output]
        into.origin += op.origin
        self.remove(op)

    def drop(self, op: Op) -> None:
        """Take ``op`` out: its readers read its input."""
        out = op.output
        if out in self.kept and op.input.source is None and op.input.value is None:
            op.input.source = out.source
        self.graph.replace(out, op.input)
        self.remove(op)


Rule = Callable[[Editor, Op], bool]
