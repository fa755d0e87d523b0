"""ONNX's own tests of its ops: each computed as it says, or refused with a reason."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from k210tasks.compiler import executor, forms
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.problems import CompileError
from k210tasks.compiler.reading.onnx import file
from k210tasks.compiler.reading.onnx.building import Building
from k210tasks.compiler.reading.onnx.file import NEWEST
from k210tasks.compiler.reading.onnx.folding import FOLDS, fold
from k210tasks.compiler.reading.onnx.onnx_rules import RULES
from k210tasks.compiler.reading.onnx.onnx_source import OnnxSource

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its cases overflow on purpose
    from onnx.backend.test.loader import load_model_tests

ROOT = Path(__file__).parents[2]
KNOWN = {*RULES, "Constant", "Shape", "Size"}


def fed(model: Any, arrays: list[np.ndarray], wanted: list[np.ndarray], which: int) -> str:
    """ "right", "wrong" or why it is refused, with input ``which`` fed and the others constant."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    for opset in one.opset_import:
        opset.version = min(opset.version, NEWEST)
    for k, array in enumerate(arrays):
        if k != which:
            one.graph.initializer.append(numpy_helper.from_array(array, one.graph.input[k].name))
    x = arrays[which]
    try:
        source = OnnxSource(one.SerializeToString(), {one.graph.input[which].name: x.shape})
        graph = source.graph()
    except CompileError as error:
        return str(error)
    forms.check(graph, "read", forms.FLOAT)
    given = source.of_port(source.inputs[0]).of_file(x)
    given = given.transpose(0, 3, 1, 2) if given.ndim == 4 else given.reshape(graph.input.shape)
    got = executor.outputs(graph, given)
    for y, port, real in zip(got, source.outputs, wanted, strict=True):
        shown = y.transpose(0, 2, 3, 1) if y.ndim == 4 else y
        mine = source.of_port(port).to_file(shown).reshape(real.shape)
        if not np.allclose(mine, real, atol=1e-4, rtol=1e-4, equal_nan=True):
            return "wrong"
    return "right"


def _plain(values: Any) -> list[np.ndarray] | None:
    """Arrays of numbers, of at most four dimensions; None where one is something else."""
    found = [np.asarray(v) for v in values if isinstance(v, (np.ndarray, np.generic))]
    if len(found) != len(values) or any(a.dtype.kind not in "fiub" or a.ndim > 4 for a in found):
        return None
    return found


def test_none_is_wrong_and_the_share_is_what_the_page_says() -> None:
    tally: Counter[str] = Counter()
    wrong = []
    for case in load_model_tests(kind="node"):
        assert case.model is not None
        assert case.data_sets is not None
        if not all(n.op_type in KNOWN for n in case.model.graph.node):
            continue
        arrays, wanted = (_plain(values) for values in case.data_sets[0])
        if arrays is None or wanted is None or any(y.dtype != np.float32 for y in wanted):
            continue
        floats = [k for k, a in enumerate(arrays) if a.dtype == np.float32 and a.size and a.ndim]
        if not floats:
            continue
        found = [fed(case.model, arrays, wanted, k) for k in floats]
        if "wrong" in found:
            wrong.append(case.name)
        tally["right" if "right" in found else "refused"] += 1
    assert not wrong
    page = (ROOT / "SUPPORTED_OPS.md").read_text("utf-8")
    said = re.search(r"(\d+) of (\d+) are computed\s+as ONNX says, (\d+) are refused", page)
    assert said is not None
    print(dict(tally))
    # Later versions of onnx bring more cases; none of those that were there may be lost.
    assert tally["right"] >= int(said[1]), (dict(tally), said.groups())
    assert int(said[1]) + int(said[3]) == int(said[2])


@np.errstate(all="ignore")
def test_what_is_folded_while_reading_is_what_onnx_says() -> None:
    """The same cases with every input constant, for the ops that are computed then."""
    folded, refused, wrong = 0, 0, []
    for case in load_model_tests(kind="node"):
        assert case.model is not None
        assert case.data_sets is not None
        nodes = list(case.model.graph.node)
        if len(nodes) != 1 or nodes[0].op_type not in FOLDS or len(nodes[0].output) != 1:
            continue
        arrays, wanted = (_plain(values) for values in case.data_sets[0])
        names = [name for name in nodes[0].input if name]
        if arrays is None or wanted is None or len(arrays) != len(names):
            continue
        constants = dict(zip((i.name for i in case.model.graph.input), arrays, strict=True))
        opset = min(case.model.opset_import[0].version, NEWEST)
        node = file._node(0, nodes[0], {"ai.onnx": opset}, None)
        r = Building(constants, {}, set(), Tensor("x", (1,)))
        try:
            assert fold(r, node)
        except CompileError:
            refused += 1
            continue
        folded += 1
        found = r.constants[node.outputs[0]]
        same = found.shape == wanted[0].shape
        if not same or not np.allclose(found, wanted[0], atol=1e-5, rtol=1e-5, equal_nan=True):
            wrong.append(case.name)
    assert not wrong
    assert folded > 150
    assert refused < folded / 5
