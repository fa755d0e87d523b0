"""What the compiler takes from a TFLite file: a table whose docstrings are the messages.

A constraint is a function of a :class:`SourceOp`; it returns None where it holds, else
the fact that breaks it. Its docstring is what the user reads, in messages and in
SUPPORTED_OPS.md, which is generated from this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from k210tasks.compiler.operands import OPERANDS, misfit
from k210tasks.compiler.shape_laws import MOST_VALUES, Misfit, follows
from k210tasks.compiler.source_ops import SourceOp

Constraint = Callable[[SourceOp], "str | None"]


def static_shapes(op: SourceOp) -> str | None:
    """Every tensor has a fixed shape: convert the model with a batch of 1 and a fixed size."""
    for t in (*op.inputs, *op.outputs):
        if t and (t.dynamic or 0 in t.shape):
            return f"tensor {t.name!r} has shape {list(t.shape)}"
    return None


def batch_of_one(op: SourceOp) -> str | None:
    """Feature maps have a batch of 1."""
    if op.name in ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"):
        return None  # refused for what they are
    for t in (*op.inputs, *op.outputs):
        if t and t.value is None and len(t.shape) == 4 and t.shape[0] != 1:
            return f"tensor {t.name!r} has shape {list(t.shape)}"
    return None


def rank_up_to_4(op: SourceOp) -> str | None:
    """Tensors have at most four dimensions."""
    for t in (*op.inputs, *op.outputs):
        if t and len(t.shape) > 4:
            return f"tensor {t.name!r} has shape {list(t.shape)}"
    return None


def dense_storage(op: SourceOp) -> str | None:
    """Weights are stored densely: convert the model without sparsity."""
    for t in op.inputs:
        if t and t.sparse:
            return f"tensor {t.name!r} is stored sparsely"
    return None


def known_types(op: SourceOp) -> str | None:
    """Tensors hold float32, float16 constants, or int8/uint8 with a scale."""
    allowed = {"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL"}
    for t in (*op.inputs, *op.outputs):
        if t is None:
            continue
        if t.type not in allowed:
            return f"tensor {t.name!r} holds {t.type}; give the float model"
        if t.type in ("INT32", "INT64", "BOOL", "FLOAT16") and t.value is None:
            return f"tensor {t.name!r} holds computed {t.type} values"
        if t.type in ("INT8", "UINT8") and t.scale is None:
            return f"tensor {t.name!r} holds {t.type} without a scale"
    return None


def fitting_operands(op: SourceOp) -> str | None:
    """It has the inputs and outputs of its kind, each of the type that belongs there."""
    return misfit(op)


def finite_values(op: SourceOp) -> str | None:
    """Weights and settings are finite numbers; what PADV2 adds may be minus infinity."""
    for number, t in enumerate(op.inputs):
        if t is None:
            continue
        if t.value is not None and t.value.dtype.kind == "f" and not np.isfinite(t.value).all():
            if (op.name, number) == ("PADV2", 2) and np.isneginf(t.value).all():
                continue
            return f"constant {t.name!r} holds infinity or values that are no number"
        if t.scale is not None and not np.isfinite(np.float32(t.scale.max() * 65536)):
            return f"tensor {t.name!r} has a scale of {t.scale.max():g}"
    for name, value in op.options.items():
        if isinstance(value, float) and not np.isfinite(value):
            return f"{name} is {value}"
    return None


def room_for_tensors(op: SourceOp) -> str | None:
    for t in (*op.inputs, *op.outputs):
        if t and t.value is None and math.prod(t.shape) > MOST_VALUES:
            return f"tensor {t.name!r} has shape {list(t.shape)}"
    return None


room_for_tensors.__doc__ = (
    f"A tensor has at most {MOST_VALUES} values: the K210 has no more memory than 8 MiB."
)


def fitting_shapes(op: SourceOp) -> str | None:
    """Its shapes and settings belong together."""
    try:
        wanted = follows(op)
    except Misfit as error:
        return str(error)
    for t, shape in zip(op.outputs, wanted or (), strict=False):
        if t.shape != shape:
            return f"tensor {t.name!r} has shape {list(t.shape)}, from the inputs {list(shape)}"
    return None


def feature_map(op: SourceOp) -> str | None:
    """The input is a feature map of four dimensions."""
    return None if len(op.shape()) == 4 else f"the input has shape {list(op.shape())}"


def constant_weights(op: SourceOp) -> str | None:
    """Weights are constants."""
    return None if op.const(1) is not None else "the weights are computed"


def constant_bias(op: SourceOp) -> str | None:
    """The bias is a constant."""
    which = OPERANDS[op.name].split().index("b?")
    bias = op.inputs[which] if len(op.inputs) > which else None
    return "the bias is computed" if bias is not None and bias.value is None else None


def constant_parameters(op: SourceOp) -> str | None:
    """Shapes, paddings, axes and sizes are constants."""
    first = 1 if op.name != "SPLIT" else 0
    for i, t in enumerate(op.inputs):
        if i >= first and t and t.value is None and not (op.name == "SPLIT" and i == 1):
            return f"tensor {t.name!r} is computed"
    return None


def one_activation(op: SourceOp) -> str | None:
    """A fused activation is NONE, RELU, RELU6 or RELU_N1_TO_1."""
    name = op.options.get("activation", "NONE")
    return None if name in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1") else f"it is {name}"


def no_groups(op: SourceOp) -> str | None:
    """The groups divide the channels."""
    w = op.const(1)
    if w is None or w.ndim != 4:
        return None
    channels = op.shape()[-1]
    return f"{channels} channels, kernel {list(w.shape)}" if channels % w.shape[3] else None


def same_resize(op: SourceOp) -> str | None:
    """align_corners and half_pixel_centers are not both set."""
    both = op.options.get("align_corners") and op.options.get("half_pixel_centers")
    return "both are set" if both else None


def plain_slice(op: SourceOp) -> str | None:
    """Strides are positive; no new axis, no ellipsis, no ends counted from the beginnings."""
    strides = op.const(3)
    if strides is not None and (strides <= 0).any():
        return f"strides are {strides.tolist()}"
    if op.options.get("new_axis_mask") or op.options.get("ellipsis_mask"):
        return "the slice adds an axis or has an ellipsis"
    if op.options.get("offset"):
        return "its ends are counted from its beginnings"
    return None


def plain_norm(op: SourceOp) -> str | None:
    """It has no fused activation."""
    name = op.options.get("activation", "NONE")
    return None if name == "NONE" else f"it is {name}"


def rows_of_weights(op: SourceOp) -> str | None:
    """Weights are stored row by row."""
    format_ = op.options.get("format", "DEFAULT")
    return None if format_ == "DEFAULT" else f"they are {format_}"


def constant_slopes(op: SourceOp) -> str | None:
    """Slopes are constants."""
    return "the slopes are computed" if op.const(1) is None else None


def plain_matmul(op: SourceOp) -> str | None:
    """The second factor is a constant matrix."""
    w = op.const(1)
    if w is None:
        return "it is computed"
    return None if w.ndim == 2 else f"it has shape {list(w.shape)}"


def one_exponent(op: SourceOp) -> str | None:
    """The exponent is a constant: 2, 1, 0.5, -0.5 or -1."""
    value = op.const(1)
    if value is None or value.size != 1:
        return "it is computed" if value is None else f"it has shape {list(value.shape)}"
    fine = float(value.ravel()[0]) in (2, 1, 0.5, -0.5, -1)
    return None if fine else f"it is {float(value.ravel()[0]):g}"


def no_batch_dims(op: SourceOp) -> str | None:
    """No batch dimensions."""
    count = op.options.get("batch_dims", 0)
    return f"there are {count}" if count else None


def around_convolution(op: SourceOp) -> str | None:
    """Only around one unpadded convolution, which is then a dilated one."""
    return (
        "nothing to join it with was found; convert the model with a batch of 1, "
        "keras.Input(shape, batch_size=1), and the converter joins them"
    )


EVERY: tuple[Constraint, ...] = (
    static_shapes,
    known_types,
    dense_storage,
    batch_of_one,
    fitting_operands,
    finite_values,
    room_for_tensors,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table: newest version known, constraints, where it runs."""

    version: int
    constraints: tuple[Constraint, ...] = ()
    v3: str = "CPU"
    v4: str = "CPU"


_KPU = "KPU"
_TABLE = "KPU, in the activation table of the layer before"
_TABLE_ROW = Rule(9, (), _TABLE, _TABLE)
_CPU4 = Rule(9, (), "folded into KPU layers, or needs kmodel 4", "folded into KPU layers, or CPU")
_MOVE = Rule(9, (constant_parameters,), "removed where it can be, or needs kmodel 4", "CPU")

#: TFLite op -> what is taken. Versions beyond the known one are refused by name.
RULES: dict[str, Rule] = {
    "CONV_2D": Rule(
        9, (feature_map, constant_weights, constant_bias, no_groups, one_activation), _KPU, _KPU
    ),
    "DEPTHWISE_CONV_2D": Rule(
        8, (feature_map, constant_weights, constant_bias, one_activation), _KPU, _KPU
    ),
    "TRANSPOSE_CONV": Rule(
        5, (constant_weights, constant_bias, one_activation), "needs kmodel 4", "CPU"
    ),
    "FULLY_CONNECTED": Rule(
        14,
        (constant_weights, constant_bias, one_activation, rows_of_weights),
        "KPU, or CPU if small",
        "KPU, or CPU if small",
    ),
    "BATCH_MATMUL": Rule(4, (plain_matmul,), "KPU, or CPU if small", "KPU, or CPU if small"),
    "AVERAGE_POOL_2D": Rule(4, (feature_map, one_activation), "KPU or CPU", "KPU or CPU"),
    "MAX_POOL_2D": Rule(4, (feature_map, one_activation), "KPU or CPU", "KPU or CPU"),
    "MEAN": Rule(3, (constant_parameters,), "CPU, over whole maps", "CPU"),
    "SUM": Rule(3, (constant_parameters,), "needs kmodel 4", "CPU"),
    "REDUCE_MAX": Rule(3, (constant_parameters,), "needs kmodel 4", "CPU"),
    "REDUCE_MIN": Rule(3, (constant_parameters,), "needs kmodel 4", "CPU"),
    "ADD": Rule(6, (one_activation,), "KPU or CPU", "KPU or CPU"),
    "SUB": Rule(6, (one_activation,), "KPU, or needs kmodel 4", "KPU or CPU"),
    "MUL": Rule(7, (one_activation,), "KPU, or needs kmodel 4", "folded into KPU layers, or CPU"),
    "DIV": Rule(3, (one_activation,), "folded into KPU layers, or needs kmodel 4", "CPU"),
    "MINIMUM": Rule(4, (), "folded into KPU layers, or needs kmodel 4", "CPU"),
    "MAXIMUM": Rule(4, (), "folded into KPU layers, or needs kmodel 4", "CPU"),
    "SQUARED_DIFFERENCE": Rule(2, (), "needs kmodel 4", "CPU"),
    "CONCATENATION": Rule(4, (one_activation,), "KPU or CPU", "KPU or CPU"),
    "PAD": Rule(5, (constant_parameters,), "KPU or CPU, around maps", "KPU or CPU"),
    "PADV2": Rule(
        5,
        (constant_parameters,),
        "KPU before a max pool, or needs kmodel 4",
        "KPU before a max pool, or CPU",
    ),
    "RESHAPE": Rule(1, (constant_parameters,), "CPU or nothing", "CPU or nothing"),
    "SQUEEZE": Rule(2, (), "CPU or nothing", "CPU or nothing"),
    "EXPAND_DIMS": Rule(1, (constant_parameters,), "CPU or nothing", "CPU or nothing"),
    "TRANSPOSE": _MOVE,
    "SLICE": _MOVE,
    "STRIDED_SLICE": Rule(8, (constant_parameters, plain_slice), _MOVE.v3, _MOVE.v4),
    "GATHER": Rule(4, (constant_parameters, no_batch_dims), _MOVE.v3, "KPU or CPU"),
    "PACK": Rule(4, (), _MOVE.v3, "CPU"),
    "UNPACK": Rule(4, (), _MOVE.v3, "CPU"),
    "TILE": Rule(3, (constant_parameters,), _MOVE.v3, "CPU"),
    "MIRROR_PAD": Rule(3, (constant_parameters,), "needs kmodel 4", "CPU"),
    "SPACE_TO_DEPTH": Rule(2, (feature_map,), _KPU, _KPU),
    "DEPTH_TO_SPACE": Rule(2, (feature_map,), "needs kmodel 4", "CPU"),
    "SPACE_TO_BATCH_ND": Rule(4, (around_convolution,), "nothing", "nothing"),
    "BATCH_TO_SPACE_ND": Rule(4, (around_convolution,), "nothing", "nothing"),
    "ADD_N": Rule(1, (), "KPU or CPU", "KPU or CPU"),
    "POW": Rule(1, (one_exponent,), _CPU4.v3, _CPU4.v4),
    "SPLIT": Rule(5, (constant_parameters,), _MOVE.v3, _MOVE.v4),
    "SPLIT_V": Rule(2, (constant_parameters,), _MOVE.v3, _MOVE.v4),
    "SOFTMAX": Rule(3, (), "CPU", "CPU"),
    "L2_NORMALIZATION": Rule(2, (plain_norm,), "CPU, of one vector", "CPU"),
    "RESIZE_NEAREST_NEIGHBOR": Rule(4, (feature_map, constant_parameters), "CPU", "CPU"),
    "RESIZE_BILINEAR": Rule(
        4, (feature_map, constant_parameters, same_resize), "needs kmodel 4", "CPU"
    ),
    "RELU": _TABLE_ROW,
    "RELU6": _TABLE_ROW,
    "RELU_N1_TO_1": _TABLE_ROW,
    "RELU_0_TO_1": _TABLE_ROW,
    "LEAKY_RELU": _TABLE_ROW,
    "PRELU": Rule(1, (constant_slopes,), _TABLE, _TABLE),
    "ELU": _TABLE_ROW,
    "GELU": _TABLE_ROW,
    "HARD_SWISH": _TABLE_ROW,
    "LOGISTIC": Rule(9, (), f"{_TABLE}; of a vector on the CPU", f"{_TABLE}, or CPU"),
    "TANH": _TABLE_ROW,
    "ABS": _CPU4,
    "NEG": _CPU4,
    "CEIL": _CPU4,
    "FLOOR": _CPU4,
    "ROUND": _CPU4,
    "EXP": _CPU4,
    "LOG": _CPU4,
    "SQRT": _CPU4,
    "RSQRT": _CPU4,
    "SIN": _CPU4,
    "COS": _CPU4,
    "SQUARE": _CPU4,
    "QUANTIZE": Rule(4, (), "nothing", "nothing"),
    "DEQUANTIZE": Rule(6, (), "nothing", "nothing"),
}


#: ops whose tensors may have more than four dimensions
ANY_RANK = frozenset({
    "CONCATENATION", "DEQUANTIZE", "EXPAND_DIMS", "PACK", "QUANTIZE", "RESHAPE", "SQUEEZE", "TILE",
    "TRANSPOSE",
})  # fmt: skip


_FREEZE = (
    "the weights are kept in variables: convert with TFLiteConverter.from_keras_model or "
    "from_saved_model, or let k210 convert do it"
)
_LEAVE_OUT = "end the model before it and do this on the board, with the outputs"
_RECURRENT = "the K210 has no recurrent layers: use convolutions along the time axis"
_FUSED_LOOP = f"{_RECURRENT}, or give the Keras layer unroll=True and convert again"
_LOOP = (
    "it is a loop, as Keras writes LSTM, GRU and SimpleRNN: give the layer unroll=True and convert "
    "again, or use convolutions along the time axis"
)

#: what to do about ops that people meet though none of them is taken
REMEDIES: dict[str, str] = {
    "VAR_HANDLE": _FREEZE,
    "READ_VARIABLE": _FREEZE,
    "ASSIGN_VARIABLE": _FREEZE,
    **dict.fromkeys(("ARG_MAX", "ARG_MIN", "TOPK_V2", "NON_MAX_SUPPRESSION_V4",
                     "NON_MAX_SUPPRESSION_V5", "custom op TFLite_Detection_PostProcess"),
                    _LEAVE_OUT),
    **dict.fromkeys(("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM",
                     "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN"),
                    _FUSED_LOOP),
    "WHILE": _LOOP,
}  # fmt: skip


def violations(op: SourceOp) -> list[str]:
    """Every sentence that says why ``op`` is not taken; empty where it is."""
    rule = RULES.get(op.name)
    if rule is None:
        remedy = REMEDIES.get(op.name)
        return ["this op is not supported" + (f"; {remedy}" if remedy else "")]
    if op.version > rule.version:
        return [f"version {op.version} of this op is not known, only up to {rule.version}"]
    found = []
    own = rule.constraints if op.name in ANY_RANK else (rank_up_to_4, *rule.constraints)
    for constraint in (*EVERY, *own):
        if fact := constraint(op):
            found.append(f"{(constraint.__doc__ or '').rstrip('.')} ({fact})")
            if constraint in (*EVERY, rank_up_to_4, feature_map):
                break
    if not found and (fact := fitting_shapes(op)):
        found.append(f"{(fitting_shapes.__doc__ or '').rstrip('.')} ({fact})")
    return found
