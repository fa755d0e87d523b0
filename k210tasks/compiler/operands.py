"""What each op of a TFLite file is given and gives, as a table: how many tensors, of which kind."""

from __future__ import annotations

from k210tasks.compiler.source_ops import SourceOp, SourceTensor

#: op -> its inputs in order. ``x``: real numbers, or codes of such; ``w``: the same, constants
#: among them; ``b``: a bias, which may be whole numbers with a scale; ``i``: whole numbers.
#: ``?``: may be left out, with all behind it; ``+``: one or more.
OPERANDS: dict[str, str] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), "x w b?"),
    "TRANSPOSE_CONV": "i w x b?",
    **dict.fromkeys(("BATCH_MATMUL", "PRELU", "POW"), "x w"),
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"), "x x"
    ),
    **dict.fromkeys(("CONCATENATION", "PACK", "ADD_N"), "x+"),
    **dict.fromkeys(("RESHAPE", "EXPAND_DIMS"), "x i?"),
    **dict.fromkeys(
        (
            "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "PAD", "MIRROR_PAD", "TRANSPOSE", "GATHER",
            "TILE", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR",
        ),
        "x i",
    ),
    "PADV2": "x i w",
    **dict.fromkeys(("SLICE", "SPLIT_V", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), "x i i"),
    "STRIDED_SLICE": "x i i i",
    "SPLIT": "i x",
    **dict.fromkeys(
        (
            "AVERAGE_POOL_2D", "MAX_POOL_2D", "SQUEEZE", "UNPACK", "SPACE_TO_DEPTH",
            "DEPTH_TO_SPACE", "SOFTMAX", "L2_NORMALIZATION", "RELU", "RELU6", "RELU_N1_TO_1",
            "RELU_0_TO_1", "LEAKY_RELU", "ELU", "GELU", "HARD_SWISH", "LOGISTIC", "TANH", "ABS",
            "NEG", "CEIL", "FLOOR", "ROUND", "EXP", "LOG", "SQRT", "RSQRT", "SIN", "COS", "SQUARE",
            "QUANTIZE", "DEQUANTIZE",
        ),
        "x",
    ),
}  # fmt: skip

#: ops of any number of outputs; all others have one
SEVERAL = frozenset({"SPLIT", "SPLIT_V", "UNPACK"})
#: ops that say nothing without their settings
NEEDS_SETTINGS = frozenset({
    "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "AVERAGE_POOL_2D", "MAX_POOL_2D",
    "CONCATENATION", "PACK", "UNPACK", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "MIRROR_PAD",
    "LEAKY_RELU", "SOFTMAX", "SPLIT", "SPLIT_V",
})  # fmt: skip

_REAL = frozenset({"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT16"})
_WHOLE = frozenset({"INT32", "INT64"})


def misfit(op: SourceOp) -> str | None:
    """What is wrong with the inputs and outputs of ``op``; None where they are of its kind."""
    words = OPERANDS[op.name].split()
    if len(words) == 1 and words[0].endswith("+"):
        words = [words[0][:-1]] * max(1, len(op.inputs))
    least = sum(not word.endswith("?") for word in words)
    if not least <= len(op.inputs) <= len(words):
        wanted = str(least) if least == len(words) else f"{least} to {len(words)}"
        return f"it has {_count(len(op.inputs), 'input')}, not {wanted}"
    if not op.outputs or (len(op.outputs) > 1 and op.name not in SEVERAL):
        return f"it has {_count(len(op.outputs), 'output')}"
    if op.name in NEEDS_SETTINGS and not op.options:
        return "its settings are left out"
    for number, (word, t) in enumerate(zip(words, op.inputs, strict=False)):
        if t is None:
            if not word.endswith("?"):
                return f"input {number} is left out"
        elif not _belongs(word[0], t):
            kind = "whole" if word[0] == "i" else "real"
            return f"input {number}, {t.name!r}, holds {t.type} where {kind} numbers belong"
    for t in op.outputs:
        if t.type not in _REAL:
            return f"output {t.name!r} holds {t.type} where real numbers belong"
    return None


def _belongs(kind: str, t: SourceTensor) -> bool:
    if kind == "i":
        return t.type in _WHOLE
    return t.type in _REAL or (kind == "b" and t.type in _WHOLE and t.scale is not None)


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'s' * (n != 1)}"
