"""What the compiler takes from an ONNX file: a table whose docstrings are the messages.

A constraint is a function of what is read so far and a node; it returns None where it holds, else
the fact that breaks it. Its docstring is what the user reads, in messages and in SUPPORTED_OPS.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k210tasks.compiler.reading.onnx import (
    in_codes,
    pointwise,
    reducing,
    resizing,
    scaled,
    shaping,
    windowed,
)
from k210tasks.compiler.reading.onnx.building import Building
from k210tasks.compiler.reading.onnx.nodes import Node

Handler = Callable[[Building, Node], None]
Constraint = Callable[[Building, Node], "str | None"]


def for_inference(r: Building, node: Node) -> str | None:
    """It is exported for inference: model.eval() before torch.onnx.export."""
    if node.whole("training_mode", 0):
        return "training_mode is set"
    if node.op == "BatchNormalization" and any(node.outputs[1:]):
        return f"it puts out {', '.join(filter(None, node.outputs[1:]))} too"
    mode = r.const(node, 2)
    if node.op == "Dropout" and mode is not None and mode.size and bool(mode.ravel()[0]):
        return "training_mode is set"
    return None


def one_output(r: Building, node: Node) -> str | None:
    """Only its first output is read."""
    more = [name for name in node.outputs[1:] if name in r.wanted]
    return f"{', '.join(more)} is read, too" if more else None


def all_channels(r: Building, node: Node) -> str | None:
    """Every channel has its own statistics."""
    return None if node.whole("spatial", 1) else "spatial is 0"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: what reads it, numbers of inputs, constraints, where it runs."""

    handler: Handler
    inputs: tuple[int, int]
    constraints: tuple[Constraint, ...]
    v3: str
    v4: str


_KPU = "KPU"
_TABLE = "KPU, in the activation table of the layer before"
_MOVED = "removed where it can be, or needs kmodel 4"
_NOTHING = "CPU or nothing"
_FOLDED = "folded into KPU layers, or needs kmodel 4"

_HANDLERS: dict[str, Handler] = {
    **windowed.HANDLERS,
    **resizing.HANDLERS,
    **pointwise.HANDLERS,
    **reducing.HANDLERS,
    **shaping.HANDLERS,
    **scaled.HANDLERS,
    **in_codes.HANDLERS,
}


def _rows(
    ops: str,
    inputs: tuple[int, int],
    constraints: tuple[Constraint, ...] = (),
    v3: str = "needs kmodel 4",
    v4: str = "CPU",
) -> dict[str, Rule]:
    """The same row for several ops."""
    return {op: Rule(_HANDLERS[op], inputs, constraints, v3, v4) for op in ops.split()}


#: ONNX op -> what is taken
RULES: dict[str, Rule] = {
    **_rows("Conv", (2, 3), (), _KPU, _KPU),
    **_rows("ConvTranspose", (2, 3)),
    **_rows("Gemm", (2, 3), (), "KPU, or CPU if small", "KPU, or CPU if small"),
    **_rows("MatMul", (2, 2), (), "KPU, or CPU if small", "KPU, or CPU if small"),
    **_rows("BatchNormalization", (5, 5), (for_inference, all_channels), _FOLDED, "folded, or CPU"),
    **_rows("InstanceNormalization GroupNormalization", (3, 3)),
    **_rows("LayerNormalization", (2, 3), (one_output,)),
    **_rows("LpNormalization", (1, 1)),
    **_rows("MaxPool", (1, 1), (one_output,), "KPU or CPU", "KPU or CPU"),
    **_rows("AveragePool", (1, 1), (), "KPU or CPU", "KPU or CPU"),
    **_rows("GlobalAveragePool", (1, 1), (), "CPU", "CPU"),
    **_rows("GlobalMaxPool", (1, 1)),
    **_rows("Resize", (1, 4), (), "CPU, nearest by whole factors; else needs kmodel 4", "CPU"),
    **_rows("Upsample", (1, 2), (), "CPU, nearest by whole factors; else needs kmodel 4", "CPU"),
    **_rows("DepthToSpace SpaceToDepth", (1, 1), (), _MOVED, "KPU or CPU"),
    **_rows(" ".join(pointwise.FUNCTIONS), (1, 1), (), _TABLE, _TABLE),
    **_rows("Clip", (1, 3), (), _TABLE, _TABLE),
    **_rows("Pow PRelu", (2, 2), (), _FOLDED, _TABLE),
    **_rows("Add Sub Mul Div", (2, 2), (), "KPU, or needs kmodel 4", "KPU or CPU"),
    **_rows("Min Max Sum Mean", (1, 64), (), _FOLDED, "KPU or CPU"),
    **_rows("ReduceMean", (1, 2), (), "CPU, over whole maps", "CPU"),
    **_rows(
        "ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum "
        "ReduceLogSumExp",
        (1, 2),
    ),
    **_rows("Softmax", (1, 1), (), "CPU, of one vector", "CPU"),
    **_rows("LogSoftmax", (1, 1)),
    **_rows("Concat", (1, 1024), (), "KPU or CPU", "KPU or CPU"),
    **_rows("Split", (1, 2), (), _MOVED, "CPU"),
    **_rows("Slice", (1, 5), (), _MOVED, "CPU"),
    **_rows("Gather", (2, 2), (), _MOVED, "KPU or CPU"),
    **_rows("Reshape Expand Tile", (1, 2), (), _MOVED, _NOTHING),
    **_rows("Flatten", (1, 1), (), _NOTHING, _NOTHING),
    **_rows("Squeeze Unsqueeze", (1, 2), (), _NOTHING, _NOTHING),
    **_rows("Transpose", (1, 1), (), _MOVED, "CPU or nothing"),
    **_rows("Pad", (1, 4), (), "KPU or CPU, around maps", "KPU or CPU"),
    **_rows("Identity Cast", (1, 1), (), "nothing", "nothing"),
    **_rows("Dropout", (1, 3), (for_inference, one_output), "nothing", "nothing"),
    **_rows(
        "QuantizeLinear DequantizeLinear", (2, 3), (), "its scale is kept", "its scale is kept"
    ),
    **_rows("QLinearConv", (8, 9), (), _KPU, _KPU),
    **_rows("QLinearMatMul", (8, 8), (), "KPU, or CPU if small", "KPU, or CPU if small"),
}

#: op of onnxruntime's own, which its quantised models have -> what is taken
MICROSOFT: dict[str, Rule] = {
    **_rows("QLinearAdd QLinearMul", (7, 8), (), "KPU, or needs kmodel 4", "KPU or CPU"),
    **_rows("QLinearSigmoid QLinearLeakyRelu", (4, 5), (), _TABLE, _TABLE),
    **_rows("QLinearConcat", (5, 1024), (), "KPU or CPU", "KPU or CPU"),
    **_rows("QLinearAveragePool QLinearGlobalAveragePool", (4, 5), (), "KPU or CPU", "KPU or CPU"),
    **_rows("QLinearSoftmax", (4, 5), (), "CPU, of one vector", "CPU"),
    **_rows("QGemm", (6, 9), (), "KPU, or CPU if small", "KPU, or CPU if small"),
}


def rule_of(node: Node) -> Rule | None:
    """The row of a node's op; None where it is not taken."""
    return {"": RULES, in_codes.MICROSOFT: MICROSOFT}.get(node.domain, {}).get(node.op)


#: ops of tensors of more than four dimensions too: they move values, or take each by itself
ANY_RANK = frozenset({
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Clip",
    *pointwise.FUNCTIONS,
})  # fmt: skip

#: ops that are refused for what they are -> what to do about it
REMEDIES: dict[str, str] = {
    "LSTM": "loops over time are not carried; export the steps unrolled",
    "GRU": "loops over time are not carried; export the steps unrolled",
    "RNN": "loops over time are not carried; export the steps unrolled",
    "Loop": "loops are not carried; export with fixed sizes, without control flow",
    "If": "branches are not carried; export with fixed sizes, without control flow",
    "Scan": "loops are not carried; export with fixed sizes, without control flow",
    "ArgMax": "end the model before it, and let the program pick the largest score",
    "ArgMin": "end the model before it, and let the program pick the smallest score",
    "TopK": "end the model before it, and let the program pick the largest scores",
    "NonMaxSuppression": "end the model before it; boxes are chosen by the program",
    "Attention": "products of two maps are not carried by the layers of the K210",
    "Einsum": "write it as MatMul with a constant, or as a convolution",
    "GridSample": "maps are sampled in fixed places only: use Resize",
    "DynamicQuantizeLinear": "quantise the model statically, or give the float model",
    "MatMulInteger": "quantise the model statically (QDQ), or give the float model",
    "ConvInteger": "quantise the model statically (QDQ), or give the float model",
}


_FLAGS = {
    "allowzero", "ceil_mode", "count_include_pad", "exclude_outside", "keepdims",
    "noop_with_empty_axes", "transA", "transB",
}  # fmt: skip


def _known_attributes(node: Node) -> set[str] | None:
    """Those of the op in the file's opset; what a later one gave it would go unread. None: that
    opset does not have the op."""
    if node.domain:
        return in_codes.attributes_of(node.op)
    from onnx import defs

    try:
        return set(defs.get_schema(node.op, max_inclusive_version=node.opset).attributes)
    except defs.SchemaError:
        return None


def violations(r: Building, node: Node) -> list[str]:
    """Why the node is not taken, before anything is made of it."""
    rule = rule_of(node)
    if rule is None:
        what = f"this op of the domain {node.domain} is" if node.domain else "this op is"
        remedy = REMEDIES.get(node.op)
        return [f"{what} not supported" + (f"; {remedy}" if remedy else "")]
    least, most = rule.inputs
    count = len(node.inputs)
    if not least <= count <= most or not all(node.inputs[:1]):
        return [f"it has {count} inputs, from {least} to {most} belong to it"]
    if any(not n for n in node.inputs[:least]):
        return [f"input {node.inputs.index('') + 1} is left out"]
    if node.op not in ANY_RANK:
        for name in filter(None, node.inputs):
            if len(r.shape(name)) > 4 and name not in r.constants:
                return [f"input {name!r} has shape {list(r.shape(name))}, at most four dimensions"]
    if not node.outputs or not any(node.outputs):
        return ["it has no output"]
    known = _known_attributes(node)
    if known is None:
        return [f"opset {node.opset} has no such op"]
    if odd := sorted(node.attributes.keys() - known):
        return [f"{odd[0]} is no attribute of it in opset {node.opset}"]
    for name in _FLAGS & node.attributes.keys():
        if node.attributes[name] not in (0, 1):  # what is neither, onnxruntime takes for 0
            return [f"{name} is {node.attributes[name]!r}, 0 or 1 is possible"]
    found = []
    for constraint in rule.constraints:
        if (fact := constraint(r, node)) is not None:
            found.append(f"{(constraint.__doc__ or '').rstrip('.')} ({fact})")
    return found
