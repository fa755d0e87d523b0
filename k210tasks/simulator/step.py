"""A prepared layer, and the KPU layer both formats have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from k210tasks.kpu.conv import ConvLayer
from k210tasks.kpu.layout import read_map, write_map
from k210tasks.kpu.registers import LayerRegisters, check
from k210tasks.kpu.tables import Activation, BatchNorm
from k210tasks.simulator.memory import Site


class Step(NamedTuple):
    """One layer, ready to run on the memories it was prepared for."""

    run: Callable[[], None]
    result: Callable[[], NDArray[Any]]  # a copy of what the layer produced


def writes(out: NDArray[Any], run: Callable[[], None]) -> Step:
    """A step whose result is a view of main memory."""
    return Step(run, out.copy)


#: Registers of how weights are fetched and results sent: they do not change the arithmetic.
_HARMLESS = {"dma_total_byte", "channel_byte_num", "load_time", "para_size", "o_ch_num_coef"}


def kpu_conv(
    site: Site,
    registers: LayerRegisters,
    weights: NDArray[Any],
    bn: BatchNorm,
    activation: Activation,
    *,
    batches: int = 1,
    main_output: NDArray[np.uint8] | None = None,
    lost: int = 0,
) -> Step:
    """A convolution in KPU RAM; ``main_output`` receives the dense bytes too, but ``lost`` last.

    Refuses registers that contradict the layer's geometry: what the hardware would do with
    them is not known.
    """
    site.require(1 <= batches <= 32768, "batches", f"{batches}; 1..32768 are possible")
    for deviation in check(registers, weights.dtype.itemsize, batches):
        if deviation.field not in _HARMLESS:
            raise site.fail(deviation.field, f"{deviation.value}, not {deviation.expected}")
    layer = ConvLayer.of(registers, weights, bn, activation)
    in_shape, out_shape = registers.in_shape, registers.out_shape
    pixels = batches * registers.out_channels * in_shape[1] * in_shape[2]
    site.spend(2 * registers.macs * batches + layer.epilogue.cost * pixels)
    ram = site.memory.kpu
    source = [registers.image_src_addr + i * registers.rows_in for i in range(batches)]
    target = [registers.image_dst_addr + i * registers.rows_out for i in range(batches)]
    if main_output is not None:
        site.require(
            main_output.size == batches * int(np.prod(out_shape)),
            "main_output.size",
            f"{main_output.size} bytes for {batches} map(s) of {out_shape}",
        )

    def run() -> None:
        if batches == 1:
            y = layer.run(read_map(ram, source[0], *in_shape))[None]
        else:
            y = layer.run(np.stack([read_map(ram, row, *in_shape) for row in source]))
        for row, one in zip(target, y, strict=True):
            write_map(ram, row, one)
        if main_output is not None:
            main_output[: y.size - lost] = y.reshape(-1)[: y.size - lost]

    def result() -> NDArray[np.uint8]:
        maps = np.stack([read_map(ram, row, *out_shape) for row in target])
        return maps[0] if batches == 1 else maps

    return Step(run, result)
