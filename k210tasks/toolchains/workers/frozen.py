"""Frozen TensorFlow 1 graphs: reading them and finding what goes in and what comes out."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from serve import Refused
from signatures import (
    Port,
    fixed_shape,
    listed,
    plain,
    unknown,
)
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

FED = ("Placeholder", "PlaceholderWithDefault", "PlaceholderV2")
#: never the result of a model, though nothing may read them
SINKS = {"Const", "NoOp", "Assert", "Print", "PrintV2", "Placeholder", "PlaceholderWithDefault"}
VARIABLES = {"Variable", "VariableV2", "VarHandleOp", "ReadVariableOp"}


def load_graph(source: str, kind: str) -> Any:
    """The GraphDef of a ``.pb`` or ``.pbtxt``."""
    graph = tf.compat.v1.GraphDef()
    try:
        with open(source, "rb") as file:
            data = file.read()
        if kind == "pbtxt":
            text_format.Parse(data.decode("utf-8"), graph)
        else:
            graph.ParseFromString(data)
        why = "" if graph.node else "it has no nodes"
    except OSError as error:
        raise Refused("it cannot be read: %s" % (error.strerror or error)) from error
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        why = str(error)
    if not why:
        return graph
    if kind == "pb" and _is_saved_model(data):
        raise Refused(
            "it is part of a SavedModel, not a frozen graph; give the folder that it lies in"
        )
    raise Refused("it is not a frozen TensorFlow graph (a serialised GraphDef): %s" % why)


def _is_saved_model(data: bytes) -> bool:
    saved = SavedModel()
    try:
        saved.ParseFromString(data)
    except DecodeError:
        return False
    return bool(saved.meta_graphs)


def prepare(
    graph: Any, inputs: dict[str, list[int]] | None, outputs: list[str] | None
) -> tuple[Any, dict[str, list[int]], list[str]]:
    """A copy of ``graph`` with fixed input shapes, the inputs with shapes, and the outputs."""
    nodes = {n.name: n for n in graph.node}
    if not outputs:
        _refuse_variables(graph.node)
    ends = _outputs(graph, nodes, outputs)
    given: dict[str, Any] = {plain(k): list(v) for k, v in (inputs or {}).items()}
    fed = [_port(n, graph) for n in graph.node if n.op in FED]
    for name in given:
        if name not in nodes:
            raise unknown("input", name, list(nodes), fed)
    above = _ancestors(nodes, ends, set(given))
    _refuse_variables([n for n in graph.node if n.name in above])
    needed = [n.name for n in graph.node if n.name in above and n.op == "Placeholder"]
    if not given:
        needed = needed or [p.name for p in fed if p.name in above]
        if not needed:
            raise Refused(
                "the outputs %s depend on no input; the graph has the inputs:%s"
                % (", ".join(ends), listed(fed))
            )
        if len(needed) > 1:
            raise Refused(
                "the outputs %s need %d inputs, and a K210 model has one; export the graph for "
                "inference, or name under inputs: one inner node that they need alone. They are:%s"
                % (", ".join(ends), len(needed), listed([p for p in fed if p.name in needed]))
            )
        given = {needed[0]: None}
    missing = [n for n in needed if n not in given]
    if missing:
        raise Refused(
            "the outputs %s also need the input %s, which inputs: does not name; it has:%s"
            % (", ".join(ends), ", ".join(missing), listed(fed))
        )
    unused = [n for n in given if n not in above]
    if unused:
        raise Refused(
            "the outputs %s do not depend on the input %s; its candidates are:%s"
            % (", ".join(ends), ", ".join(unused), listed(fed))
        )
    shapes = {n: fixed_shape(_port(nodes[n], graph), given[n]) for n in given}
    return _with_inputs(graph, shapes, above), shapes, ends


def _refuse_variables(nodes: Any) -> None:
    for node in nodes:
        if node.op in VARIABLES:
            raise Refused(
                "the graph is not frozen: %s is a variable; freeze it "
                "(convert_variables_to_constants) and give the result" % node.name
            )


def _port(node: Any, graph: Any) -> Port:
    shape = node.attr["shape"].shape if "shape" in node.attr else None
    # TensorFlow before 1.0 wrote an unknown shape as that of a scalar
    old = graph.versions.producer < 24
    if shape is None or shape.unknown_rank or (old and not shape.dim):
        dims = None
    else:
        dims = tuple(None if d.size < 0 else d.size for d in shape.dim)
    kind = node.attr["dtype"].type or node.attr["T"].type
    return Port(node.name, dims, tf.as_dtype(kind) if kind else None)


def _name(reference: str) -> str:
    """The node that an input string such as ``^a/b`` or ``a/b:1`` names."""
    return reference.lstrip("^").split(":")[0]


def _outputs(graph: Any, nodes: dict[str, Any], outputs: list[str] | None) -> list[str]:
    read = {_name(i) for n in graph.node for i in n.input}
    ends = [n.name for n in graph.node if n.name not in read and n.op not in SINKS]

    def candidates() -> list[Port]:
        shapes = _static_shapes(graph)
        return [Port.of(name, shapes.get(name)) for name in ends]

    if outputs:
        for name in outputs:
            if _name(name) not in nodes:
                raise unknown("output", name, list(nodes), candidates())
        return [plain(name) for name in outputs]
    if len(ends) != 1:
        raise Refused(
            "it has %d possible outputs; name those you want under outputs: out of:%s"
            % (len(ends), listed(candidates()))
        )
    return ends


def _static_shapes(graph: Any) -> dict[str, Any]:
    """The shape of every node's first output as TensorFlow infers it; none if it cannot."""
    try:
        with tf.Graph().as_default() as own:
            tf.import_graph_def(graph, name="")
    except (ValueError, KeyError, tf.errors.OpError):
        return {}
    return {o.name: o.outputs[0].shape for o in own.get_operations() if o.outputs}


def _ancestors(nodes: dict[str, Any], ends: list[str], stop: set[str]) -> set[str]:
    """Every node the ``ends`` need, not looking above the nodes in ``stop``."""
    seen: set[str] = set()
    todo = [_name(e) for e in ends]
    while todo:
        name = todo.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        if name not in stop:
            todo += [_name(i) for i in nodes[name].input]
    return seen


def _with_inputs(graph: Any, shapes: dict[str, list[int]], above: set[str]) -> Any:
    """Only what the outputs need, each input a placeholder of its fixed shape."""
    result = tf.compat.v1.GraphDef()
    result.versions.CopyFrom(graph.versions)
    result.library.CopyFrom(graph.library)
    for node in graph.node:
        if node.name not in above:
            continue
        copy = result.node.add()
        if node.name not in shapes:
            copy.CopyFrom(node)
            if "_output_shapes" in copy.attr:
                del copy.attr["_output_shapes"]
            continue
        kind = node.attr["dtype"].type or node.attr["T"].type or tf.float32.as_datatype_enum
        copy.name, copy.op = node.name, "Placeholder"
        copy.attr["dtype"].type = kind
        for size in shapes[node.name]:
            copy.attr["shape"].shape.dim.add().size = size
    return result
