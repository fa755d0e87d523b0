"""Rules that bring padding, factors and shapes into the layers they belong to."""

from __future__ import annotations

import numpy as np

from k210tasks.compiler import functions, ops
from k210tasks.compiler.ir import Op, Tensor
from k210tasks.compiler.passes.rules.editor import Editor


def binary_with_channels(e: Editor, op: Op) -> bool:
    """Adding or multiplying one number a channel is a depthwise 1x1 convolution."""
    if not isinstance(op, ops.Binary) or len(op.output.shape) != 4:
        return False
    a, b = op.inputs
    const = b if b.value is not None else a if a.value is not None else None
    if const is None or const.value is None or op.how not in ("add", "sub", "mul", "div"):
        return False
    x = a if const is b else b
    channels = x.shape[1]
    if const.shape != (1, channels, 1, 1) or x.shape != op.output.shape:
        return False
    if const is a and op.how in ("sub", "div"):
        return False
    c = const.value.reshape(channels).astype(np.float32)
    scale, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if op.how in ("add", "sub"):
        bias = c if op.how == "add" else -c
    elif op.how == "mul":
        scale = c
    elif (c == 0).any():
        return False
    else:
        scale = (1 / c).astype(np.float32)
    weights = scale.reshape(channels, 1, 1, 1)
    return e.put(ops.Conv([x], weights=weights, bias=bias, groups=channels, fn=op.fn), op)


def _scaling(op: Op | None) -> ops.Conv | None:
    """``op`` where it is a factor and an offset a channel."""
    if not isinstance(op, ops.Conv) or op.weights.shape[1:] != (1, 1, 1):
        return None
    each = op.groups == op.input.shape[1] == op.output.shape[1]
    return op if each and op.stride == (1, 1) and not any(op.pads) else None


def scaling_after_conv(e: Editor, op: Op) -> bool:
    """A factor and an offset a channel go into the convolution before them."""
    after = _scaling(op)
    before = e.before(op.input) if after is not None else None
    if after is None or not isinstance(before, (ops.Conv, ops.Deconv)):
        return False
    if before.fn or not e.only_reader(op.input):
        return False
    scale = after.weights.reshape(-1)
    before.weights = before.weights * scale.reshape(-1, 1, 1, 1)
    before.bias = before.bias * scale + after.bias
    before.fn, before.pre = after.fn, after.pre
    e.absorb(op, before)
    return True


def scaling_before_conv(e: Editor, op: Op) -> bool:
    """A factor and an offset a channel go into the convolution after them, unless its padding
    would see the offset."""
    if not isinstance(op, ops.Conv) or op.groups not in (1, op.input.shape[1]):
        return False
    before = _scaling(e.before(op.input))
    if before is None or before.fn:
        return False
    if before.bias.any() and any(op.pads):
        return False
    if not e.only_reader(op.input):
        return False
    scale, offset = before.weights.reshape(-1), before.bias
    w = op.weights
    if op.groups == 1:
        op.bias = op.bias + np.einsum("oihw,i->o", w, offset)
        op.weights = w * scale.reshape(1, -1, 1, 1)
    else:
        per = w.shape[0] // w.shape[1] // op.groups
        scale, offset = np.repeat(scale, per), np.repeat(offset, per)
        op.bias = op.bias + w.sum((1, 2, 3)) * offset
        op.weights = w * scale.reshape(-1, 1, 1, 1)
    op.inputs = [before.input]
    op.origin = before.origin + op.origin
    return True


def _vector(op: Op | None) -> tuple[Tensor, ops.Floats, ops.Floats] | None:
    """(x, scale, offset) of an op that multiplies and adds constants, one a column."""
    if not isinstance(op, ops.Binary) or len(op.output.shape) != 2 or op.fn:
        return None
    a, b = op.inputs
    x, const = (b, a) if a.value is not None else (a, b)
    if const.value is None or x.shape != op.output.shape or const.size != x.shape[-1]:
        return None
    c, how = const.value.ravel().astype(np.float32), op.how
    ones, zeros = np.ones_like(c), np.zeros_like(c)
    if how == "add":
        return x, ones, c
    if how == "sub":
        return (x, ones, -c) if const is b else (x, -ones, c)
    if how == "mul":
        return x, c, zeros
    return (x, ones / c, zeros) if how == "div" and const is b and c.all() else None


def scaling_before_dense(e: Editor, op: Op) -> bool:
    """A factor and an offset a column go into the dense layer after them."""
    if not isinstance(op, ops.Dense):
        return False
    scaling = _vector(e.before(op.input))
    if scaling is None or not e.only_reader(op.input):
        return False
    x, scale, offset = scaling
    op.bias = op.bias + op.weights @ offset
    op.weights = op.weights * scale
    op.origin = e.producers[op.input].origin + op.origin
    op.inputs = [x]
    return True


def scaling_after_dense(e: Editor, op: Op) -> bool:
    """A factor and an offset a column go into the dense layer before them."""
    scaling = _vector(op)
    dense = e.before(scaling[0]) if scaling is not None else None
    if scaling is None or not isinstance(dense, ops.Dense) or dense.fn:
        return False
    x, scale, offset = scaling
    if not e.only_reader(x):
        return False
    dense.weights = dense.weights * scale[:, None]
    dense.bias = dense.bias * scale + offset
    e.absorb(op, dense)
    return True


def pad_before_conv(e: Editor, op: Op) -> bool:
    """Zeros padded around a map are the convolution's own padding."""
    if not isinstance(op, ops.Conv):
        return False
    pad = e.before(op.input)
    if not isinstance(pad, ops.Pad) or pad.value != 0:
        return False
    pads = pad.pads
    if len(pads) != 4 or any(a or b for a, b in pads[:2]) or min(min(p) for p in pads) < 0:
        return False
    (t, b, left, r), (_, _, rows, columns) = op.pads, pads
    op.pads = (t + rows[0], b + rows[1], left + columns[0], r + columns[1])
    op.inputs = [pad.input]
    op.origin = pad.origin + op.origin
    return True


def pad_before_max_pool(e: Editor, op: Op) -> bool:
    """What is padded around a map and is no larger than any of its values is the pool's own
    padding, as long as no window holds nothing else."""
    if not isinstance(op, ops.Pool) or op.how != "max":
        return False
    pad = e.before(op.input)
    if not isinstance(pad, ops.Pad) or len(pad.pads) != 4:
        return False
    if any(a or b for a, b in pad.pads[:2]) or min(min(p) for p in pad.pads) < 0:
        return False
    (t, b, left, r), (_, _, rows, columns) = op.pads, pad.pads
    pads = (t + rows[0], b + rows[1], left + columns[0], r + columns[1])
    if any(p >= k for p, k in zip(pads, np.repeat(op.kernel, 2), strict=True)):
        return False
    before = e.before(pad.input)
    fn = functions.simplify(before.fn) if isinstance(before, ops.Activated) else ()
    if pad.value > max(functions.least(fn), ops.FAR):
        return False
    op.pads, op.inputs = pads, [pad.input]
    op.origin = pad.origin + op.origin
    return True


def whole_map_conv(e: Editor, op: Op) -> bool:
    """A convolution whose one window is the whole map is a dense layer."""
    if not isinstance(op, ops.Conv) or op.output.shape[2:] != (1, 1) or any(op.pads):
        return False
    if op.groups != 1 or op.input.shape[2:] != op.weights.shape[2:]:
        return False
    flat = Tensor(f"{op.input.name}/flat", (1, op.input.size))
    e.insert_before(op, ops.Reshape([op.input], [flat], op.origin))
    out = op.output
    vector = Tensor(out.name, (1, out.size), source=out.source, range=out.range)
    weights = op.weights.reshape(op.output.size, -1)
    e.insert_before(
        op,
        ops.Dense([flat], [vector], op.origin, weights=weights, bias=op.bias, fn=op.fn, pre=op.pre),
    )
    return e.put(ops.Reshape([vector]), op)


def whole_map_mean(e: Editor, op: Op) -> bool:
    """A mean pool over the whole map is a mean of it."""
    if not isinstance(op, ops.Pool) or op.how != "mean" or any(op.pads):
        return False
    if op.output.shape[2:] != (1, 1) or op.kernel != op.input.shape[2:]:
        return False
    new = ops.Reduce([op.input], how="mean", axes=(2, 3))
    if not op.fn:
        return e.put(new, op)
    new.outputs, new.origin = [Tensor(f"{op.output.name}/mean", op.output.shape)], op.origin
    e.insert_before(op, new)
    return e.put(ops.Map(new.outputs, fn=op.fn), op)


def groups_as_one(e: Editor, op: Op) -> bool:
    """Grouped convolutions other than plain depthwise ones become full ones with zeros."""
    if not isinstance(op, ops.Conv) or op.groups == 1:
        return False
    groups, w = op.groups, op.weights
    out, per, kh, kw = w.shape
    if groups == op.input.shape[1] == out:
        return False
    full = np.zeros((out, op.input.shape[1], kh, kw), np.float32)
    each = out // groups
    for g in range(groups):
        rows = slice(g * each, (g + 1) * each)
        full[rows, g * per : (g + 1) * per] = w[rows]
    op.weights, op.groups = full, 1
    return True


def selection_before_conv(e: Editor, op: Op) -> bool:
    """Channels put into another order before a convolution are its weights in another order."""
    if not isinstance(op, ops.Conv) or op.groups != 1:
        return False
    before = e.before(op.input)
    if not isinstance(before, ops.Conv) or before.fn or before.bias.any():
        return False
    w = before.weights
    plain = before.groups == 1 and w.shape[2:] == (1, 1)
    plain = plain and before.stride == (1, 1) and not any(before.pads)
    if not plain or not (np.isin(w, (0, 1)).all() and (w.sum((1, 2, 3)) == 1).all()):
        return False
    out, _, *kernel = op.weights.shape
    weights = np.zeros((out, w.shape[1], *kernel), np.float32)
    for i, channel in enumerate(w[:, :, 0, 0].argmax(1)):
        weights[:, channel] += op.weights[:, i]
    op.weights = weights
    op.inputs = [before.input]
    op.origin = before.origin + op.origin
    return True
