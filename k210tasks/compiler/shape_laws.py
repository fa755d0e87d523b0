"""The shape of what an op of a TFLite file puts out, from its inputs and settings: one law an op.

A law also judges: settings that belong to no input (an axis beyond its dimensions, a permutation
that is none, strides of zero) raise :class:`Misfit` with the fact, before anything is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from k210tasks.compiler.source_ops import SourceOp

Shape = tuple[int, ...]

#: values of a tensor, at most: one byte each is the least that a K210, of 8 MiB, can hold
MOST_VALUES = 8 << 20
#: pixels that a window spans, at most: the KPU's maps have up to 1024 a side
MOST_SPAN = 1024
#: copies or slices that are joined, at most; each costs an instruction in the kmodel
MOST_PIECES = 1024


#: factor of a softmax, at least; its reciprocal at most
LEAST_BETA = 1e-6


class Misfit(ValueError):
    """What about an op's shapes and settings does not belong together."""


def _whole(op: SourceOp, which: int, count: int | None = None) -> list[int] | None:
    """A constant of whole numbers as a list, of ``count`` if that is given; None if computed."""
    const = op.const(which)
    if const is None:
        return None
    values = [int(n) for n in const.ravel()]
    if count is not None and len(values) != count:
        raise Misfit(f"input {which} holds {len(values)} numbers, not {count}")
    return values


def _axis(given: Any, rank: int) -> int:
    if not -rank <= int(given) < rank:
        raise Misfit(f"axis {given} of {rank} dimensions")
    return int(given) % rank


def _count(op: SourceOp, found: int) -> int:
    """How many parts there are; an interpreter believes the settings."""
    if op.options["count"] != found:
        raise Misfit(f"its settings speak of {op.options['count']} parts, there are {found}")
    return found


def _positive(name: str, values: Any) -> None:
    if min(values) < 1:
        raise Misfit(f"{name} is {list(values)}")


def _window(op: SourceOp) -> Shape:
    kernel = op.options.get("filter")
    if kernel is None:
        if len(op.shape(1)) != 4:
            raise Misfit(f"the weights have shape {list(op.shape(1))}")
        kernel = op.shape(1)[1:3]
    _, *size, channels = op.shape()
    dilation = op.options.get("dilation", (1, 1))
    stride = op.options["stride"]
    for name, values in (("filter", kernel), ("stride", stride), ("dilation", dilation)):
        _positive(name, values)
    pads = op.options.get("pads", (0, 0, 0, 0))
    out = []
    for axis, (n, k, s, d) in enumerate(zip(size, kernel, stride, dilation, strict=True)):
        span = (k - 1) * d + 1
        if span > MOST_SPAN:
            raise Misfit(f"the window spans {span} pixels, the KPU's maps have {MOST_SPAN} at most")
        whole = n + sum(pads[2 * axis : 2 * axis + 2])
        out.append(math.ceil((n if _same_padding(op) else whole - span + 1) / s))
    if min(out) < 1:
        raise Misfit(f"the window is larger than the map, {'x'.join(map(str, size))}")
    return (1, *out, _channels(op, channels))


def _same_padding(op: SourceOp) -> bool:
    padding = op.options["padding"]
    if padding not in ("SAME", "VALID"):
        raise Misfit(f"its padding is {padding}")
    return bool(padding == "SAME") and "pads" not in op.options


def _channels(op: SourceOp, channels: int) -> int:
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return channels
    weights = op.shape(1)
    if op.name == "CONV_2D":
        groups, count = channels // max(1, weights[3]), weights[0]
        fits = groups * weights[3] == channels and count % max(1, groups) == 0
    else:
        count = weights[3]
        fits = weights[0] == 1 and count % channels == 0
    if not fits:
        raise Misfit(f"{channels} channels, weights of shape {list(weights)}")
    _bias(op, 2, count)
    return count


def _bias(op: SourceOp, which: int, count: int) -> None:
    if len(op.inputs) > which and op.inputs[which] is not None:
        size = math.prod(op.shape(which))
        if size != count:
            raise Misfit(f"the bias has {size} values for {count} channels")


def _transpose_conv(op: SourceOp) -> Shape | None:
    out = _whole(op, 0, 4)
    if out is None:
        return None
    weights, given, stride = op.shape(1), op.shape(2), op.options["stride"]
    if len(weights) != 4 or len(given) != 4:
        raise Misfit(f"weights of shape {list(weights)}, a map of shape {list(given)}")
    _positive("stride", stride)
    _positive("the size", out)
    if weights[3] != given[3] or weights[0] != out[3]:
        raise Misfit(f"weights of shape {list(weights)} from {given[3]} to {out[3]} channels")
    for n, k, s, before in zip(out[1:3], weights[1:3], stride, given[1:3], strict=True):
        if before != math.ceil((n if _same_padding(op) else n - k + 1) / s):
            raise Misfit(f"a map of {list(given)} does not become {out}")
    _bias(op, 3, out[3])
    return tuple(out)


def _dense(op: SourceOp) -> Shape:
    weights, size = op.shape(1), math.prod(op.shape())
    if len(weights) != 2 or size % max(1, weights[1]) or not op.shape():
        raise Misfit(f"an input of shape {list(op.shape())}, weights of {list(weights)}")
    rows, columns = weights
    _bias(op, 2, rows)
    if op.options.get("keep_num_dims"):
        if op.shape()[-1] != columns:
            raise Misfit(f"an input of shape {list(op.shape())}, weights of {list(weights)}")
        return (*op.shape()[:-1], rows)
    return (size // columns, rows)


def _product(op: SourceOp) -> Shape | None:
    if op.options.get("adj_x"):
        return None  # refused for that
    inner, columns = op.shape(1)[::-1] if op.options.get("adj_y") else op.shape(1)
    if len(op.shape()) < 2 or op.shape()[-1] != inner:
        raise Misfit(f"factors of shape {list(op.shape())} and {list(op.shape(1))}")
    return (*op.shape()[:-1], columns)


def _reduce(op: SourceOp) -> Shape | None:
    given = _whole(op, 1)
    if given is None:
        return None
    if not given:
        raise Misfit("it names no axis")
    axes = {_axis(a, len(op.shape())) for a in given}
    kept = tuple(1 if i in axes else n for i, n in enumerate(op.shape()))
    if op.outputs[0].shape == kept:
        return kept
    return tuple(n for i, n in enumerate(op.shape()) if i not in axes)


def _broadcast(op: SourceOp) -> Shape:
    shapes = [t.shape for t in op.inputs if t is not None]
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        raise Misfit(f"shapes {' and '.join(str(list(s)) for s in shapes)}") from None


def _slopes(op: SourceOp) -> Shape:
    if _broadcast(op) != op.shape():
        raise Misfit(f"slopes of shape {list(op.shape(1))}")
    return op.shape()


def _equal(op: SourceOp) -> Shape:
    shapes = {t.shape for t in op.inputs if t is not None}
    if len(shapes) != 1:
        raise Misfit(f"shapes {' and '.join(str(list(s)) for s in sorted(shapes))}")
    return op.shape()


def _first(op: SourceOp) -> Shape:
    return op.shape()


def _along_last(op: SourceOp) -> Shape:
    if not op.shape():
        raise Misfit("its input is a single value")
    if not LEAST_BETA <= op.options.get("beta", 1.0) <= 1 / LEAST_BETA:
        raise Misfit(f"beta is {op.options['beta']:g}, not {LEAST_BETA:g} to {1 / LEAST_BETA:g}")
    return op.shape()


def _concat(op: SourceOp) -> Shape:
    shape = list(op.shape())
    axis = _axis(op.options["axis"], len(shape))
    for i in range(1, len(op.inputs)):
        other = op.shape(i)
        if len(other) != len(shape) or any(
            a != b for k, (a, b) in enumerate(zip(shape, other, strict=True)) if k != axis
        ):
            raise Misfit(f"shapes {list(op.shape())} and {list(other)} along axis {axis}")
    shape[axis] = sum(op.shape(i)[axis] for i in range(len(op.inputs)))
    return tuple(shape)


def _pads(op: SourceOp) -> Shape | None:
    rank = len(op.shape())
    flat = _whole(op, 1, 2 * rank)
    if flat is None:
        return None
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if min(flat, default=0) < 0:
        raise Misfit(f"its pads are {[list(p) for p in pairs]}")
    if op.name == "PADV2" and math.prod(op.shape(2)) != 1:
        raise Misfit(f"its value has shape {list(op.shape(2))}")
    if op.name == "MIRROR_PAD":
        mode = op.options["mode"]
        if mode not in ("REFLECT", "SYMMETRIC"):
            raise Misfit(f"its mode is {mode}")
        for n, pair in zip(op.shape(), pairs, strict=True):
            if max(pair) > min(n - (mode == "REFLECT"), MOST_PIECES):
                raise Misfit(f"pads of {list(pair)} beside {n} values")
    return tuple(n + a + b for n, (a, b) in zip(op.shape(), pairs, strict=True))


def _reshape(op: SourceOp) -> Shape:
    size, out = math.prod(op.shape()), op.outputs[0]
    wanted = _whole(op, 1) if len(op.inputs) > 1 and op.name == "RESHAPE" else None
    if wanted is None:
        if not out.dynamic and not out.open and math.prod(out.shape) != size:
            raise Misfit(f"{list(op.shape())} does not become {list(out.shape)}")
        return out.shape
    known = math.prod(n for n in wanted if n != -1)
    if wanted.count(-1) > 1 or min(wanted, default=1) < -1 or known < 1 or size % known:
        raise Misfit(f"{list(op.shape())} does not become {wanted}")
    shape = tuple(size // known if n == -1 else n for n in wanted)
    if math.prod(shape) != size:
        raise Misfit(f"{list(op.shape())} does not become {wanted}")
    return shape


def _without_ones(op: SourceOp) -> Shape:
    """SQUEEZE and EXPAND_DIMS: ones come and go."""
    out = op.outputs[0].shape
    if [n for n in op.shape() if n != 1] != [n for n in out if n != 1]:
        raise Misfit(f"{list(op.shape())} does not become {list(out)}")
    return out


def _transpose(op: SourceOp) -> Shape | None:
    perm = _whole(op, 1)
    if perm is None:
        return None
    if sorted(p + len(perm) * (p < 0) for p in perm) != list(range(len(op.shape()))):
        raise Misfit(f"the order {perm} of {len(op.shape())} dimensions")
    return tuple(op.shape()[p] for p in perm)


def _slice(op: SourceOp) -> Shape | None:
    rank = len(op.shape())
    begins, sizes = _whole(op, 1, rank), _whole(op, 2, rank)
    if begins is None or sizes is None:
        return None
    shape = tuple(
        n - b if size == -1 else size for n, b, size in zip(op.shape(), begins, sizes, strict=True)
    )
    for n, b, size in zip(op.shape(), begins, shape, strict=True):
        if b < 0 or size < 1 or b + size > n:
            raise Misfit(f"{sizes} from {begins} on of {list(op.shape())}")
    return shape


def _strided_slice(op: SourceOp) -> Shape | None:
    begins = _whole(op, 1)
    if begins is None or len(begins) > len(op.shape()):
        return None if begins is None else _beyond(op, len(begins))
    ends, steps = _whole(op, 2, len(begins)), _whole(op, 3, len(begins))
    if ends is None or steps is None:
        return None
    _positive("the stride", steps or [1])
    shape = []
    for i, n in enumerate(op.shape()):
        if i >= len(begins):
            shape.append(n)
            continue
        first, last = (
            None if op.options.get(mask, 0) >> i & 1 else value
            for mask, value in (("begin_mask", begins[i]), ("end_mask", ends[i]))
        )
        if op.options.get("shrink_axis_mask", 0) >> i & 1:
            if not -n <= (first or 0) < n:
                raise Misfit(f"place {first} of {n} along axis {i}")
            continue
        length = len(range(*slice(first, last, steps[i]).indices(n)))
        if not length:
            raise Misfit(f"nothing is left along axis {i}: {first} to {last} of {n}")
        shape.append(length)
    return tuple(shape)


def _beyond(op: SourceOp, count: int) -> Shape:
    raise Misfit(f"it cuts {count} of {len(op.shape())} dimensions")


def _gather(op: SourceOp) -> Shape | None:
    x = op.shape()
    axis = _axis(op.options.get("axis", 0), len(x))
    places = _whole(op, 1)
    if places is None:
        return None
    wrong = [p for p in places if not 0 <= p < x[axis]]
    if wrong:
        raise Misfit(f"place {wrong[0]} of {x[axis]} along axis {axis}")
    if len(places) > MOST_PIECES and not (len(x) == 4 and axis == 3):
        raise Misfit(f"{len(places)} places, at most {MOST_PIECES}")
    return (*x[:axis], *op.shape(1), *x[axis + 1 :])


def _pack(op: SourceOp) -> Shape:
    shape = _equal(op)
    axis = _axis(op.options["axis"], len(shape) + 1)
    return (*shape[:axis], _count(op, len(op.inputs)), *shape[axis:])


def _tile(op: SourceOp) -> Shape | None:
    times = _whole(op, 1, len(op.shape()))
    if times is None:
        return None
    if min(times, default=1) < 1 or max(times, default=1) > MOST_PIECES:
        raise Misfit(f"{times} times, at most {MOST_PIECES}")
    return tuple(n * k for n, k in zip(op.shape(), times, strict=True))


def _to_depth(op: SourceOp) -> Shape:
    _, h, w, c = op.shape()
    block = op.options["block"]
    _positive("the block", [block])
    if h % block or w % block or block > MOST_SPAN:
        raise Misfit(f"blocks of {block} in {h}x{w} pixels")
    return (1, h // block, w // block, c * block * block)


def _to_space(op: SourceOp) -> Shape:
    _, h, w, c = op.shape()
    block = op.options["block"]
    _positive("the block", [block])
    if c % (block * block):
        raise Misfit(f"blocks of {block} from {c} channels")
    return (1, h * block, w * block, c // (block * block))


def _resize(op: SourceOp) -> Shape | None:
    size = _whole(op, 1, 2)
    if size is None:
        return None
    _positive("the size", size)
    return (1, *size, op.shape()[3])


def _split(op: SourceOp) -> list[Shape] | None:
    which = 1 if op.name == "SPLIT" else 0
    given = _whole(op, 0 if op.name == "SPLIT" else 2, 1)
    if given is None:
        return None
    x, count = op.shape(which), _count(op, len(op.outputs))
    axis = _axis(given[0], len(x))
    if op.name == "SPLIT":
        sizes = [x[axis] // count] * count
    else:
        told = _whole(op, 1, count)
        if told is None:
            return None
        rest = x[axis] - sum(n for n in told if n != -1)
        sizes = [rest if n == -1 else n for n in told]
    if sum(sizes) != x[axis] or min(sizes) < 1:
        raise Misfit(f"parts of {sizes} of {x[axis]} along axis {axis}")
    return [(*x[:axis], n, *x[axis + 1 :]) for n in sizes]


def _unpack(op: SourceOp) -> list[Shape]:
    x = op.shape()
    axis = _axis(op.options["axis"], len(x))
    if _count(op, len(op.outputs)) != x[axis]:
        raise Misfit(f"{len(op.outputs)} parts of {x[axis]} along axis {axis}")
    return [(*x[:axis], *x[axis + 1 :])] * len(op.outputs)


Law = Callable[[SourceOp], "Shape | list[Shape] | None"]

LAWS: dict[str, Law] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D"), _window),
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _product,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    **dict.fromkeys(
        ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE", "POW"), _broadcast
    ),
    "PRELU": _slopes,
    "ADD_N": _equal,
    "CONCATENATION": _concat,
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), _pads),
    "RESHAPE": _reshape,
    **dict.fromkeys(("SQUEEZE", "EXPAND_DIMS"), _without_ones),
    "TRANSPOSE": _transpose,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "GATHER": _gather,
    "PACK": _pack,
    "UNPACK": _unpack,
    "TILE": _tile,
    "SPACE_TO_DEPTH": _to_depth,
    "DEPTH_TO_SPACE": _to_space,
    **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
    **dict.fromkeys(("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"), _resize),
    **dict.fromkeys(("SOFTMAX", "L2_NORMALIZATION"), _along_last),
    **dict.fromkeys(
        (
            "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU", "ELU", "GELU",
            "HARD_SWISH", "LOGISTIC", "TANH", "ABS", "NEG", "CEIL", "FLOOR", "ROUND", "EXP", "LOG",
            "SQRT", "RSQRT", "SIN", "COS", "SQUARE", "QUANTIZE", "DEQUANTIZE",
        ),
        _first,
    ),
}  # fmt: skip


def follows(op: SourceOp) -> list[Shape] | None:
    """The shapes of the outputs of ``op``; None where they cannot be told. Its operands are of
    its kind (:mod:`k210tasks.compiler.operands`). Raises :class:`Misfit`."""
    law = LAWS.get(op.name)
    found = None if law is None else law(op)
    return [found] if isinstance(found, tuple) else found
