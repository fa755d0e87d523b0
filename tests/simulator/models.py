"""Small models that run, built from the format's own records."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks.kmodel import parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import CONST, KPU, MAIN, MemoryRange, Pad, QuantParam, Shape
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.pools import Pool
from k210tasks.kpu.registers import conv_registers
from k210tasks.kpu.tables import LOWEST_START, Activation, BatchNorm
from k210tasks.simulator import Simulator

PARKED = [(1 << 35) - 20 + i for i in range(14)]


def main_range(array_or_bytes: Any, start: int, datatype: int) -> MemoryRange:
    size = array_or_bytes if isinstance(array_or_bytes, int) else array_or_bytes.nbytes
    return MemoryRange(MAIN, datatype, start, size)


def datatype(dtype: Any) -> int:
    return 1 if np.dtype(dtype) == np.uint8 else 0


def single_v4(
    cls: type[v4_ops.Node],
    x: NDArray[Any],
    out_dtype: Any,
    out_count: int,
    *,
    input_name: str = "input",
    second: NDArray[Any] | None = None,
    second_name: str = "b",
    **fields: Any,
) -> NDArray[Any]:
    """Run one node on ``x`` through a written and parsed file; the flat output."""
    return np.concatenate(
        Simulator(parse(node_file(
            cls, x, out_dtype, out_count, input_name=input_name, second=second,
            second_name=second_name, **fields,
        ))).run(x.reshape(-1))
    )  # fmt: skip


def node_file(
    cls: type[v4_ops.Node],
    x: NDArray[Any],
    out_dtype: Any,
    out_count: int,
    *,
    input_name: str = "input",
    second: NDArray[Any] | None = None,
    second_name: str = "b",
    **fields: Any,
) -> bytes:
    """The v4 file of one node: input at 0 of main memory, output behind it, a constant."""
    given = main_range(x, 0, datatype(x.dtype))
    start = -(-x.nbytes // 8) * 8
    out = main_range(out_count * np.dtype(out_dtype).itemsize, start, datatype(out_dtype))
    if second is not None:
        fields[second_name] = MemoryRange(CONST, datatype(second.dtype), 0, second.nbytes)
    node = cls(**{input_name: given}, out=out, **fields)
    return write(
        KmodelV4(
            nodes=[node],
            inputs=[given],
            input_shapes=[Shape(1, 1, 1, x.size)],
            outputs=[out],
            constants=b"" if second is None else second.tobytes(),
            main_mem=start + out.size,
        )
    )


def conv_parts(rng: np.random.Generator, **geometry: Any) -> dict[str, Any]:
    """Registers, weights, batch norm and activation of a plausible 8-bit layer."""
    zero_w, zero_x = int(rng.integers(90, 160)), int(rng.integers(0, 30))
    k = geometry["kernel"]
    registers = conv_registers(
        arg_x=-zero_w, arg_w=-zero_x, arg_add=zero_w * zero_x * k * k, pad_value=zero_x, **geometry
    )
    oc = registers.out_channels
    taps = int(np.prod(registers.weights_shape[1:]))
    bn = BatchNorm.of(
        rng.integers(1 << 19, 1 << 21, oc), [15] * oc, rng.integers(0, 40000 * taps, oc)
    )
    activation = Activation.of(
        [LOWEST_START, 0, *PARKED], [0, max(1, 2000 // taps), *[0] * 14], [20] * 16,
        [0, 0, *[255] * 14],
    )  # fmt: skip
    return {
        "registers": registers,
        "weights": rng.integers(0, 256, registers.weights_shape).astype(np.uint8),
        "bn": bn,
        "activation": activation,
    }


def net_v3(seed: int = 0) -> KmodelV3:
    """Two convolutions, dense layers on the KPU and on the CPU, and what lies between."""
    rng = np.random.default_rng(seed)
    first = conv_parts(
        rng, in_channels=3, height=12, width=20, out_channels=4, kernel=3, pool=Pool.MAX_2,
        src_row=0, dst_row=100,
    )  # fmt: skip
    second = conv_parts(
        rng, in_channels=4, height=6, width=10, out_channels=4, kernel=3, depthwise=True,
        src_row=100, dst_row=0,
    )  # fmt: skip
    dense = conv_parts(
        rng, in_channels=8, height=4, width=4, out_channels=5, kernel=1, src_row=200, dst_row=300
    )
    a, b = 0, 1024  # two areas of main memory
    layers: list[v3_layers.Body] = [
        v3_layers.K210Conv(**first),
        v3_layers.K210Conv(flags=1, out_mem=a, **second),
        v3_layers.QuantizedMaxPool2d(
            in_mem=a, out_mem=b, in_shape=v3_layers.WHC(10, 6, 4),
            out_shape=v3_layers.WHC(5, 3, 4), kernel_w=2, kernel_h=2, stride_w=2, stride_h=2,
            pad_w=0, pad_h=0,
        ),
        v3_layers.Dequantize(in_mem=b, out_mem=a, count=60, scale=0.05, bias=-1.0),
        v3_layers.TensorflowFlatten(in_mem=a, out_mem=b, shape=v3_layers.WHC(5, 3, 4)),
        v3_layers.FullyConnected(
            in_mem=b, out_mem=a, in_ch=60, out_ch=8, act=1,
            weights=rng.normal(0, 0.2, (8, 60)).astype(np.float32),
            bias=rng.normal(0, 0.2, 8).astype(np.float32),
        ),
        v3_layers.Quantize(in_mem=a, out_mem=b, count=8, scale=0.02, bias=0.0),
        v3_layers.K210AddPadding(in_mem=b, out_kpu=200, channels=8),
        v3_layers.K210Conv(flags=1, out_mem=a, **dense),
        v3_layers.K210RemovePadding(in_mem=a, out_mem=b, channels=5),
        v3_layers.Dequantize(in_mem=b, out_mem=a, count=5, scale=0.1, bias=0.0),
        v3_layers.Softmax(in_mem=a, out_mem=b, channels=5),
    ]  # fmt: skip
    return KmodelV3(layers=layers, outputs=[v3_layers.Output(b, 20)], main_mem=2048)


def cpu_net_v3(seed: int = 0) -> KmodelV3:
    """Every layer of the CPU that :func:`net_v3` lacks, one after the other."""
    rng = np.random.default_rng(seed)
    size = 48  # 3 channels of 4x4
    layers: list[v3_layers.Body] = [
        v3_layers.FullyConnected(
            in_mem=0, out_mem=256, in_ch=4, out_ch=size, act=2,
            weights=rng.normal(0, 1, (size, 4)).astype(np.float32),
            bias=rng.normal(0, 1, size).astype(np.float32),
        ),
        v3_layers.Add(a_mem=256, b_mem=256, out_mem=512, count=size),
        v3_layers.AveragePool2d(
            in_mem=512, out_mem=256, in_shape=v3_layers.WHC(4, 4, 3),
            out_shape=v3_layers.WHC(2, 2, 3), kernel_w=3, kernel_h=3, stride_w=2, stride_h=2,
            pad_w=1, pad_h=1,
        ),
        v3_layers.ResizeNearestNeighbor(
            in_mem=256, out_mem=512, in_shape=v3_layers.WHC(2, 2, 3), out_w=4, out_h=4
        ),
        v3_layers.L2Normalization(in_mem=512, out_mem=256, channels=size),
        v3_layers.Logistic(in_mem=256, out_mem=512, channels=size),
        v3_layers.Quantize(in_mem=512, out_mem=1024, count=size, scale=1 / 255, bias=0.0),
        v3_layers.Requantize(
            in_mem=1024, out_mem=1088, count=size, table=np.arange(255, -1, -1, dtype=np.uint8)
        ),
        v3_layers.QuantizedAdd(
            a_mem=1024, b_mem=1088, out_mem=1152, count=size, a_offset=-3, a_mul=700, a_shift=9,
            b_offset=-7, b_mul=900, b_shift=10, out_offset=5, out_mul=600, out_shift=10,
        ),
        v3_layers.QuantizedConcat.of(1216, [(1152, 48), (1024, 48)]),
        v3_layers.QuantizedResizeNearestNeighbor(
            in_mem=1216, out_mem=1344, in_shape=v3_layers.WHC(4, 4, 6), out_w=3, out_h=5
        ),
        v3_layers.K210Upload(in_mem=1216, out_kpu=10, width=4, height=4, channels=6),
        v3_layers.ChannelwiseDequantize(
            in_mem=1344, out_mem=1536, channels=6, channel_size=15,
            params=rng.normal(0, 1, (6, 2)).astype(np.float32),
        ),
        v3_layers.GlobalAveragePool(in_mem=1536, out_mem=0, kernel_size=15, channels=6),
        v3_layers.Concat.of(32, [(0, 24), (1536, 16)]),
    ]  # fmt: skip
    return KmodelV3(layers=layers, outputs=[v3_layers.Output(32, 40)], main_mem=2048)


def net_v4(seed: int = 0) -> KmodelV4:
    """Upload, convolutions, and quantised and float nodes behind them."""
    rng = np.random.default_rng(seed)
    first = conv_parts(
        rng, in_channels=3, height=12, width=20, out_channels=4, kernel=3, pool=Pool.LEFT_TOP_2,
        src_row=0, dst_row=100,
    )  # fmt: skip
    second = conv_parts(
        rng, in_channels=4, height=6, width=10, out_channels=6, kernel=1, src_row=100, dst_row=0,
        send_data_out=True,
    )  # fmt: skip

    def memory(start: int, size: int, kind: int) -> MemoryRange:
        return MemoryRange(MAIN, kind, start, size)

    codes, floats = memory(0, 360, 1), memory(400, 1440, 0)
    shape = Shape(1, 6, 6, 10)
    nodes: list[v4_ops.Node] = [
        v4_ops.KpuConv2d(**first),
        v4_ops.KpuConv2d(main_output=codes, **second),
        v4_ops.KpuUpload(input=codes, out=MemoryRange(KPU, 1, 64 * 200, 64 * 12), shape=shape),
        v4_ops.Dequantize(input=codes, out=floats, quant=QuantParam(7, 20.0)),
        v4_ops.Unary(input=floats, out=floats, op=v4_ops.UnaryOp.EXP),
        v4_ops.ReduceWindow2d(
            input=floats, out=memory(1840, 360, 0), op=0, shape=shape, pad_h=Pad(0, 0),
            pad_w=Pad(0, 0), filter_h=2, filter_w=2, stride_h=2, stride_w=2, dilation_h=1,
            dilation_w=1, init=0.0,
        ),
        v4_ops.Reduce(
            input=memory(1840, 360, 0), out=memory(0, 24, 0), op=2, shape=Shape(1, 6, 3, 5),
            shape_reduced=Shape(1, 6, 1, 1), init=-1e30,
        ),
        v4_ops.Quantize(input=memory(0, 24, 0), out=memory(24, 6, 1), quant=QuantParam(3, 9.0)),
        v4_ops.NnilUnary(
            input=memory(0, 24, 0), out=memory(32, 24, 0),
            code=bytes([3, 3, 0x42, 6, 0, 0, 0x80, 0x3F, 0x40, 0xA0, 0, 0, 0, 0, 0, 0]),
        ),
    ]  # fmt: skip
    return KmodelV4(
        nodes=nodes,
        inputs=[MemoryRange(KPU, 1, 0, 64 * 24)],
        input_shapes=[Shape(1, 3, 12, 20)],
        outputs=[memory(32, 24, 0), memory(24, 6, 1)],
        main_mem=2200,
    )
