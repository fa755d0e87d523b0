"""The pools of kmodel version 3, prepared for running (docs, sections 2.4 and 8.2)."""

from __future__ import annotations

import numpy as np

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
    site.require(
        end <= memory or runtime.reads_beyond,
        "kernel_w, kernel_h",
        f"windows beyond the map make {runtime.title} read {end - memory} bytes beyond main memory",
    )
    item = np.dtype(dtype).itemsize
    whole = (min(end, memory) - body.in_mem) // item * item
    values = site.main("in_mem", body.in_mem, whole, dtype)
    behind = np.full(item, runtime.unwritten, np.uint8).view(dtype)
    out = site.main("out_mem", body.out_mem, channels * oh * ow * item, dtype)
    out = out.reshape(channels, oh, ow)
    rows, columns = pool_windows(body)
    starts = width * height * np.arange(channels, dtype=np.int32)[:, None, None]

    def run() -> None:
        total, number = np.zeros((channels, oh, ow), dtype), np.zeros((oh, ow), np.float32)
        for y in range(body.kernel_h):
            in_rows = ((y >= rows.start) & (y < rows.end))[:, None]
            for x in range(body.kernel_w):
                read = in_rows & (x >= columns.start) & (x < columns.end)
                place = (rows.origin[:, None] + y) * width + columns.origin + x
                index = np.where(read, place, 0).astype(np.int32) + starts
                taken = values.take(index, mode="clip")
                taken[index >= len(values)] = behind
                taken[:, ~read] = 0
                total = np.maximum(total, taken) if dtype == "u1" else total + taken
                number += read
        out[:] = total if dtype == "u1" else total / number

    return writes(out, run)


def pool(site: Site, body: b.Pool2d) -> Step:
    is_max = isinstance(body, b.QuantizedMaxPool2d)
    if isinstance(body, b.MaxPool2d):
        raise site.fail("type", "no K210 runtime has a handler for float max pools")
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
