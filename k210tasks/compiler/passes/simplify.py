"""Fold and fuse, in float: the same function in fewer ops.

A rule looks at one op and either rewrites the graph and returns True, or returns False.
Rules run until none applies. What each does is its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from k210tasks.compiler import executor, functions
from k210tasks.compiler.ir import Graph, Op, Tensor

_FUSING = ("conv", "dense", "binary", "pool", "deconv", "map")


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

    def remove(self, op: Op) -> None:
        self.graph.ops.remove(op)

    def drop(self, op: Op) -> None:
        """Take ``op`` out: its readers read its input."""
        out = op.output
        if out in self.kept and op.input.source is None and op.input.value is None:
            op.input.source = out.source
        self.graph.replace(out, op.input)
        self.remove(op)


Rule = Callable[[Editor, Op], bool]


def fold_constants(e: Editor, op: Op) -> bool:
    """An op on constants is a constant."""
    if not op.inputs or any(t.value is None for t in op.inputs):
        return False
    inputs = [np.asarray(t.value, np.float32) for t in op.inputs]
    value = executor.KINDS[op.kind](op, *inputs)
    old = op.output
    e.graph.replace(old, Tensor(old.name, old.shape, value=np.asarray(value), source=old.source))
    e.remove(op)
    return True


def binary_with_scalar(e: Editor, op: Op) -> bool:
    """Adding, multiplying or limiting by one number is a function of each value."""
    if op.kind != "binary":
        return False
    a, b = op.inputs
    const = b if b.value is not None else a if a.value is not None else None
    if const is None or const.value is None or np.unique(const.value).size != 1:
        return False
    x = a if const is b else b
    if x.shape != op.output.shape:
        return False
    c = float(const.value.flat[0])
    steps: dict[str, functions.Fn] = {
        "add": (("add", c),),
        "mul": (("mul", c),),
        "sub": (("add", -c),) if const is b else (("mul", -1.0), ("add", c)),
        "min": (("clamp", -math.inf, c),),
        "max": (("clamp", c, math.inf),),
    }
    if op.attrs["op"] == "div":
        if const is b and c == 0:
            return False
        fn: functions.Fn = (("mul", 1 / c),) if const is b else (("reciprocal",), ("mul", c))
    else:
        fn = steps[op.attrs["op"]]
    op.kind, op.inputs = "map", [x]
    op.attrs = {"fn": (*fn, *op.attrs["fn"])}
    return True


def binary_with_channels(e: Editor, op: Op) -> bool:
    """Adding or multiplying one number a channel is a depthwise 1x1 convolution."""
    if op.kind != "binary" or len(op.output.shape) != 4:
        return False
    a, b = op.inputs
    const = b if b.value is not None else a if a.value is not None else None
    if const is None or const.value is None or op.attrs["op"] not in ("add", "sub", "mul", "div"):
        return False
    x = a if const is b else b
    channels = x.shape[1]
    if const.shape != (1, channels, 1, 1) or x.shape != op.output.shape:
        return False
    if const is a and op.attrs["op"] in ("sub", "div"):
        return False
    c = const.value.reshape(channels).astype(np.float32)
    scale, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if op.attrs["op"] in ("add", "sub"):
        bias = c if op.attrs["op"] == "add" else -c
    elif op.attrs["op"] == "mul":
        scale = c
    elif (c == 0).any():
        return False
    else:
        scale = (1 / c).astype(np.float32)
    op.kind, op.inputs = "conv", [x]
    op.attrs = {
        "weights": scale.reshape(channels, 1, 1, 1),
        "bias": bias,
        "groups": channels,
        "stride": (1, 1),
        "dilation": (1, 1),
        "pads": (0, 0, 0, 0),
        "fn": op.attrs["fn"],
    }
    return True


def _is_scaling(op: Op | None) -> bool:
    return (
        op is not None
        and op.kind == "conv"
        and op.attrs["weights"].shape[1:] == (1, 1, 1)
        and op.attrs["groups"] == op.input.shape[1] == op.output.shape[1]
        and op.attrs["stride"] == (1, 1)
        and not any(op.attrs["pads"])
    )


def scaling_after_conv(e: Editor, op: Op) -> bool:
    """A factor and an offset a channel go into the convolution before them."""
    before = e.before(op.input) if op.inputs else None
    if not _is_scaling(op) or before is None or before.kind not in ("conv", "deconv"):
        return False
    if before.attrs["fn"] or not e.only_reader(op.input):
        return False
    scale = op.attrs["weights"].reshape(-1)
    before.attrs["weights"] = before.attrs["weights"] * scale.reshape(-1, 1, 1, 1)
    before.attrs["bias"] = before.attrs["bias"] * scale + op.attrs["bias"]
    before.attrs["fn"] = op.attrs["fn"]
    before.outputs = [op.output]
    before.origin += op.origin
    e.remove(op)
    return True


def scaling_before_conv(e: Editor, op: Op) -> bool:
    """A factor and an offset a channel go into the convolution after them, unless its padding
    would see the offset."""
    if op.kind != "conv" or op.attrs["groups"] not in (1, op.input.shape[1]):
        return False
    before = e.before(op.input)
    if not _is_scaling(before) or before is None or before.attrs["fn"]:
        return False
    if before.attrs["bias"].any() and any(op.attrs["pads"]):
        return False
    if not e.only_reader(op.input):
        return False
    scale, offset = before.attrs["weights"].reshape(-1), before.attrs["bias"]
    w = op.attrs["weights"]
    if op.attrs["groups"] == 1:
        op.attrs["bias"] = op.attrs["bias"] + np.einsum("oihw,i->o", w, offset)
        op.attrs["weights"] = w * scale.reshape(1, -1, 1, 1)
    else:
        per = w.shape[0] // w.shape[1] // op.attrs["groups"]
        scale, offset = np.repeat(scale, per), np.repeat(offset, per)
        op.attrs["bias"] = op.attrs["bias"] + w.sum((1, 2, 3)) * offset
        op.attrs["weights"] = w * scale.reshape(-1, 1, 1, 1)
    op.inputs = [before.input]
    op.origin = before.origin + op.origin
    return True


def map_after(e: Editor, op: Op) -> bool:
    """A function of each value belongs to the op that computes the value."""
    if op.kind != "map":
        return False
    before = e.before(op.input)
    if before is None or before.kind not in _FUSING or not e.only_reader(op.input):
        return False
    before.attrs.setdefault("pre", op.input if not before.attrs["fn"] else None)
    before.attrs["fn"] = functions.simplify(before.attrs["fn"] + op.attrs["fn"])
    before.outputs = [op.output]
    before.origin += op.origin
    e.remove(op)
    return True


def affine_into_weights(e: Editor, op: Op) -> bool:
    """A factor or an offset right after a convolution or dense layer goes into its weights."""
    if op.kind not in ("conv", "dense", "deconv") or not op.attrs["fn"]:
        return False
    name, *parameters = op.attrs["fn"][0]
    if name == "mul":
        op.attrs["weights"] = op.attrs["weights"] * np.float32(parameters[0])
        op.attrs["bias"] = op.attrs["bias"] * np.float32(parameters[0])
    elif name == "neg":
        op.attrs["weights"], op.attrs["bias"] = -op.attrs["weights"], -op.attrs["bias"]
    elif name == "add":
        op.attrs["bias"] = op.attrs["bias"] + np.float32(parameters[0])
    else:
        return False
    op.attrs["fn"] = op.attrs["fn"][1:]
    op.attrs["pre"] = None
    return True


def empty_map(e: Editor, op: Op) -> bool:
    """A function that changes nothing goes."""
    if op.kind != "map" or functions.simplify(op.attrs["fn"]):
        return False
    e.drop(op)
    return True


def map_over_moves(e: Editor, op: Op) -> bool:
    """A function of each value comes before what only moves values, nearer to a producer."""
    if op.kind != "map":
        return False
    mover = e.before(op.input)
    if mover is None or mover.kind not in ("reshape", "transpose", "slice", "concat"):
        return False
    if not e.only_reader(op.input):
        return False
    parts = []
    for tensor in mover.inputs:
        part = Tensor(f"{tensor.name}/map", tensor.shape)
        if tensor.value is None:
            new = Op("map", [tensor], [part], dict(op.attrs), op.origin)
            e.insert_before(mover, new)
        else:
            part.value = functions.evaluate(op.attrs["fn"], tensor.value)
        parts.append(part)
    mover.inputs = parts
    mover.outputs = [op.output]
    e.remove(op)
    return True


def pad_before_conv(e: Editor, op: Op) -> bool:
    """Zeros padded around a map are the convolution's own padding."""
    if op.kind != "conv":
        return False
    pad = e.before(op.input)
    if pad is None or pad.kind != "pad" or pad.attrs["value"] != 0:
        return False
    pads = pad.attrs["pads"]
    if len(pads) != 4 or any(a or b for a, b in pads[:2]) or min(min(p) for p in pads) < 0:
        return False
    own = op.attrs["pads"]
    op.attrs["pads"] = tuple(o + n for o, n in zip(own, (*pads[2], *pads[3]), strict=True))
    op.inputs = [pad.input]
    op.origin = pad.origin + op.origin
    return True


def pad_after_pad(e: Editor, op: Op) -> bool:
    """Two pads of one value are one; a pad of nothing is none."""
    if op.kind != "pad":
        return False
    if not any(a or b for a, b in op.attrs["pads"]):
        e.drop(op)
        return True
    before = e.before(op.input)
    if before is None or before.kind != "pad" or before.attrs["value"] != op.attrs["value"]:
        return False
    pairs = zip(before.attrs["pads"], op.attrs["pads"], strict=True)
    op.attrs["pads"] = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
    op.inputs = [before.input]
    return True


def _moves_ones_only(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    real = [p for p in perm if shape[p] != 1]
    return real == sorted(real)


def transposes(e: Editor, op: Op) -> bool:
    """A transpose that moves nothing, or dimensions of one, is a reshape; two are one."""
    if op.kind != "transpose":
        return False
    perm = op.attrs["perm"]
    if perm == tuple(range(len(perm))):
        e.drop(op)
        return True
    if _moves_ones_only(op.input.shape, perm):
        op.kind, op.attrs = "reshape", {}
        return True
    before = e.before(op.input)
    if before is not None and before.kind == "transpose":
        op.attrs["perm"] = tuple(before.attrs["perm"][p] for p in perm)
        op.inputs = [before.input]
        return True
    return False


def reshapes(e: Editor, op: Op) -> bool:
    """A reshape to the same shape goes; two reshapes are one."""
    if op.kind != "reshape":
        return False
    if op.input.shape == op.output.shape:
        e.drop(op)
        return True
    before = e.before(op.input)
    if before is not None and before.kind == "reshape":
        op.inputs = [before.input]
        return True
    return False


def dense_takes_any_order(e: Editor, op: Op) -> bool:
    """Instead of its input being flattened in TFLite's order, a dense layer's columns move."""
    if op.kind != "dense" or op.input.shape[0] != 1:
        return False
    reshape = e.before(op.input)
    if reshape is None or reshape.kind != "reshape":
        return False
    transpose = e.before(reshape.input)
    if transpose is None or transpose.kind != "transpose":
        return False
    shape, perm = transpose.input.shape, transpose.attrs["perm"]
    order = np.arange(op.input.size).reshape(shape).transpose(perm).ravel()
    columns = np.empty_like(order)
    columns[order] = np.arange(order.size)
    flat = Tensor(f"{transpose.input.name}/flat", op.input.shape)
    e.insert_before(op, Op("reshape", [transpose.input], [flat], {}, reshape.origin))
    op.attrs["weights"] = np.ascontiguousarray(op.attrs["weights"][:, columns])
    op.inputs = [flat]
    return True


def whole_map_conv(e: Editor, op: Op) -> bool:
    """A convolution whose one window is the whole map is a dense layer."""
    if op.kind != "conv" or op.output.shape[2:] != (1, 1) or any(op.attrs["pads"]):
        return False
    if op.attrs["groups"] != 1 or op.input.shape[2:] != op.attrs["weights"].shape[2:]:
        return False
    flat = Tensor(f"{op.input.name}/flat", (1, op.input.size))
    e.insert_before(op, Op("reshape", [op.input], [flat], {}, op.origin))
    vector = Tensor(op.output.name, (1, op.output.size), source=op.output.source)
    attrs = {
        "weights": op.attrs["weights"].reshape(op.output.size, -1),
        "bias": op.attrs["bias"],
        "fn": op.attrs["fn"],
    }
    e.insert_before(op, Op("dense", [flat], [vector], attrs, op.origin))
    op.kind, op.inputs, op.attrs = "reshape", [vector], {}
    return True


def whole_map_mean(e: Editor, op: Op) -> bool:
    """A mean pool over the whole map is a mean of it."""
    if op.kind != "pool" or op.attrs["op"] != "mean" or any(op.attrs["pads"]):
        return False
    if op.output.shape[2:] != (1, 1) or op.attrs["kernel"] != op.input.shape[2:]:
        return False
    fn = op.attrs["fn"]
    mean = op.output if not fn else Tensor(f"{op.output.name}/mean", op.output.shape)
    new = Op("reduce", [op.input], [mean], {"op": "mean", "axes": (2, 3)}, op.origin)
    if not fn:
        e.graph.ops[e.graph.ops.index(op)] = new
    else:
        e.insert_before(op, new)
        op.kind, op.inputs, op.attrs = "map", [mean], {"fn": fn}
    return True


def groups_as_one(e: Editor, op: Op) -> bool:
    """Grouped convolutions other than plain depthwise ones become full ones with zeros."""
    if op.kind != "conv" or op.attrs["groups"] == 1:
        return False
    groups, w = op.attrs["groups"], op.attrs["weights"]
    out, per, kh, kw = w.shape
    if groups == op.input.shape[1] == out:
        return False
    full = np.zeros((out, op.input.shape[1], kh, kw), np.float32)
    each = out // groups
    for g in range(groups):
        rows = slice(g * each, (g + 1) * each)
        full[rows, g * per : (g + 1) * per] = w[rows]
    op.attrs["weights"], op.attrs["groups"] = full, 1
    return True


def concat_of_one(e: Editor, op: Op) -> bool:
    """A concatenation of one tensor goes; a slice of everything too."""
    same = op.kind == "concat" and len(op.inputs) == 1
    whole = op.kind == "slice" and op.input.shape == op.output.shape
    if not (same or whole):
        return False
    e.drop(op)
    return True


def constants_per_image(e: Editor, op: Op) -> bool:
    """Constants are float32 from here on."""
    changed = False
    for tensor in op.inputs:
        if tensor.value is not None and tensor.value.dtype != np.float32:
            tensor.value = tensor.value.astype(np.float32)
            changed = True
    return changed


RULES: tuple[Rule, ...] = (
    constants_per_image,
    fold_constants,
    binary_with_scalar,
    binary_with_channels,
    empty_map,
    affine_into_weights,
    map_after,
    map_over_moves,
    scaling_after_conv,
    scaling_before_conv,
    pad_after_pad,
    pad_before_conv,
    transposes,
    reshapes,
    dense_takes_any_order,
    whole_map_conv,
    whole_map_mean,
    groups_as_one,
    concat_of_one,
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
    return graph
