"""Damages ``.onnx`` files by their grammar: each must be read, compiled or refused in words.

A case changes what the parsed file says (sizes, names, ops, attributes, constants, opsets, whole
nodes), now and then bytes of it too. ``check`` is asked in the process itself, which must survive;
with ``--chain`` the float model is measured, the model compiled, simulated and compared, as
``k210 convert`` would.

    python tests/fuzz_onnx.py [--cases 20000] [--seed 0] [--chain] [--keep FOLDER]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k210tasks.compiler.reading.onnx.onnx_rules import RULES
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource
from tests import fuzzing
from tests.compiler.onnx_models import SPELLED, quantised, spelled
from tests.compiler.test_onnx_quantised import SINGLE
from tests.fuzz_tflite import built, run

WHOLE = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 8, 64, 1024, 65536, 2**20, 2**31, 2**63 - 1)
REAL = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-30, 1e30, 3e38, 0.5, 2.0)
OPS = (
    *RULES,
    "Constant",
    "Shape",
    "Range",
    "ConstantOfShape",
    "LSTM",
    "If",
    "TopK",
    "",
    "\x1b[31m",
)


def seeds() -> list[bytes]:
    """Small models, and the same with values in their own fields instead of bytes."""
    return [*map(spelled, SPELLED), quantised(), *SINGLE.values()]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """One damaged copy."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            rng.choice(_CHANGES)(rng, model)
        out = model.SerializeToString()
    except (ValueError, TypeError):  # a number that its field cannot hold
        out = data
    return fuzzing.mutate_bytes(rng, out) if rng.random() < 0.15 or out == data else out


def _names(model: Any) -> list[str]:
    found = [n for node in model.graph.node for n in (*node.input, *node.output)]
    return [*found, *(t.name for t in model.graph.initializer), "", "nowhere", "a\x1b[31mb"]


def _node(rng: random.Random, model: Any) -> None:
    nodes = model.graph.node
    if not nodes:
        return
    node = rng.choice(nodes)
    how = rng.randrange(7)
    if how == 0:
        node.op_type = rng.choice(OPS)
    elif how == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(model))
    elif how == 2:
        node.input.append(rng.choice(_names(model)))
    elif how == 3 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif how == 4 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model))
    elif how == 5:
        nodes.add().CopyFrom(node)
    else:
        del nodes[rng.randrange(len(nodes))]


def _attribute(rng: random.Random, model: Any) -> None:
    found = [a for node in model.graph.node for a in node.attribute]
    if not found:
        return
    a = rng.choice(found)
    how = rng.randrange(5)
    if how == 0 and a.ints:
        a.ints[rng.randrange(len(a.ints))] = rng.choice(WHOLE)
    elif how == 1:
        (a.ints.append if rng.random() < 0.5 or not a.ints else a.ints.remove)(
            a.ints[0] if a.ints else rng.choice(WHOLE)
        )
    elif how == 2:
        a.i, a.f = rng.choice(WHOLE), rng.choice(REAL)
    elif how == 3:
        a.s = rng.choice((b"", b"SAME_UPPER", b"linear", b"\xff\x1b[31m", b"DCR"))
    else:
        a.type = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 14))


def _constant(rng: random.Random, model: Any) -> None:
    found = model.graph.initializer
    if not found:
        return
    t = rng.choice(found)
    how = rng.randrange(6)
    if how == 0 and t.dims:
        t.dims[rng.randrange(len(t.dims))] = rng.choice(WHOLE)
    elif how == 1:
        t.dims.append(rng.choice(WHOLE))
    elif how == 2:
        t.data_type = rng.randrange(26)
    elif how == 3:
        t.raw_data = t.raw_data[: rng.randrange(len(t.raw_data) + 1)]
    elif how == 4 and len(t.raw_data) >= 4:
        at = rng.randrange(len(t.raw_data) // 4) * 4
        value = np.float32(rng.choice(REAL)).tobytes()
        t.raw_data = t.raw_data[:at] + value + t.raw_data[at + 4 :]
    else:
        t.data_location = 1
        t.external_data.add(key="location", value=rng.choice(("../x", "m.onnx.data", "", "/x")))


def _size(rng: random.Random, model: Any) -> None:
    dims: Any = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else []
    if not dims:
        return
    if rng.random() < 0.7:
        rng.choice(dims).dim_value = rng.choice(WHOLE)
    elif rng.random() < 0.5:
        rng.choice(dims).dim_param = rng.choice(("N", "", "a\x1b[31m"))
    else:
        dims.add().dim_value = rng.choice(WHOLE)


def _head(rng: random.Random, model: Any) -> None:
    how = rng.randrange(4)
    if how == 0 and model.opset_import:
        model.opset_import[0].version = rng.choice((-1, 0, 6, 7, 9, 10, 11, 17, 18, 22, 25, 99))
    elif how == 1 and model.graph.input:
        model.graph.input[0].type.tensor_type.elem_type = rng.randrange(26)
    elif how == 2 and model.graph.input:
        model.graph.input.add().CopyFrom(model.graph.input[0])
        model.graph.input[-1].name = rng.choice(_names(model))
    elif model.graph.output:
        model.graph.output[0].name = rng.choice(_names(model))


_CHANGES = (_node, _node, _attribute, _attribute, _constant, _constant, _size, _head)


def chained(data: bytes) -> str:
    source = OnnxSource(data)
    source.require()
    source.one_sample()
    return built(source, source.inputs[0].shape)


if __name__ == "__main__":
    sys.exit(run("onnx", chained, seeds(), mutate))
