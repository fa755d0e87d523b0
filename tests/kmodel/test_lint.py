"""Every pitfall in a file made for it, and its message word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from k210tasks.kmodel import parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import NO_RANGE
from k210tasks.kmodel.lint import PITFALLS, lint
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import WHC
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.pools import Pool
from tests.simulator import models

WINDOW = {"kernel_w": 1, "kernel_h": 1, "stride_w": 1, "stride_h": 1, "pad_w": 0, "pad_h": 0}


def conv(main: int | None = None, **geometry: Any) -> v3_layers.K210Conv:
    given = {"in_channels": 1, "height": 4, "width": 4, "out_channels": 1, "kernel": 1}
    given |= {"src_row": 0, "dst_row": 8000}
    parts = models.conv_parts(np.random.default_rng(0), **given | geometry)
    return v3_layers.K210Conv(flags=int(main is not None), out_mem=main or 0, **parts)


def dense(act: int = 0, count: int = 4) -> v3_layers.FullyConnected:
    eye = np.eye(count, dtype=np.float32)
    return v3_layers.FullyConnected(
        in_mem=0, out_mem=0, in_ch=count, out_ch=count, act=act, weights=eye, bias=eye[0]
    )


def pad(width: int, right: int, cls: Any = v3_layers.QuantizedMaxPool2d) -> Any:
    return cls(
        in_mem=0,
        out_mem=64,
        in_shape=WHC(width, 4, 1),
        out_shape=WHC(width + right, 4, 1),
        **WINDOW,
    )


def v3(*layers: v3_layers.Body, main_mem: int = 4096) -> KmodelV3:
    """A file of a harmless convolution and these layers."""
    return KmodelV3(layers=[conv(0), *layers], outputs=[], main_mem=main_mem)


def v4(cls: Any, out: int = 4, constants: bytes = b"", **fields: Any) -> KmodelV4:
    data = models.node_file(cls, np.zeros(fields.pop("given", 4), np.float32), "<f4", out, **fields)
    model = parse(data)
    assert isinstance(model, KmodelV4)
    model.constants = constants
    return model


def transposed(bias: float) -> KmodelV4:
    one = np.ones((1, 1, 1, 1), np.float32)
    shape = models.Shape(1, 1, 2, 2)
    return v4(
        v4_ops.Conv2dTranspose, shape=shape, shape_out=shape, groups=1, filter_h=1, filter_w=1,
        pad_h=models.Pad(0, 0), pad_w=models.Pad(0, 0), stride_h=1, stride_w=1, dilation_h=1,
        dilation_w=1, act=NO_RANGE, weights=one, bias=np.full(1, bias, np.float32),
    )  # fmt: skip


def dequantize(scale: float, bias: float) -> v3_layers.Dequantize:
    return v3_layers.Dequantize(in_mem=0, out_mem=16, count=4, scale=scale, bias=bias)


def slow_loading(coef: int) -> v3_layers.K210Conv:
    """128 channels, ``coef`` + 1 a load."""
    made = conv(out_channels=128, dst_row=9000)
    made.registers = replace(made.registers, o_ch_num_coef=coef)
    return made


def looked_up(count: int, start: int = 64, to: int = 2048) -> v3_layers.Requantize:
    """Reads what ``conv(64)`` left in main memory."""
    table = np.zeros(256, np.uint8)
    return v3_layers.Requantize(in_mem=start, out_mem=to, count=count, table=table)


SOFTMAX = v3_layers.Softmax(in_mem=16, out_mem=32, channels=4)
ADD = v3_layers.QuantizedAdd(
    a_mem=0, b_mem=0, out_mem=4088, count=4, a_offset=0, a_mul=1, a_shift=0, b_offset=0, b_mul=1,
    b_shift=0, out_offset=0, out_mul=1, out_shift=0,
)  # fmt: skip
QUANTIZE = v3_layers.Quantize(in_mem=0, out_mem=16, count=4, scale=1.0, bias=0.0)
REQUANTIZE = v3_layers.Requantize(in_mem=0, out_mem=64, count=64, table=np.zeros(256, np.uint8))
LOGISTIC = v3_layers.Logistic(in_mem=0, out_mem=0, channels=4)
UPLOAD = v3_layers.K210Upload(in_mem=0, out_kpu=0, width=8, height=4, channels=1)
PADDING = "pad by one pixel at a time, by a concat of zeros, or on the KPU"

#: Pitfall, runtime, a file that falls into it, one that does not, the message.
CASES: list[tuple[str, str, Any, Any, str]] = [
    ("other_version", "sdk_master", v4(v4_ops.Unary, op=0), v3(),
     "the file: SDK master loads kmodel 3, and this is kmodel 4: compile it for kmodel 3"),
    ("float_max_pool", "maixpy", v3(pad(4, 1, v3_layers.MaxPool2d)), v3(pad(4, 1)),
     "layer 1 (MaxPool2d): type: no K210 runtime has a handler for float max pools: pool the "
     "quantised map with QuantizedMaxPool2d"),
    ("begins_otherwise", "maixpy", KmodelV3(layers=[SOFTMAX], outputs=[], main_mem=64), v3(),
     "layer 0 (Softmax): no K210 runtime starts with it: the first layer must be K210Conv2d (fed "
     "with uint8 pixels) or FullyConnected (fed with float32)"),
    ("begins_dense", "maixduino", KmodelV3(layers=[dense()], outputs=[], main_mem=64), v3(dense()),
     "layer 0 (FullyConnected): the Maixduino core returns -1 from a file that begins with "
     "FullyConnected: let a layer of the KPU come first, fed with uint8 codes"),
    ("untold_shape", "maixpy", KmodelV3(layers=[dense()], outputs=[], main_mem=64), v3(dense()),
     "layer 0 (FullyConnected): MaixPy cannot tell the input shape of a file that begins with "
     "FullyConnected (ERR_GET_CONV_LAYER): let a layer of the KPU come first, or feed a list of "
     "floats and never an image"),
    ("lacking", "freertos", v3(LOGISTIC), v3(SOFTMAX),
     "layer 1 (Logistic): the FreeRTOS SDK has no code for it: compute it with other layers, or "
     "in the application"),
    ("dense_overflow", "freertos", v3(dense()), v3(),
     "layer 1 (FullyConnected): the FreeRTOS SDK copies its weights to a quarter of the memory "
     "they need, over its heap: keep the layer on the KPU"),
    ("ignored_act", "sdk_master", v3(dense(2)), v3(dense(0)),
     "layer 1 (FullyConnected): SDK master ignores its activation relu6 and puts out linear "
     "values: keep the layer on the KPU, or write the activation as a layer of its own"),
    ("ignored_pool_act", "sdk_develop",
     v3(v3_layers.AveragePool2d(act=1, **{**vars(pad(4, 0)), "offset": None})),
     v3(pad(4, 0, v3_layers.AveragePool2d)),
     "layer 1 (AveragePool2d): every runtime ignores its activation, number 1: write the "
     "activation as a layer of its own"),
    ("beyond_memory", "sdk_develop", v3(pad(4, 3), main_mem=16), v3(pad(4, 1), main_mem=16),
     "layer 1 (QuantizedMaxPool2d): windows beyond the map make SDK develop read 3 bytes beyond "
     f"main memory: {PADDING}"),
    ("window_beyond_map", "maixpy", v3(pad(4, 2)), v3(pad(4, 1)),
     "layer 1 (QuantizedMaxPool2d): MaixPy does not clip windows that begin beyond the map, and "
     f"reads the bytes that follow: {PADDING}"),
    ("lost_byte", "maixpy", v3(conv(64, width=128), looked_up(512)),
     v3(conv(64, width=127), looked_up(508)),
     "layer 1 (K210Conv2d): MaixPy loses the last byte of its map in main memory, 128 pixels "
     "wide: call kpu.forward(task, image, dma=1), or let the width be no multiple of 64"),
    ("lost_byte", "maixpy", v3(conv(64, width=128), looked_up(511), looked_up(512)),
     v3(conv(64, width=128), looked_up(511), looked_up(512, 1024, 64), looked_up(512)),
     "layer 1 (K210Conv2d): MaixPy loses the last byte of its map in main memory, 128 pixels "
     "wide: call kpu.forward(task, image, dma=1), or let the width be no multiple of 64"),
    ("misplaced_upload", "freertos", v3(UPLOAD),
     v3(v3_layers.K210Upload(in_mem=4, out_kpu=0, width=8, height=4, channels=1)),
     "layer 1 (K210Upload): the FreeRTOS SDK uploads maps whose width is a multiple of 8 to wrong "
     "lines of KPU RAM: let the width, 8, be no multiple of 8"),
    ("upload_beyond_ram", "freertos",
     v3(v3_layers.K210Upload(in_mem=0, out_kpu=32750, width=8, height=4, channels=1)), v3(UPLOAD),
     "layer 1 (K210Upload): the FreeRTOS SDK uploads it 392 bytes beyond KPU RAM: let the width "
     "be no multiple of 8"),
    ("partial_requantize", "freertos", v3(REQUANTIZE),
     v3(v3_layers.Requantize(in_mem=0, out_mem=64, count=8, table=REQUANTIZE.table)),
     "layer 1 (Requantize): the FreeRTOS SDK translates only 8 of its 64 bytes: quantise both "
     "sides of it alike, so that it is not needed"),
    ("truncated_codes", "freertos", v3(QUANTIZE), v3(SOFTMAX),
     "layer 1 (Quantize): the FreeRTOS SDK cuts off where others round, so that codes are up to "
     "one too low: keep the values on the KPU, which rounds"),
    ("words_beyond_memory", "sdk_develop", v3(ADD, main_mem=4092), v3(ADD),
     "layer 1 (QuantizedAdd): it works in words of eight bytes, 4 bytes beyond main memory: let "
     "main memory end at a multiple of 8 behind it"),
    ("underflowing_softmax", "sdk_develop", v3(dequantize(0.1, -150.0), SOFTMAX),
     v3(dequantize(1.0, -150.0), SOFTMAX),
     "layer 2 (Softmax): its inputs are all below -124.5, where exp gives 0 and the quotient is no "
     "number, since no runtime subtracts a maximum below 0: shift the range of its input"),
    ("truncated_loads", "canmv", v3(slow_loading(0)), v3(slow_loading(1)),
     "layer 1 (K210Conv2d): its weights need 128 loads, and the register counts to 64: split the "
     "layer into two of fewer output channels"),
    ("small_map", "canmv", v3(conv(pool=Pool.MAX_2)), v3(conv()),
     "layer 1 (K210Conv2d): the KPU writes a map of 2x2, and nothing tells what silicon makes of "
     "such: compute it at 4x4 or larger and take the part that counts"),
    ("odd_constants", "rt_thread", v4(v4_ops.Unary, op=0, constants=bytes(4)),
     v4(v4_ops.Unary, op=0, constants=bytes(8)),
     "the file: its 4 bytes of constants are no multiple of 8, and RT-Thread's K210 package reads "
     "the registers behind them as misaligned words, which may end the program (exit 1337): pad "
     "the constants to a multiple of 8"),
    ("late_node", "maixpy", v4(v4_ops.NnilUnary, code=bytes([3, 0xA0])), v4(v4_ops.Unary, op=0),
     "layer 0 (nnil_unary_method): builds of MaixPy with nncase 0.2 beta2 or before hang in it: "
     "compile with opcodes: beta1"),
    ("forgotten_bias", "maixpy", transposed(1), transposed(0),
     "layer 0 (conv2d_transpose): every runtime forgets its bias: add the bias in a binary node "
     "behind it"),
    ("cut_copy", "maixpy", v4(v4_ops.MemoryCopy), v4(v4_ops.MemoryCopy),
     "layer 0 (memory_copy): it copies whole floats only: 2 of its bytes stay behind: let its "
     "size be a multiple of 4"),
]  # fmt: skip
_copied: Any = CASES[-1][2].layers[0]
_copied.input = _copied.input._replace(size=6)


@pytest.mark.parametrize(("name", "runtime", "bad", "good", "message"), CASES)
def test_a_pitfall_is_told_where_it_is_and_nowhere_else(
    name: str, runtime: str, bad: Any, good: Any, message: str
) -> None:
    found = [f for f in lint(bad, runtime) if f.pitfall == name]
    assert [str(f) for f in found] == [message]
    assert name not in {f.pitfall for f in lint(good, runtime)}


def test_every_pitfall_has_its_case() -> None:
    assert {case[0] for case in CASES} == {p.find.__name__ for p in PITFALLS}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("net", [models.net_v3, models.cpu_net_v3, models.net_v4])
def test_findings_come_in_the_order_of_the_layers(runtime: str, net: Any) -> None:
    places = [-1 if f.layer is None else f.layer for f in lint(parse(write(net())), runtime)]
    assert places == sorted(places)


def test_the_host_build_has_no_pitfalls_of_its_own() -> None:
    assert lint(models.net_v3(), "host") == lint(models.net_v4(), "host") == []


def test_windows_are_clipped_as_unsigned_arithmetic_does() -> None:
    """Against the C expression, worked out with 32-bit unsigned numbers."""
    from k210tasks.kmodel.quirks import Windows

    for size, out, kernel, stride, pad_ in np.random.default_rng(3).integers(
        [1, 1, 1, 1, 0], [9, 12, 5, 4, 5], (3000, 5)
    ):
        given = Windows(int(size), int(out), int(kernel), int(stride), int(pad_))
        positions, beyond = [-1], False
        for o in range(out):
            origin = o * stride - pad_
            start = max(0, -origin)
            end = min(int(kernel), (int(size) - int(origin)) % 2**32)
            positions += [origin + k for k in range(start, end)]
            beyond |= origin > size and start < end
        assert given.last == max(positions), given
        assert given.beyond == beyond
        origins, starts, ends = given.taps()
        read = [o + k for o, a, b in zip(origins, starts, ends, strict=True) for k in range(a, b)]
        assert [-1, *read] == positions
