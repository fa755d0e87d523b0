"""The arithmetic of one KPU layer on plain arrays, bit exact (docs, section 1.9).

A :class:`ConvLayer` is prepared once and run on any number of uint8 maps. Matrix products
run in float32, where need be in several parts that are added up in float64, or in float64: a
sum of integers whose absolute values add up to less than 2**24 (2**53) is exact in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kpu.activation import Epilogue
from k210tasks.kpu.blas import one_thread
from k210tasks.kpu.errors import IllegalLayer
from k210tasks.kpu.pools import POOLS, Pool, apply_pool
from k210tasks.kpu.registers import LayerRegisters
from k210tasks.kpu.tables import Activation, BatchNorm

#: Integers up to here are exact in float32.
EXACT_FLOAT32 = 1 << 24
#: A float64 product takes about twice as long; more parts than this do not pay.
MAX_PARTS = 12
#: Values handled at a time: small enough for the second-level cache.
BLOCK = 32768
#: Pixels a matrix product takes at least, however many channels there are.
SMALLEST_BLOCK = 64
#: Pixels of a batch brought together at a time, to bound memory.
BATCH_PIXELS = 1 << 17


def exact_parts(weights: NDArray[Any]) -> list[slice]:
    """Ranges of taps of (OC, taps) whose products with pixels stay exact in float32.

    Empty where so many would be needed that float64 throughout is faster.
    """
    total = np.cumsum(np.abs(weights), axis=1, dtype=np.int64) * 255
    parts: list[slice] = []
    start, done = 0, np.zeros((len(weights), 1), np.int64)
    while start < weights.shape[1]:
        fits = int(np.searchsorted((total[:, start:] - done).max(0), EXACT_FLOAT32))
        if fits == 0 or len(parts) == MAX_PARTS:
            return []
        parts.append(slice(start, start + fits))
        start += fits
        done = total[:, start - 1 : start]
    return parts


class ConvLayer:
    """Convolution, batch norm, activation and pool of one layer.

    ``weights`` is uint8 or uint16 (OC, IC, k, k) with k 1 or 3, depthwise (C, 1, k, k).
    The remaining arguments are the registers of the same names: the accumulator of output
    channel ``o`` is ``sum(w*x) + (arg_x*sum(x) >> shr_x) + (arg_w*sum(w) >> shr_w)
    + arg_add*IC`` (depthwise: ``+ arg_add``). Raises :class:`IllegalLayer` where the
    arrays do not fit together.
    """

    def __init__(
        self,
        weights: NDArray[Any],
        bn: BatchNorm,
        activation: Activation,
        *,
        depthwise: bool = False,
        pool: Pool = Pool.BYPASS,
        pad_value: int = 0,
        arg_x: int = 0,
        shr_x: int = 0,
        arg_w: int = 0,
        shr_w: int = 0,
        arg_add: int = 0,
    ):
        if weights.ndim != 4 or weights.shape[2:] not in ((1, 1), (3, 3)) or not weights.size:
            raise IllegalLayer("weights", f"of shape {weights.shape}", "OC, IC, k, k with k 1 or 3")
        if depthwise and weights.shape[1] != 1:
            raise IllegalLayer(
                "weights", f"of shape {weights.shape}", "C, 1, k, k: it is depthwise"
            )
        if len(bn) != len(weights):
            raise IllegalLayer("batch norm", f"{len(bn)} entries", f"{len(weights)}, one a channel")
        self.depthwise, self.pool, self.pad_value = depthwise, pool, pad_value
        self.kernel = weights.shape[2]
        self.out_channels = len(weights)
        self.in_channels = self.out_channels if depthwise else weights.shape[1]
        # int32 holds any weight with any 24-bit offset; sums need more.
        flat = weights.reshape(self.out_channels, -1).astype(np.int32)
        taps = flat.shape[1]
        total = flat.sum(1, dtype=np.int64)
        offset = ((arg_w * total) >> shr_w) + arg_add * (1 if depthwise else self.in_channels)
        #: arg_x*sum(x) >> shr_x where it cannot be folded into the weights, as (arg_x, shr_x).
        self.separate: tuple[int, int] | None = None
        extra_low = extra_high = 0
        if arg_x % (1 << shr_x) == 0:
            flat += arg_x >> shr_x
            total += taps * (arg_x >> shr_x)
        else:
            self.separate = (arg_x, shr_x)
            reach = (arg_x * 255 * taps) >> shr_x
            extra_low, extra_high = min(0, reach), max(0, reach)
        absolute = np.abs(flat).sum(1, dtype=np.int64)
        low, high = 255 * ((total - absolute) // 2), 255 * ((total + absolute) // 2)
        #: Largest sum of absolute values in any matrix product of this layer.
        self.reach = 255 * int(absolute.max())
        #: Ranges of taps whose products are summed in float32, then added up in float64.
        self.parts = [slice(0, taps)]
        if self.reach >= EXACT_FLOAT32:
            self.parts = [] if depthwise else exact_parts(flat)
        self.dtype: type[np.floating[Any]] = np.float32 if self.parts else np.float64
        self.weights = flat.astype(self.dtype)
        self.epilogue = Epilogue(bn, activation, low + extra_low, high + extra_high, offset)
        self.stride = POOLS[pool].stride if POOLS[pool].op == "pick" else 1

    @classmethod
    def of(
        cls,
        registers: LayerRegisters,
        weights: NDArray[Any],
        bn: BatchNorm,
        activation: Activation,
    ) -> ConvLayer:
        """A layer as its registers describe it."""
        r = registers
        return cls(
            weights,
            bn,
            activation,
            depthwise=r.depthwise,
            pool=r.pool,
            pad_value=r.pad_value,
            arg_x=r.arg_x,
            shr_x=r.shr_x,
            arg_w=r.arg_w,
            shr_w=r.shr_w,
            arg_add=r.arg_add,
        )

    def run(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The uint8 output (OC, OH, OW) of one map (C, H, W), or of a batch with N in front."""
        if x.ndim == 3:
            one: NDArray[np.uint8] = self.run(x[None])[0]
            return one
        if x.ndim != 4:
            raise IllegalLayer("input", f"of shape {x.shape}", "C, H, W or N, C, H, W")
        step = max(1, BATCH_PIXELS // (x.shape[2] * x.shape[3]))
        with one_thread():
            if len(x) <= step:
                return self._run(x)
            return np.concatenate([self._run(x[i : i + step]) for i in range(0, len(x), step)])

    def _run(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if x.shape[1] != self.in_channels or x.dtype != np.uint8:
            raise IllegalLayer(
                "input", f"{x.dtype} of shape {x.shape}", f"uint8 with {self.in_channels} channels"
            )
        if self.kernel == 1:
            out = self._pointwise(x)
        elif self.stride > 1 and not self.depthwise:
            out = self._sampled(x)
        else:
            out = self._spatial(x)
        return apply_pool(out, self.pool) if out.shape[2:] == x.shape[2:] else out

    def _accumulate(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Accumulators (OC, n) of columns (taps, n), all but the constant offset."""
        if len(self.parts) <= 1:
            acc = np.matmul(self.weights, columns)
        else:
            acc = np.zeros((self.out_channels, columns.shape[1]))
            for part in self.parts:
                acc += np.matmul(self.weights[:, part], columns[part])
        if self.separate is not None:
            arg_x, shr_x = self.separate
            sums = columns.sum(0, dtype=np.float64)
            acc = acc + np.floor(sums * (arg_x * 2.0**-shr_x))
        return acc

    def _columns_at_once(self, taps: int) -> int:
        """How many pixels make a block."""
        return max(SMALLEST_BLOCK, BLOCK // max(self.out_channels, taps // 4))

    def _pointwise(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """1x1 kernels: no neighbours, so a picking pool can come first."""
        if self.stride > 1:
            x = apply_pool(x, self.pool)
        n, channels, height, width = x.shape
        pixels = n * height * width
        flat = x.reshape(channels, pixels) if n == 1 else x.swapaxes(0, 1).reshape(channels, pixels)
        out = np.empty((self.out_channels, pixels), np.uint8)
        if self.depthwise:
            self._depthwise(flat[:, None].astype(self.dtype), out, (0,))
        else:
            step = self._columns_at_once(channels)
            for i in range(0, pixels, step):
                columns = flat[:, i : i + step].astype(self.dtype)
                self.epilogue(self._accumulate(columns), out=out[:, i : i + step])
        return out.reshape(self.out_channels, n, height, width).swapaxes(0, 1)

    def _padded(self, x: NDArray[np.uint8]) -> NDArray[Any]:
        """(C, N, H+2, W+2) of the layer's float type, a frame of pad_value around each map."""
        n, channels, height, width = x.shape
        padded = np.empty((channels, n, height + 2, width + 2), self.dtype)
        padded[:, :, 0] = padded[:, :, -1] = self.pad_value
        padded[:, :, :, 0] = padded[:, :, :, -1] = self.pad_value
        padded[:, :, 1:-1, 1:-1] = x.swapaxes(0, 1)
        return padded

    def _spatial(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """3x3 kernels, every pixel.

        Maps are flattened with their frames, so that a tap is a shift of the whole plane;
        the results at the frame's two columns and rows are junk and cut off at the end.
        """
        n, channels, height, width = x.shape
        padded = self._padded(x)
        pitch = width + 2
        plane = n * (height + 2) * pitch
        flat = padded.reshape(channels, plane)
        shifts = [dy * pitch + dx for dy in range(3) for dx in range(3)]
        count = plane - shifts[-1]  # the last pixel whose window is whole
        out = np.empty((self.out_channels, plane), np.uint8)
        if self.depthwise:
            self._depthwise(flat[:, None], out, shifts)
        else:
            step = self._columns_at_once(9 * channels)
            columns = np.empty((channels, 9, min(step, count)), self.dtype)
            for i in range(0, count, step):
                size = min(step, count - i)
                part = columns[:, :, :size]
                for k, shift in enumerate(shifts):
                    part[:, k] = flat[:, i + shift : i + shift + size]
                acc = self._accumulate(part.reshape(channels * 9, size))
                self.epilogue(acc, out=out[:, i : i + size])
        maps = out.reshape(self.out_channels, n, height + 2, pitch)
        return maps[:, :, :height, :width].swapaxes(0, 1)

    def _sampled(self, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """3x3 kernels under a pool that picks one pixel of a window: only those are computed."""
        n, channels, height, width = x.shape
        padded = self._padded(x)
        stride, (py, px) = self.stride, POOLS[self.pool].pick
        out_h, out_w = height // stride, width // stride
        out = np.empty((self.out_channels, n, out_h, out_w), np.uint8)
        rows = max(1, self._columns_at_once(9 * channels) // out_w)
        for i in range(n):
            for y in range(0, out_h, rows):
                count = min(rows, out_h - y)
                columns = np.empty((channels, 3, 3, count, out_w), self.dtype)
                for dy in range(3):
                    top = y * stride + py + dy
                    lines = padded[:, i, top : top + (count - 1) * stride + 1 : stride]
                    for dx in range(3):
                        left = px + dx
                        columns[:, dy, dx] = lines[
                            :, :, left : left + (out_w - 1) * stride + 1 : stride
                        ]
                acc = self._accumulate(columns.reshape(channels * 9, count * out_w))
                out[:, i, y : y + count] = self.epilogue(acc).reshape(-1, count, out_w)
        return out.swapaxes(0, 1)

    def _depthwise(
        self, flat: NDArray[Any], out: NDArray[np.uint8], shifts: list[int] | tuple[int, ...]
    ) -> None:
        """Fill ``out`` (C, plane) from planes (C, 1, plane), one multiply-add per tap."""
        channels, _, plane = flat.shape
        count = plane - shifts[-1]
        step = min(count, BLOCK)
        group = max(1, BLOCK // count)
        for c in range(0, channels, group):
            part = slice(c, min(c + group, channels))
            weights = self.weights[part]
            for i in range(0, count, step):
                size = min(step, count - i)
                acc = flat[part, 0, i : i + size] * weights[:, 0:1]
                product = np.empty_like(acc)
                for k, shift in enumerate(shifts[1:], 1):
                    np.multiply(
                        flat[part, 0, i + shift : i + shift + size], weights[:, k : k + 1], product
                    )
                    acc += product
                if self.separate is not None:
                    arg_x, shr_x = self.separate
                    total = flat[part, 0, i : i + size].copy()
                    for shift in shifts[1:]:
                        total += flat[part, 0, i + shift : i + shift + size]
                    acc = acc + np.floor(total.astype(np.float64) * (arg_x * 2.0**-shr_x))
                self.epilogue(acc, part, out[part, i : i + size])
