"""Fold and fuse, in float: the same function in fewer ops.

A rule looks at one op and either rewrites the graph and returns True, or returns False.
Rules run until none applies. What each does is its docstring.
"""

from __future__ import annotations

from k210tasks.compiler.ir import Graph
from k210tasks.compiler.ops import Map, Reshape, Resize, Slice, Transpose
from k210tasks.compiler.passes.bounds import through
from k210tasks.compiler.passes.rules import fusing, moving, values
from k210tasks.compiler.passes.rules.editor import Editor, Rule

RULES: tuple[Rule, ...] = (
    values.constants_per_image,
    values.fold_constants,
    values.binary_with_scalar,
    values.joined_functions,
    fusing.binary_with_channels,
    values.empty_map,
    values.affine_into_weights,
    values.map_after,
    values.map_over_moves,
    fusing.scaling_after_conv,
    fusing.scaling_before_conv,
    fusing.scaling_after_dense,
    fusing.scaling_before_dense,
    moving.pad_after_pad,
    fusing.pad_before_conv,
    fusing.pad_before_max_pool,
    moving.transposes,
    moving.reshapes,
    moving.dense_takes_any_order,
    fusing.whole_map_conv,
    fusing.whole_map_mean,
    fusing.groups_as_one,
    moving.concat_of_one,
    moving.recognised_moves,
    fusing.selection_before_conv,
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
_MOVING = (Reshape, Transpose, Slice, Resize)


def _hand_on_ranges(graph: Graph) -> None:
    """Let what only moves values, or is a function of them, have the range that follows from
    theirs: a quantised file tells it of its own tensors only."""
    for op in graph.ops:
        if isinstance(op, Map) and op.output.range is None and op.input.range is not None:
            op.output.range = through(op.fn, *op.input.range)
        elif isinstance(op, _MOVING) and op.output.range is None:
            op.output.range = op.input.range
