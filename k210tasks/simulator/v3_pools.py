"""The pools of kmodel version 3, prepared for running (docs, sections 2.4 and 8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import v3_layers as b
from k210tasks.kmodel.quirks import beyond_map, pool_windows, read_end
from k210tasks.simulator.arrays import Axis, counts, taps
from k210tasks.simulator.memory import STEP_WORK, Site, elements
from k210tasks.simulator.step import Step, writes

FLOAT = "<f4"


def _wrapped_pool(site: Site, body: b.Pool2d) -> Step:
    """A pool some of whose windows lie beyond its map, and read other values of main memory."""
    (width, height, channels), (ow, oh, _) = body.in_shape, body.out_shape
    dtype = "u1" if isinstance(body, b.QuantizedMaxPool2d) else FLOAT
    memory, end, runtime = len(site.memory.main), read_end(body), site.runtime
    item = np.dtype(dtype).itemsize
    whole = (min(end, memory) - body.in_mem) // item * item
    values = site.main("in_mem", body.in_mem, whole, dtype)
    behind = np.full(item, runtime.unwritten, np.uint8).view(dtype)
    out = site.main("out_mem", body.out_mem, channels * oh * ow * item, dtype)
    out = out.reshape(channels, oh, ow)
    (y_origin, y_from, y_to), (x_origin, x_from, x_to) = (a.taps() for a in pool_windows(body))
    starts = width * height * np.arange(channels, dtype=np.int32)[:, None, None]
    is_max = dtype == "u1"

    def taps_read() -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int32]]]:
        """Of every tap: which outputs read it (OH, OW), and which values (C, OH, OW)."""
        for y in range(body.kernel_h):
            in_rows = ((y >= y_from) & (y < y_to))[:, None]
            for x in range(body.kernel_w):
                read = in_rows & (x >= x_from) & (x < x_to)
                place = (y_origin[:, None] + y) * width + x_origin + x
                yield read, np.where(read, place, 0).astype(np.int32) + starts

    # Outputs that read what this layer itself has written before.
    own = (body.out_mem - body.in_mem) / item
    late = np.zeros(out.shape, bool)
    for read, index in taps_read():
        late |= read & (index >= own) & (index < own + out.size)

    def take(chosen: Any = ...) -> NDArray[Any]:
        total: Any = np.zeros(out.shape, dtype)[chosen]
        number: Any = np.zeros(out.shape, np.float32)[chosen]
        for read, index in taps_read():
            there = np.broadcast_to(read, out.shape)[chosen]
            taken = np.asarray(values.take(index[chosen], mode="clip"))
            taken = np.where(index[chosen] < len(values), taken, behind)
            taken = np.where(there, taken, np.zeros(1, dtype))
            total = np.maximum(total, taken) if is_max else total + taken
            number = number + there
        return np.asarray(total if is_max else total / number)

    def run() -> None:
        result, flat, done = take().reshape(-1), out.reshape(-1), 0
        for place in np.flatnonzero(late).tolist():
            flat[done:place] = result[done:place]
            result[place], done = take(np.unravel_index(place, out.shape)), place
        flat[done:] = result[done:]

    return writes(out, run)


def pool(site: Site, body: b.Pool2d) -> Step:
    is_max = isinstance(body, b.QuantizedMaxPool2d)
    (iw, ih, ic), (ow, oh, oc) = body.in_shape, body.out_shape
    site.require(ic == oc, "out_shape", f"{oc} channels from {ic}")
    in_count = elements(site, "in_shape", (ic, ih, iw))
    out_count = elements(site, "out_shape", (oc, oh, ow))
    site.require(min(body.stride_w, body.stride_h) > 0, "stride_w, stride_h", "0; must be positive")
    site.require(min(body.kernel_w, body.kernel_h) > 0, "kernel_w, kernel_h", "0; must be positive")
    site.spend(body.kernel_h * body.kernel_w * (20 * out_count + STEP_WORK))
    if site.runtime.wraps_windows and beyond_map(body):
        return _wrapped_pool(site, body)
    h = Axis(ih, body.pad_h, body.kernel_h, body.stride_h, 1, oh)
    w = Axis(iw, body.pad_w, body.kernel_w, body.stride_w, 1, ow)
    if is_max:
        codes = site.main("in_mem", body.in_mem, in_count).reshape(ic, ih, iw)
        best = site.main("out_mem", body.out_mem, out_count).reshape(oc, oh, ow)

        def maximum() -> None:
            result = np.zeros((oc, oh, ow), np.uint8)
            for _, _, (oy, ox), (iy, ix) in taps(h, w):
                np.maximum(result[:, oy, ox], codes[:, iy, ix], out=result[:, oy, ox])
            best[:] = result

        return writes(best, maximum)
    x = site.main("in_mem", body.in_mem, 4 * in_count, FLOAT).reshape(ic, ih, iw)
    out = site.main("out_mem", body.out_mem, 4 * out_count, FLOAT).reshape(oc, oh, ow)
    number = counts(h, w).astype(np.float32)

    def average() -> None:
        total = np.zeros((oc, oh, ow), np.float32)
        for _, _, (oy, ox), (iy, ix) in taps(h, w):
            total[:, oy, ox] += x[:, iy, ix]
        out[:] = total / number

    return writes(out, average)
