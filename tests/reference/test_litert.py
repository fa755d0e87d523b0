"""The float reference: which tensors of a model can be looked at."""

from __future__ import annotations

import numpy as np

from k210tasks import compiler
from k210tasks.reference.litert import measurable
from tests.compiler.tflite_builder import Net


def test_only_what_is_made_of_the_input_and_read_can_be_looked_at() -> None:
    net = Net((1, 8, 8, 4))
    kernels = net.const(np.ones((1, 3, 3, 4)), "float16")
    full = net.op("DEQUANTIZE", [kernels], (1, 3, 3, 4))
    bias = net.const(np.zeros(4, np.float32))
    y = net.op("DEPTHWISE_CONV_2D", [net.input, full, bias], (1, 8, 8, 4),
               "DepthwiseConv2DOptions", Padding=0, StrideH=1, StrideW=1, DepthMultiplier=1,
               DilationHFactor=1, DilationWFactor=1)  # fmt: skip
    tflite = net.build()
    assert set(measurable(tflite).tensors) == {net.input, y}
    sample = np.ones((1, 8, 8, 4), np.float32)
    assert set(compiler.calibrate(tflite, [sample], measurable).tensors) == {net.input, y}


def test_a_part_of_a_split_that_nothing_reads_is_left_out() -> None:
    net = Net((1, 8, 8, 4))
    axis = net.const(np.array(3, np.int32), "int32")
    parts = [net.tensor((1, 8, 8, 2)) for _ in range(2)]
    net.ops.append(("SPLIT", [axis, net.input], parts, "SplitOptions", {"NumSplits": 2}, 1))
    y = net.conv(parts[0], 3)
    tflite = net.build(y)
    assert parts[1] not in measurable(tflite).tensors
    assert (
        parts[1]
        not in compiler.calibrate(tflite, [np.ones((1, 8, 8, 4), np.float32)], measurable).tensors
    )
