"""Max pools by the KPU's pool stage."""

from __future__ import annotations

from k210tasks.compiler.forms import POOLS
from k210tasks.compiler.ir import Tensor
from k210tasks.compiler.ops import NEVER, KpuConv, Pads, Pair
from k210tasks.compiler.passes.lowering import Lowering
from k210tasks.compiler.passes.maps import Pixels, Value

#: copies a pool to a small map may take beside the CPU, by version, and the weights of one:
#: kmodel 3 pools codes on the CPU, in the layer that would have to pick the pixels anyway,
#: kmodel 4 floats
COPIES_BESIDE_CPU = {3: 0, 4: 1}
MOST_COPIED = 16_384


def max_pool(dev: Lowering, v: Value, out: Value, kernel: Pair, stride: Pair,
             pads: Pads, fuse: bool) -> bool:  # fmt: skip
    """A max pool by the KPU's pool stage; False where it cannot be one exactly.

    ``fuse``: nothing else reads the input, so the layer that writes it may pool it.
    """
    if kernel[0] != kernel[1] or stride[0] != stride[1]:
        return False
    k, s = kernel[0], stride[0]
    size = (out.shape[2], out.shape[3])
    m = dev.settled(v)
    if m is None:
        return False
    if k == s and k in (2, 4) and not (pads[0] or pads[2]):
        within = all(n * k <= h for n, h in zip(size, m.size, strict=True))
        if not dev.writes(m.tensor.shape[2] // k, m.tensor.shape[3] // k):
            return within and _in_place(dev, m, out, k, size, fuse)
        m = dev.shifted(m, (m.offset[0] % k, m.offset[1] % k)) if any(
            o % k for o in m.offset) else m  # fmt: skip
        target = Pixels(m.tensor, m.offset, (k, k), size)
        inside = all(
            o + n * k <= h for o, n, h in zip(m.offset, size, m.tensor.shape[2:], strict=True)
        )
        if not (inside and within):
            return False
        out.map = dev.after_pool(target, _pooled(dev, m.tensor, 1 if k == 2 else 3, out, fuse))
    elif k in (2, 3) and s in (1, 2, 4) and max(pads[0], pads[2]) <= k - 2:
        if not m.whole and any(pads):
            return False
        tensor = m.tensor
        for turn in range(k - 1):
            if turn and (pads[0] or pads[2]):
                # What moves in is code 0, which never wins.
                tensor = _moved_down(dev, tensor, (pads[0], pads[2]))
            tensor = _pooled(dev, tensor, 9, out, fuse)
        out.map = Pixels(tensor, m.offset, stride, size)
    else:
        return False
    if out.map.whole:
        out.map = Pixels.of(out.map.tensor)
    return True


def _in_place(dev: Lowering, m: Pixels, out: Value, k: int, size: Pair, fuse: bool) -> bool:
    """A pool to maps too small for the KPU to write: the maximum of the window at every pixel,
    of which those of the pool are picked. False where the CPU does it for less."""
    offset, step, pools = m.offset, k, [9] * (k - 1)
    halves = [n // 2 for n in m.tensor.shape[2:]]
    if k == 4 and dev.writes(*halves) and not any(o % 2 for o in offset):
        offset, step, pools = (offset[0] // 2, offset[1] // 2), 2, [1, 9]
    copies = len(pools) - (_poolable(dev, m.tensor, fuse) is not None)
    if copies > COPIES_BESIDE_CPU[dev.version] or copies * m.tensor.shape[1] ** 2 > MOST_COPIED:
        return False
    tensor = m.tensor
    for pool in pools:
        tensor = _pooled(dev, tensor, pool, out, fuse)
    out.map = Pixels(tensor, offset, (step, step), size)
    return True


def _moved_down(dev: Lowering, tensor: Tensor, by: Pair) -> Tensor:
    moved = dev.copy(tensor, tap=(-by[0], -by[1]))
    layer = dev.producers[moved]
    assert isinstance(layer, KpuConv), "a copy is one layer"
    layer.pad_code, layer.pad_value = 0, NEVER
    return moved


def _poolable(dev: Lowering, tensor: Tensor, fuse: bool) -> KpuConv | None:
    """The layer that writes ``tensor``, where it may pool it as well."""
    producer = dev.producers.get(tensor)
    if not fuse or not isinstance(producer, KpuConv) or producer.depthwise or producer.pool:
        return None
    alone = len(producer.outputs) == 1 and not any(tensor in o.inputs for o in dev.ops)
    return producer if alone else None


def _pooled(dev: Lowering, tensor: Tensor, pool: int, out: Value, fuse: bool) -> Tensor:
    """``tensor`` pooled, with ``fuse`` in the layer that writes it."""
    producer = _poolable(dev, tensor, fuse)
    if producer is not None:
        stride = POOLS[pool][2]
        producer.pool = pool
        tensor.shape = (*tensor.shape[:2], tensor.shape[2] // stride, tensor.shape[3] // stride)
        tensor.name = out.name
        if out.source is not None:
            tensor.source, tensor.range = out.source, out.range
        return tensor
    pooled = dev.copy(tensor, pool=pool)
    pooled.name = out.name
    return pooled
