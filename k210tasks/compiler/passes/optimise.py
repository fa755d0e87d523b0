"""The weights of every KPU layer, chosen layer after layer on real codes.

A few of the samples that calibration kept run through the finished layers, in the KPU's
own arithmetic. Each layer sees at sampled pixels what it will really be given, and what
the float model has there.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from k210tasks.compiler import executor, functions
from k210tasks.compiler.ir import Graph, Op, Tensor, as_fed
from k210tasks.compiler.numerics import layer as solving
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.numerics.collect import sampled_pixels
from k210tasks.compiler.numerics.weights import QuantisedWeights
from k210tasks.compiler.ops import KpuConcat, KpuConv, Upload
from k210tasks.compiler.passes.kpu_layer import Layer
from k210tasks.kpu.conv import ConvLayer
from k210tasks.kpu.pools import Pool

SMALL = 1 << 18  # codes of a map, all samples together, below which a thread costs more


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work the choice of the weights may be."""

    elements: int  # of feature maps computed in all: fewer samples where maps are large
    pixels: int  # sampled pixels per layer, at most
    feedback: int  # most weights per output channel that are rounded with error feedback
    passes: int  # sweeps of single-code moves after that

    def samples(self, graph: Graph, kept: int) -> int:
        """How many of ``kept`` samples to run: at least four, if there are."""
        size = sum(t.size for op in graph.ops if isinstance(op, KpuConv) for t in op.outputs[:1])
        return min(kept, max(4, self.elements // max(size, 1)))


EFFORTS = {
    "fast": Effort(elements=3_000_000, pixels=768, feedback=300, passes=0),
    "normal": Effort(elements=24_000_000, pixels=2048, feedback=2400, passes=0),
    "high": Effort(elements=1 << 40, pixels=6144, feedback=1 << 20, passes=3),
}


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Which pixels of a layer's full-size map are looked at: arrays of one length."""

    image: NDArray[np.int64]
    y: NDArray[np.int64]
    x: NDArray[np.int64]
    target: solving.Target | None


class Optimiser:
    """Holds the codes of all maps that later layers still read, for the chosen samples."""

    def __init__(self, graph: Graph, calibration: Calibration, effort: Effort):
        self.effort = effort
        self.calibration = calibration
        count = effort.samples(graph, len(calibration.kept))
        self.images: NDArray[np.int64] = (np.arange(count) * len(calibration.kept)) // count
        self.needed = _needed(graph)
        self.last = {t: op for op in graph.ops for t in op.inputs}
        self.values: dict[Tensor, NDArray[np.generic]] = {graph.input: self._fed(graph.input)}
        self.moments: dict[tuple[Tensor, bytes], solving.Inputs] = {}

    def _fed(self, tensor: Tensor) -> NDArray[np.generic]:
        x = self.calibration.kept[self.images]
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        return _encode(tensor, as_fed(np.ascontiguousarray(x), tensor))

    # -- running

    def advance(self, op: Op) -> None:
        """Run an op on all samples, unless no later layer depends on it, and forget what it
        read last."""
        if op in self.needed:
            inputs = [self.values[t] for t in op.inputs if t.value is None]
            if isinstance(op, KpuConv):
                result = self._layer(op, inputs[0])
                for tensor in op.outputs:
                    self.values[tensor] = result
            elif isinstance(op, KpuConcat):
                self.values[op.output] = np.concatenate(inputs, 1)
            elif isinstance(op, Upload):
                self.values[op.output] = inputs[0]
            else:
                self.values[op.output] = self._plain(op)
        for tensor in op.inputs:
            if self.last[tensor] is op:
                self.values.pop(tensor, None)
                self.moments = {k: v for k, v in self.moments.items() if k[0] is not tensor}

    def _layer(self, op: KpuConv, x: NDArray[np.generic]) -> NDArray[np.uint8]:
        numbers = op.chosen
        layer = ConvLayer(
            numbers.codes,
            numbers.bn,
            numbers.activation,
            depthwise=op.depthwise,
            pool=Pool(op.pool),
            pad_value=numbers.pad_value,
            arg_x=numbers.arg_x,
            arg_w=numbers.arg_w,
            arg_add=numbers.arg_add,
        )
        return _in_two_threads(layer.run, x)

    def _plain(self, op: Op) -> NDArray[np.generic]:
        """An op beside the KPU, on reals, one sample after the other."""
        results = []
        for n in range(len(self.images)):
            inputs = []
            for tensor in op.inputs:
                if tensor.value is not None:
                    inputs.append(np.asarray(tensor.value, np.float32))
                else:
                    # Samples lie behind each other, each with as many rows as the tensor has.
                    rows = slice(n * tensor.shape[0], (n + 1) * tensor.shape[0])
                    inputs.append(_decode(tensor, self.values[tensor][rows]))
            results.append(executor.compute(op, *inputs))
        return _encode(op.output, np.concatenate(results))

    # -- choosing

    def choose(self, layer: Layer, bits: int) -> tuple[QuantisedWeights,
                                                               NDArray[np.float64]]:  # fmt: skip
        """Rounded weights and bias (in reals) of a layer."""
        sampled = self._pixels(layer.op)
        inputs = self._inputs(layer, sampled)
        w, bias = layer.weights, layer.bias
        if sampled.target is not None and layer.op.role is None:
            w, bias = solving.adapt(w, bias, inputs, sampled.target)
        rounded = solving.round_layer(
            w,
            inputs,
            bits=bits,
            feedback=w.shape[1] <= self.effort.feedback,
            passes=self.effort.passes,
        )
        if sampled.target is not None:
            bias = solving.settle_bias(rounded.real(), bias, inputs, sampled.target)
        else:
            drift = inputs.apply(w - rounded.real()).mean(axis=0)
            bias = bias + drift
        return rounded, bias

    def _pixels(self, op: KpuConv) -> Sampled:
        h, w = op.input.shape[2:]
        found, computes = self._measured(op), op.computes
        if found is None or computes is None:
            per = self._per_image(op)
            chosen = [sampled_pixels(h * w, int(n))[:per] for n in range(len(self.images))]
            image = np.repeat(np.arange(len(chosen)), [len(c) for c in chosen])
            place = np.concatenate(chosen).astype(np.int64)
            return Sampled(image, place // w, place % w, None)
        stats_shape, flat, values, low, high = found
        (oy, ox), (sy, sx), first = computes.offset, computes.stride, computes.first
        per = self._per_image(op)
        if flat.shape[1] > per:  # spread over the map, as the pixels are
            pick = (np.arange(per) * flat.shape[1]) // per
            flat, values = flat[:, pick], values[:, pick]
        columns = stats_shape[2] if len(stats_shape) == 4 else 1
        image = np.repeat(np.arange(len(flat)), flat.shape[1])
        at: NDArray[np.int64] = flat.reshape(-1).astype(np.int64)
        y, x = oy + at // columns * sy, ox + at % columns * sx
        y_real = values.reshape(len(at), -1)[:, first : first + op.output.shape[1]]
        if op.centred:
            y_real = y_real - y_real.mean(axis=1, keepdims=True)
        y_real = np.clip(y_real, low, high)
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        if not inside.all():
            image, y, x, y_real = image[inside], y[inside], x[inside], y_real[inside]
        return Sampled(image, y, x, solving.Target(y_real.astype(np.float64), low, high))

    def _per_image(self, op: KpuConv) -> int:
        """Pixels per sample; fewer where a wide layer makes each dear."""
        wide = not op.depthwise and op.weights[0].size > solving.WIDE
        return max(1, self.effort.pixels // (3 if wide else 1) // len(self.images))

    def _measured(self, op: KpuConv) -> tuple[
        tuple[int, ...], NDArray[np.int32], NDArray[np.float32], float, float
    ] | None:  # fmt: skip
        """Shape, pixels and values of the float tensor a layer computes, and the clamp in
        front of it; the values before the activation where they were measured."""
        if op.computes is None:
            return None
        tensors = self.calibration.tensors
        pre = None if op.pre is None else op.pre.tensor.source
        stats = None if pre is None else tensors.get(pre)
        low, high = op.pre[1:] if op.pre is not None else (-math.inf, math.inf)
        leak = None
        if stats is None or stats.values is None:
            stats = tensors.get(op.computes.source)
            low, high = -math.inf, math.inf
            fn = functions.simplify(op.fn)
            clamp = functions.clamp_of(fn)
            if clamp is not None:
                low, high = clamp
            elif len(fn) == 1 and fn[0][0] == "leaky" and fn[0][1] > 0:
                leak = float(fn[0][1])
            else:
                return None
        if stats is None or stats.values is None:
            return None
        values = stats.values[self.images]
        if leak is not None:
            values = np.where(values < 0, values / np.float32(leak), values)
        pixels = self.calibration.pixels[stats.pixel_count][self.images]
        return stats.shape, pixels, values, low, high

    def _inputs(self, layer: Layer, at: Sampled) -> solving.Inputs:
        op = layer.op
        depthwise, taps = op.depthwise, op.weights.shape[2]
        key = (op.input, bytes([depthwise, taps]) + at.y.tobytes() + at.x.tobytes())
        if key not in self.moments:
            x = self.values[op.input]
            rows = _neighbourhoods(x, at, taps, layer.around)
            rows = rows.astype(np.float32) - np.float32(layer.zero)  # [P, C, taps**2]
            shaped = rows.transpose(1, 0, 2) if depthwise else rows.reshape(len(rows), -1)
            self.moments[key] = solving.Inputs.of(np.ascontiguousarray(shaped, np.float32))
        return self.moments[key]


def _in_two_threads(
    run: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], x: NDArray[np.generic]
) -> NDArray[np.uint8]:
    """``run`` of each half of the samples, at once; the same result as of all in one."""
    codes = x.view(np.uint8)
    if len(codes) == 1 or codes.size < SMALL:
        return run(codes)
    half = (len(codes) + 1) // 2
    parts: list[NDArray[np.uint8] | BaseException] = [codes, codes]

    @np.errstate(all="ignore")  # as the thread that the compiler runs in has it
    def work(part: int) -> None:
        try:
            parts[part] = run(codes[half:] if part else codes[:half])
        except BaseException as error:
            parts[part] = error

    helper = threading.Thread(target=work, args=(1,))
    helper.start()
    work(0)
    helper.join()
    done = []
    for result in parts:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return np.concatenate(done)


def _neighbourhoods(
    x: NDArray[np.generic], at: Sampled, taps: int, pad: int
) -> NDArray[np.generic]:
    """[P, C, taps * taps] codes around the sampled pixels, ``pad`` outside the map."""
    if taps == 1:
        return x[at.image, :, at.y, at.x][:, :, None]
    h, w = x.shape[2:]
    rows = np.empty((len(at.y), x.shape[1], 9), x.dtype)
    for k in range(9):
        y, xx = at.y + k // 3 - 1, at.x + k % 3 - 1
        part = x[at.image, :, np.clip(y, 0, h - 1), np.clip(xx, 0, w - 1)]
        outside = (y < 0) | (y >= h) | (xx < 0) | (xx >= w)
        part[outside] = min(max(pad, 0), 255)
        rows[:, :, k] = part
    return rows


def _needed(graph: Graph) -> set[Op]:
    """Ops whose results a layer with weights depends on."""
    wanted: set[Tensor] = set()
    needed: set[Op] = set()
    for op in reversed(graph.ops):
        feeds = any(t in wanted for t in op.outputs)
        if feeds:
            needed.add(op)
        if feeds or (isinstance(op, KpuConv) and not op.identity):
            wanted.update(op.inputs)
    return needed


def _scale_of(tensor: Tensor, rank: int) -> NDArray[np.float64] | float:
    assert tensor.quant is not None
    if tensor.scales is None:
        return tensor.quant.scale
    return tensor.scales.reshape(1, -1, *(1,) * (rank - 2))


def _decode(tensor: Tensor, codes: NDArray[np.generic]) -> NDArray[np.float32]:
    if tensor.dtype != "uint8":
        return codes.astype(np.float32)
    assert tensor.quant is not None
    real = (codes.astype(np.float64) - tensor.quant.zero_point) * _scale_of(tensor, codes.ndim)
    return real.astype(np.float32)


def _encode(tensor: Tensor, real: NDArray[np.generic]) -> NDArray[np.generic]:
    if tensor.dtype != "uint8":
        return np.asarray(real, np.float32)
    assert tensor.quant is not None
    q = np.asarray(real, np.float32) * np.asarray(1 / _scale_of(tensor, real.ndim), np.float32)
    q += np.float32(tensor.quant.zero_point)
    return np.clip(np.rint(q, out=q), 0, 255).astype(np.uint8)
