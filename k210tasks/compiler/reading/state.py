"""The graph under construction while a TFLite file is read, and what its handlers share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import functions
from k210tasks.compiler.functions import Fn
from k210tasks.compiler.ir import Op, Tensor, nchw, nhwc, to_nchw
from k210tasks.compiler.ops import Reshape, Transpose
from k210tasks.compiler.problems import BadModel
from k210tasks.compiler.source import real
from k210tasks.compiler.source_ops import SourceOp, SourceTensor

TO_NHWC = (0, 2, 3, 1)
TO_NCHW = (0, 3, 1, 2)
AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # TFLite axis of a feature map -> ours

_FUSED: dict[str, Fn] = {
    "NONE": (),
    "RELU": (functions.RELU,),
    "RELU6": (functions.RELU6,),
    "RELU_N1_TO_1": (functions.RELU_N1_TO_1,),
}


class Builder:
    """The ops of a graph under construction. ``label`` names the source op under way."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.label = ""

    def write(self, op: Op, out: Tensor) -> Tensor:
        """Append an op that puts out ``out``."""
        op.outputs, op.origin = [out], (self.label,)
        self.ops.append(op)
        return out

    def emit(self, op: Op, shape: tuple[int, ...]) -> Tensor:
        """Append an op, and its output."""
        return self.write(op, Tensor(f"{op.input.name}/{op.kind}", tuple(int(n) for n in shape)))


class Reader(Builder):
    """The tensors read so far, by index in the file, and the ops that compute them."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, Tensor] = {}

    # -- tensors

    def like(self, t: SourceTensor, shape: tuple[int, ...] | None = None) -> Tensor:
        """A new tensor holding what ``t`` holds."""
        out = Tensor(t.name, nchw(t.shape) if shape is None else shape, source=t.index)
        if t.scale is not None and t.zero_point is not None and t.type in ("INT8", "UINT8"):
            codes = (-128, 127) if t.type == "INT8" else (0, 255)
            low, high = ((c - t.zero_point[0]) * t.scale[0] for c in codes)
            out.range = (float(low), float(high))
        return out

    def get(self, t: SourceTensor | None) -> Tensor:
        assert t is not None
        if t.index not in self.values:
            if t.value is None:
                raise BadModel(f"tensor {t.name!r} is read by {self.label} before it is written")
            value = to_nchw(real(t))
            self.values[t.index] = Tensor(t.name, value.shape, value=value, source=t.index)
        return self.values[t.index]

    def finish(self, source: SourceOp, op: Op, which: int = 0) -> None:
        """The last op of a source op: it writes the source op's output."""
        target = source.outputs[which]
        self.values[target.index] = self.write(op, self.like(target))

    def hold(self, op: SourceOp, x: Tensor) -> None:
        """``x``, which some op already writes, as the output of a source op."""
        target = op.outputs[0]
        if x.source is None and x.value is None:
            like = self.like(target)
            x.source, x.name, x.range = like.source, like.name, like.range
        self.values[target.index] = x

    def as_source(self, x: Tensor) -> Tensor:
        """``x`` with its elements in TFLite's order."""
        if len(x.shape) != 4:
            return x
        if x.value is not None:
            value = x.value.transpose(TO_NHWC)
            return Tensor(x.name, value.shape, value=value)
        return self.emit(Transpose([x], perm=TO_NHWC), nhwc(x.shape))

    def reshape_to(self, op: SourceOp, x: Tensor, which: int = 0) -> None:
        """Write ``x``, in TFLite's order, reshaped, as an output of ``op``."""
        last: Op = Reshape([x])
        if len(shape := op.outputs[which].shape) == 4:
            last = Transpose([self.emit(last, shape)], perm=TO_NCHW)
        self.finish(op, last, which)

    def reshaped(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``x`` with TFLite shape ``shape``, in the layout of its rank."""
        y = self.as_source(x)
        if y.value is not None:
            value = to_nchw(y.value.reshape(shape))
            return Tensor(x.name, value.shape, value=value)
        y = self.emit(Reshape([y]), shape)
        return self.emit(Transpose([y], perm=TO_NCHW), nchw(shape)) if len(shape) == 4 else y

    def as_map(self, x: Tensor) -> Tensor:
        """A one-dimensional map (1, places, channels) as one of a single row."""
        return self.reshaped(x, (1, *x.shape))

    def axis(self, axis: int, rank: int) -> int:
        """An axis of a TFLite tensor in the layout of its rank."""
        axis %= rank
        return AXIS[axis] if rank == 4 else axis

    def activation(self, op: SourceOp) -> Fn:
        return _FUSED[op.options.get("activation", "NONE")]


def floats(t: SourceTensor | None) -> NDArray[np.float32]:
    assert t is not None
    return real(t).astype(np.float32)


Handler = Callable[[Reader, SourceOp], None]
