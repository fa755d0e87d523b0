"""The passes in order: from the bytes of a ``.tflite`` to those of a ``.kmodel``."""

from __future__ import annotations

import gc
import hashlib
from typing import Any

import numpy as np

from k210tasks.compiler import encode_v3, encode_v4, fitting, forms
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor, nchw
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.options import Compiled, Fed, Options, Progress, SmallMaps
from k210tasks.compiler.passes.clamps import hold_clamps
from k210tasks.compiler.passes.kpu_binary import balance_products
from k210tasks.compiler.passes.legalise import allowed, legalise
from k210tasks.compiler.passes.offsets import exact_offsets
from k210tasks.compiler.passes.place import Memory, allocate
from k210tasks.compiler.passes.quantise import quantise
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.passes.softmax import centre_logits, lift_logits
from k210tasks.compiler.passes.turns import drop_idle_turns
from k210tasks.compiler.problems import CompileError
from k210tasks.compiler.reader import load
from k210tasks.compiler.source import Source
from k210tasks.kmodel.listing import summary
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime, runtime_of
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4

# What is loaded by now, classes and tables for the most part, stays to the end. Without this
# the collector looks at all of it again and again, at exit too: a tenth of the time that a
# small model takes.
gc.freeze()


class BadOptions(CompileError):
    """Settings that contradict each other."""


class OtherModel(CompileError):
    """Calibration data that was measured on another model."""

    def __init__(self) -> None:
        super().__init__("the calibration data was measured on another model: calibrate again")


def _silent(done: int, total: int, what: str) -> None:
    """Shows nothing."""


def lowered(
    tflite: bytes | Source,
    kmodel: int,
    *,
    float_input: bool = False,
    tables: bool = False,
    small_maps: SmallMaps = "padded",
    runtime: Runtime = RUNTIMES["host"],
) -> Graph:
    """Read, simplify and legalise, with the checker after each."""
    graph = load(tflite)
    forms.check(graph, "read", forms.FLOAT)
    graph = simplify(graph)
    forms.check(graph, "simplify", forms.FLOAT)
    graph = legalise(
        graph,
        kmodel,
        float_input=float_input,
        tables=tables,
        small_maps=small_maps,
        runtime=runtime,
    )
    forms.check(graph, "legalise", allowed(kmodel, small_maps))
    return graph


def compile(
    tflite: bytes,
    calibration: Calibration | None,
    options: Options = Options(),  # noqa: B008
    progress: Progress | None = None,
) -> Compiled:
    """A kmodel of version ``options.kmodel``.

    ``calibration`` may be None only for a fully int8-quantised ``tflite``. Raises
    :class:`CompileError` naming the op, tensor or layer that is in the way.
    """
    say = progress or _silent
    _check(options)
    source = Source(tflite)
    if calibration is not None and calibration.model_sha256 != hashlib.sha256(tflite).hexdigest():
        raise OtherModel()
    steps = 4
    say(0, steps, "reading")
    fed = _fed(calibration, options)
    own_codes = calibration is None  # nothing else tells what the model is fed with
    float_input = options.input == "float" or (
        options.input is None and fed == "tensors" and not own_codes and options.kmodel == 4
    )
    tables = options.kmodel == 4 and options.opcodes == "beta4"
    runtime = runtime_of(options.runtime or "host")
    graph = lowered(
        source,
        options.kmodel,
        float_input=float_input,
        tables=tables,
        small_maps=options.small_maps,
        runtime=runtime,
    )
    say(1, steps, "quantising")
    contract = None
    if graph.input.dtype == "uint8" and fed == "pixels":
        mean, std = _scaling(options)
        contract = Quant(1 / (255 * std), 255 * mean)
    ranges = Ranges(calibration, options.method)
    centre_logits(graph, ranges)
    balance_products(graph, ranges)
    quantise(graph, ranges, contract, bits=options.weights, effort=options.effort)
    if options.kmodel == 4:
        exact_offsets(graph)
    else:
        hold_clamps(graph)
        lift_logits(graph, ranges)
        drop_idle_turns(graph)
        fitting.check(graph, runtime)
    forms.check(graph, "quantise", allowed(options.kmodel, options.small_maps), placed=True)
    say(2, steps, "placing")
    memory = allocate(graph)
    say(3, steps, "encoding")
    made = _encode(graph, memory, options)
    say(4, steps, "done")
    return _described(made[0], made[1], graph, memory, source, fed)


def _check(options: Options) -> None:
    if options.kmodel not in (3, 4):
        raise BadOptions(f"the built-in compiler writes kmodel 3 and 4, not {options.kmodel}")
    if options.runtime is not None and options.kmodel not in runtime_of(options.runtime).kmodels:
        runtime = runtime_of(options.runtime)
        loads = " and ".join(map(str, runtime.kmodels))
        raise BadOptions(f"{runtime.title} runs kmodel {loads}, not {options.kmodel}")
    if options.weights not in (8, 16):
        raise BadOptions(f"weights have 8 or 16 bits, not {options.weights}")
    if options.weights == 16 and options.kmodel == 4:
        raise BadOptions("kmodel 4 has no 16-bit weights: use weights: 8 or kmodel: 3")
    mean, std = _scaling(options)
    if not std > 0 or not np.isfinite([mean, std]).all():
        raise BadOptions(f"std must be above zero, it is {std:g}")
    if options.input == "float" and options.kmodel == 3:
        raise BadOptions("a kmodel 3 is fed with uint8: use input: uint8 or kmodel: 4")


def _fed(calibration: Calibration | None, options: Options) -> Fed:
    """What the model is fed with, as told; floats do not show it."""
    told = options.fed or (None if calibration is None else calibration.fed)
    if told is None:
        return "tensors" if options.mean is None and options.std is None else "pixels"
    return told


def _scaling(options: Options) -> tuple[float, float]:
    """Mean and std of pixels."""
    mean, std = options.mean, options.std
    return 0.0 if mean is None else mean, 1.0 if std is None else std


def _encode(graph: Graph, memory: Memory, options: Options) -> tuple[KmodelV3 | KmodelV4, list[Op]]:
    if options.kmodel == 3:
        runtime = runtime_of(options.runtime or "host")
        return encode_v3.encode(graph, memory, bits=options.weights, runtime=runtime)
    return encode_v4.encode(graph, memory)


def _described(
    model: KmodelV3 | KmodelV4,
    ops: list[Op],
    graph: Graph,
    memory: Memory,
    source: Source,
    fed: Fed,
) -> Compiled:
    data = model.to_bytes()
    model.size = len(data)
    listed = summary(model)
    rows, lines = [], []
    for row, op in zip(listed.layers, ops, strict=True):
        tensor = op.output if op.output.place == "kpu" else op.outputs[-1]
        shapes = tuple("x".join(map(str, t.shape)) for t in (op.input, tensor))
        lines.append(f"{row.index}: {row.name} {shapes[0]} -> {shapes[1]}\n")
        rows.append(
            {
                "index": row.index,
                "name": row.name,
                "source": list(op.origin),
                "output": tensor.name,
                "runs_on": "KPU" if op.kind == "kpu_conv" else "CPU",
                "input_shape": list(op.input.shape),
                "output_shape": list(tensor.shape),
                "estimated_us": row.kpu.estimated_us if row.kpu else None,
                "tensor": tensor.source if op.kind == "kpu_conv" else None,
                "scale": _scales(tensor),
                "zero_point": tensor.quant.zero_point if tensor.quant else None,
            }
        )
    outputs = [
        {"name": t.name, "shape": list(nchw(t.shape)[1:] or (1,)), "dtype": "float32"}
        for t in source.outputs
    ]
    return Compiled(
        kmodel=data,
        layers=rows,
        listing="".join(lines),
        input=_input(graph.input, source),
        fed=fed,
        outputs=outputs,
        kpu_bytes=listed.kpu_bytes,
        main_bytes=listed.main_bytes,
    )


def _scales(tensor: Tensor) -> float | list[float] | None:
    """What a step of a tensor's codes is worth: one number, or one a channel."""
    if tensor.quant is None:
        return None
    return tensor.quant.scale if tensor.steps is None else [float(s) for s in tensor.steps]


def _input(tensor: Tensor, source: Source) -> dict[str, Any]:
    given = source.inputs[0]
    quant = tensor.quant
    return {
        "name": given.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape[1:]),
        "scale": quant.scale if quant else None,
        "zero_point": quant.zero_point if quant else None,
    }
