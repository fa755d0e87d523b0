"""How each node of kmodel version 4 is prepared for running."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k210tasks.kmodel import v4_ops as n
from k210tasks.simulator import v4_cpu, v4_float, v4_quantized
from k210tasks.simulator.memory import Site
from k210tasks.simulator.step import Step

PREPARE: dict[type[n.Node], Callable[[Site, Any], Step]] = {
    n.Binary: v4_float.binary,
    n.Concat: v4_quantized.concat,
    n.Conv2d: v4_float.conv2d,
    n.Dequantize: v4_quantized.dequantize,
    n.Matmul: v4_float.matmul,
    n.PadNode: v4_quantized.pad,
    n.Quantize: v4_quantized.quantize,
    n.Reduce: v4_float.reduce,
    n.ReduceWindow2d: v4_float.reduce_window2d,
    n.MemoryCopy: v4_quantized.memory_copy,
    n.ResizeImage: v4_quantized.resize_image,
    n.Softmax: v4_float.softmax,
    n.Transpose: v4_quantized.transpose,
    n.StridedSlice: v4_quantized.strided_slice,
    n.Unary: v4_float.unary,
    n.QuantizedConv2d: v4_quantized.quantized_conv2d,
    n.QuantizedMatmul: v4_quantized.quantized_matmul,
    n.QuantizedBinary: v4_quantized.quantized_binary,
    n.TableLookup1d: v4_quantized.table_lookup1d,
    n.Conv2dTranspose: v4_float.conv2d_transpose,
    n.NnilUnary: v4_float.nnil_unary,
    n.CpuConv2d: v4_cpu.conv2d,
    n.CpuDepthwiseConv2d: v4_cpu.conv2d,
    n.CpuReduceWindow2d: v4_cpu.reduce_window2d,
    n.CpuQuantizedConv2d: v4_cpu.quantized_conv2d,
    n.CpuQuantizedDepthwiseConv2d: v4_cpu.quantized_conv2d,
    n.KpuUpload: v4_quantized.kpu_upload,
    n.KpuConv2d: v4_quantized.kpu_conv2d,
}
