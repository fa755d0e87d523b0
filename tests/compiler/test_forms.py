"""What an op carries is checked after each pass, and every table says the same of its kinds."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from k210tasks.compiler import encode_v3, encode_v4, executor, forms, ops
from k210tasks.compiler.functions import RELU
from k210tasks.compiler.ir import Graph, Op, Tensor
from k210tasks.compiler.passes import legalise
from k210tasks.compiler.problems import PassBroke

MAP = (1, 4, 8, 8)
KERNELS, BIAS = np.ones((2, 4, 3, 3), np.float32), np.zeros(2, np.float32)


def conv(**fields: Any) -> Op:
    carried = {"weights": KERNELS, "bias": BIAS, "pads": (1, 1, 1, 1), **fields}
    return ops.Conv([Tensor("x", MAP)], [Tensor("y", (1, 2, 8, 8))], **carried)


def layer(**fields: Any) -> Op:
    carried = {"weights": KERNELS, "bias": BIAS, **fields}
    return ops.KpuConv([Tensor("x", MAP)], [Tensor("y", (1, 2, 8, 8))], **carried)


def one(kind: Any, out: tuple[int, ...] = MAP, **fields: Any) -> Op:
    op: Op = kind([Tensor("x", MAP)], [Tensor("y", out)], **fields)
    return op


def pool(**fields: Any) -> Op:
    carried = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "how": "max", **fields}
    return one(ops.Pool, (1, 4, 4, 4), **carried)


def check(op: Op) -> None:
    kinds = {**forms.FLOAT, **forms.DEVICE}
    forms.check(Graph(op.inputs, op.outputs, [op]), "a test", kinds)


def test_a_broken_op_is_named_by_its_kind_and_tensors() -> None:
    op = conv(weights=KERNELS.astype(np.float64))
    assert repr(op) == "conv [x[1, 4, 8, 8]] -> [y[1, 2, 8, 8]]"  # and not by its weights
    with pytest.raises(PassBroke, match=re.escape(repr(op))):
        check(op)


FINE = [
    conv(), layer(), pool(), one(ops.Map, fn=(("clamp", 0.0, math.inf), ("logistic",))),
    conv(pads=(0, 0, 0, 0), weights=KERNELS[:, :, :1, :1]), layer(fn=(("leaky", 0.1),)),
    one(ops.Map, fn=(("join", "mul", (), (("tanh",),)),)), one(ops.Softmax, beta=1.0, axis=1),
    one(ops.Quantize, clamp=(0.0, 6.0)), one(ops.Transpose, (1, 8, 8, 4), perm=(0, 2, 3, 1)),
    one(ops.Slice, (1, 4, 4, 4), begin=(0, 0, 1, 0), strides=(1, 1, 2, 2)),
    one(ops.RemovePadding, (1, 4), pixel=(1, 1)), one(ops.KpuPart, (1, 2, 8, 8), first=2),
]  # fmt: skip

BROKEN = [
    (conv(weights=KERNELS.astype(np.float64)), "weights of float64"),
    (conv(weights=KERNELS * np.float32(np.nan)), "weights that are no numbers"),
    (conv(weights=KERNELS[0]), "weights of 3 dimensions"),
    (conv(bias=BIAS[:1]), "one bias a channel"),
    (conv(groups=2), "channels of kernel and input"),
    (conv(stride=(0, 1)), "stride"),
    (conv(dilation=(1, 0)), "dilation"),
    (conv(pads=(1, 1, 1, 2)), "output should be"),
    (conv(pads=(1, 1, 1, -1)), "pads"),
    (pool(pads=(0, 0, 0, -1)), "pads"),
    (pool(kernel=(2, 2.0)), "kernel"),
    (pool(how="least"), "'least' is none of"),
    (layer(weights=np.ones((2, 4, 5, 5), np.float32)), "1x1 and 3x3"),
    (layer(depthwise=True), "channels"),
    (layer(pool=10), "no pool 10"),
    (layer(spare=2), "spare"),
    (layer(pad_code=256), "no code 256"),
    (layer(identity=True, fn=(RELU,)), "passed on"),
    (layer(fn=[RELU]), "a function is a tuple"),
    (layer(fn=(("softplus",),)), "no function 'softplus'"),
    (layer(fn=(("clamp", 0.0),)), "clamp with"),
    (layer(fn=(("mul", math.nan),)), "mul with"),
    (one(ops.Map, fn=(("clamp", 1.0, 0.0),)), "a clamp to"),
    (one(ops.Map, fn=(("join", "pow", (), ()),)), "no join 'pow'"),
    (one(ops.Map, fn=(("join", "add", (), (("softplus",),)),)), "no function 'softplus'"),
    (one(ops.Softmax, beta=math.inf, axis=1), "beta"),
    (one(ops.Softmax, beta=1.0, axis=4), "no axis"),
    (one(ops.Reduce, how="mean", axes=(2, 2)), "an axis twice"),
    (one(ops.Transpose, perm=(0, 1, 2, 2)), "no permutation"),
    (one(ops.Pad, pads=((0, 0),) * 4, value=math.nan), "pads of nan"),
    (one(ops.Slice, begin=(0, 0, 0, 0), strides=(1, 1, 1, -1)), "strides"),
    (one(ops.Slice, begin=(0, 0, 1, 0), strides=(1, 1, 1, 1)), "stays inside"),
    (one(ops.Resize, mode="cubic"), "no resizing 'cubic'"),
    (one(ops.Quantize, clamp=(1.0, 0.0)), "a clamp to"),
    (one(ops.Quantize, part="fine"), "of a coarse one"),
    (one(ops.Dequantize, negated=True, from_zero=True), "in one way"),
    (one(ops.RemovePadding, (1, 4), pixel=(8, 0)), "no pixel"),
    (one(ops.KpuPart, (1, 2, 8, 8), first=3), "within its map"),
    (one(ops.Unary, how="softplus"), "no function 'softplus'"),
]


@pytest.mark.parametrize("op", FINE, ids=lambda op: op.kind)
def test_what_is_legal_passes(op: Op) -> None:
    check(op)


@pytest.mark.parametrize(("op", "what"), BROKEN, ids=lambda a: getattr(a, "kind", a))
def test_what_an_op_carries_is_looked_at(op: Op, what: str) -> None:
    with pytest.raises(PassBroke) as caught:
        check(op)
    assert what in str(caught.value)


TABLES: dict[str, Any] = {
    "forms": forms.CARRIED,
    "executor": executor.KINDS,
    "legalise": legalise.HANDLERS,
    "kmodel 3": encode_v3.LAYERS,
    "kmodel 4": encode_v4.NODES,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_handler_is_of_the_kind_it_stands_for(name: str) -> None:
    for kind, handler in TABLES[name].items():
        if handler is None:
            continue
        taken = get_type_hints(handler).get("op", kind)  # of a lambda mypy knows it
        taken = getattr(taken, "__bound__", taken)
        assert any(issubclass(kind, c) for c in get_args(taken) or (taken,)), handler


def test_every_kind_is_in_every_table() -> None:
    kinds = {
        kind for _, kind in inspect.getmembers(ops, inspect.isclass)
        if issubclass(kind, Op) and kind not in (Op, ops.Activated)
    }  # fmt: skip
    assert kinds == {*forms.FLOAT, *forms.DEVICE} == set(forms.CARRIED) == set(executor.KINDS)
    assert set(legalise.HANDLERS) == set(forms.FLOAT)
    assert set(legalise.ALLOWED[3]) - set(encode_v3.LAYERS) == {ops.Unary}
    only_3 = {ops.Turn, ops.AddPadding, ops.RemovePadding}
    assert set(legalise.ALLOWED[4]) - set(encode_v4.NODES) == only_3
