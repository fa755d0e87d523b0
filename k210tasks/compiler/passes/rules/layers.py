"""Rules that bring padding, factors and shapes into the layers they belong to."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes.rules.editor import Editor


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
    before.attrs["fn"], before.attrs["pre"] = op.attrs["fn"], op.attrs.get("pre")
    e.absorb(op, before)
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


def _vector(op: Op | None) -> tuple[Tensor, np.ndarray, np.ndarray] | None:
    """(x, scale, offset) of an op that multiplies and adds constants, one a column."""
    if op is None or op.kind != "binary" or len(op.output.shape) != 2 or op.attrs["fn"]:
        return None
    a, b = op.inputs
    x, const = (b, a) if a.value is not None else (a, b)
    if const.value is None or x.shape != op.output.shape or const.size != x.shape[-1]:
        return None
    c, how = const.value.ravel().astype(np.float32), op.attrs["op"]
    ones, zeros = np.ones_like(c), np.zeros_like(c)
    if how == "add":
        return x, ones, c
    if how == "sub":
        return (x, ones, -c) if const is b else (x, -ones, c)
    if how == "mul":
        return x, c, zeros
    return (x, 1 / c, zeros) if how == "div" and const is b and c.all() else None


def scaling_before_dense(e: Editor, op: Op) -> bool:
    """A factor and an offset a column go into the dense layer after them."""
    scaling = _vector(e.before(op.input)) if op.kind == "dense" else None
    if scaling is None or not e.only_reader(op.input):
        return False
    x, scale, offset = scaling
    op.attrs["bias"] = op.attrs["bias"] + op.attrs["weights"] @ offset
    op.attrs["weights"] = op.attrs["weights"] * scale
    op.origin = e.producers[op.input].origin + op.origin
    op.inputs = [x]
    return True


def scaling_after_dense(e: Editor, op: Op) -> bool:
    """A factor and an offset a column go into the dense layer before them."""
    scaling = _vector(op)
    dense = e.before(scaling[0]) if scaling is not None else None
    if scaling is None or dense is None or dense.kind != "dense" or dense.attrs["fn"]:
        return False
    x, scale, offset = scaling
    if not e.only_reader(x):
        return False
    dense.attrs["weights"] = dense.attrs["weights"] * scale[:, None]
    dense.attrs["bias"] = dense.attrs["bias"] * scale + offset
    e.absorb(op, dense)
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


def whole_map_conv(e: Editor, op: Op) -> bool:
    """A convolution whose one window is the whole map is a dense layer."""
    if op.kind != "conv" or op.output.shape[2:] != (1, 1) or any(op.attrs["pads"]):
        return False
    if op.attrs["groups"] != 1 or op.input.shape[2:] != op.attrs["weights"].shape[2:]:
        return False
    flat = Tensor(f"{op.input.name}/flat", (1, op.input.size))
    e.insert_before(op, Op("reshape", [op.input], [flat], {}, op.origin))
    out = op.output
    vector = Tensor(out.name, (1, out.size), source=out.source, range=out.range)
    attrs = {
        "weights": op.attrs["weights"].reshape(op.output.size, -1),
        "bias": op.attrs["bias"],
        "fn": op.attrs["fn"],
        "pre": op.attrs.get("pre"),
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


def selection_before_conv(e: Editor, op: Op) -> bool:
    """Channels put into another order before a convolution are its weights in another order."""
    before = e.before(op.input) if op.kind == "conv" and op.attrs["groups"] == 1 else None
    if before is None or before.kind != "conv" or before.attrs["fn"] or before.attrs["bias"].any():
        return False
    w = before.attrs["weights"]
    plain = before.attrs["groups"] == 1 and w.shape[2:] == (1, 1)
    plain = plain and before.attrs["stride"] == (1, 1) and not any(before.attrs["pads"])
    if not plain or not (np.isin(w, (0, 1)).all() and (w.sum((1, 2, 3)) == 1).all()):
        return False
    weights = np.zeros((op.attrs["weights"].shape[0], w.shape[1], *op.attrs["weights"].shape[2:]),
                       np.float32)  # fmt: skip
    for i, channel in enumerate(w[:, :, 0, 0].argmax(1)):
        weights[:, channel] += op.attrs["weights"][:, i]
    op.attrs["weights"] = weights
    op.inputs = [before.input]
    op.origin = before.origin + op.origin
    return True
