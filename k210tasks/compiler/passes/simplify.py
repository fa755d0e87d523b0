"""Fold and fuse, in float: the same function in fewer ops.

A rule looks at one op and either rewrites the graph and returns True, or returns False.
Rules run until none applies. What each does is its docstring.
"""

from __future__ import annotations

from k210tasks.compiler.ir import Graph
from k210tasks.compiler.passes.bounds import through
from k210tasks.compiler.passes.rules import layers, moves, values
from k210tasks.compiler.passes.rules.editor import Editor, Rule

RULES: tuple[Rule, ...] = (
    values.constants_per_image,
    values.fold_constants,
    values.binary_with_scalar,
    values.joined_functions,
    layers.binary_with_channels,
    values.empty_map,
    values.affine_into_weights,
    values.map_after,
    values.map_over_moves,
    layers.scaling_after_conv,
    layers.scaling_before_conv,
    layers.scaling_after_dense,
    layers.scaling_before_dense,
    moves.pad_after_pad,
    layers.pad_before_conv,
    moves.transposes,
    moves.reshapes,
    moves.dense_takes_any_order,
    layers.whole_map_conv,
    layers.whole_map_mean,
    layers.groups_as_one,
    moves.concat_of_one,
    moves.recognised_moves,
    layers.selection_before_conv,
)


def simplify(graph: Graph) -> Graph:
    """Apply the rules until none does anything; edits ``graph`` and returns it."""
    editor = Editor(graph)
    changed = True
    while changed:
        changed = False
        for op in list(graph.ops):
            if op not in graph.ops:
                continue
            for rule in RULES:
                if rule(editor, op):
                    changed = True
                    editor.refresh()
                    break
        graph.sort()
        editor.refresh()
    _hand_on_ranges(graph)
    return graph


#: kinds whose values are among those of their input
_MOVING = {"reshape", "transpose", "slice", "resize"}


def _hand_on_ranges(graph: Graph) -> None:
    """Let what only moves values, or is a function of them, have the range that follows from
    theirs: a quantised file tells it of its own tensors only."""
    for op in graph.ops:
        if op.kind == "map" and op.output.range is None and op.input.range is not None:
            op.output.range = through(op.attrs["fn"], *op.input.range)
        elif op.kind in _MOVING and op.output.range is None:
            op.output.range = op.input.range
