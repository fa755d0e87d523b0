"""The passes in order: from the bytes of a ``.tflite`` or ``.onnx`` to those of a ``.kmodel``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from k210tasks.compiler import encode_v3, encode_v4, fitting, forms
from k210tasks.compiler.ir import Graph, Op, Quant, Tensor, nchw
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.ops import Conv, Deconv, Dense, KpuConv
from k210tasks.compiler.options import (
    Compiled,
    CompiledLayer,
    Fed,
    Options,
    Place,
    Port,
    Progress,
    SmallMaps,
)
from k210tasks.compiler.passes.clamps import hold_clamps
from k210tasks.compiler.passes.kpu_binary import balance_products
from k210tasks.compiler.passes.legalise import allowed, legalise
from k210tasks.compiler.passes.offsets import exact_offsets
from k210tasks.compiler.passes.pixels import Pixels, meaning, pad_each_channel, scale_channels
from k210tasks.compiler.passes.place import allocate
from k210tasks.compiler.passes.quantise import quantise
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.passes.simplify import simplify
from k210tasks.compiler.passes.softmax import centre_logits, lift_logits
from k210tasks.compiler.passes.turns import drop_idle_turns
from k210tasks.compiler.problems import CompileError, TooMuchMemory, Unsupported
from k210tasks.compiler.reader import Model, load, opened
from k210tasks.kmodel.listing import Summary, summary
from k210tasks.kmodel.runtimes import RUNTIMES, Runtime, runtime_of
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4


class BadOptions(CompileError):
    """Settings that contradict each other."""


class OtherModel(CompileError):
    """Calibration data that was measured on another model."""

    def __init__(self) -> None:
        super().__init__("the calibration data was measured on another model: calibrate again")


#: what a pass after legalise looks like
Pass = Callable[[Graph, Ranges], None]

STEPS = 4  # that progress counts

SRAM_BYTES = 6 * 2**20  # program, model and its working memory (reference, section 1.1)


def _silent(done: int, total: int, what: str) -> None:
    """Shows nothing."""


def lowered(
    model: bytes | Model,
    kmodel: int,
    *,
    float_input: bool = False,
    tables: bool = False,
    small_maps: SmallMaps = "padded",
    runtime: Runtime = RUNTIMES["host"],
    refused: list[CompileError] | None = None,
    pixels: Pixels | None = None,
) -> Graph:
    """Read, simplify and legalise, with the checker after each; ``refused`` as in
    :func:`legalise`: where it was filled the graph is of no use. ``pixels``: the factors and
    offsets that its channels are fed with."""
    graph = load(model)
    forms.check(graph, "read", forms.FLOAT)
    if pixels is not None:
        scale_channels(graph, pixels)
    graph = simplify(graph)
    _finite(graph)
    if pixels is not None:
        pad_each_channel(graph, pixels)
    forms.check(graph, "simplify", forms.FLOAT)
    graph = legalise(
        graph,
        kmodel,
        float_input=float_input,
        tables=tables,
        small_maps=small_maps,
        runtime=runtime,
        refused=refused,
    )
    if not refused:
        forms.check(graph, "legalise", allowed(kmodel, small_maps))
    return graph


def _finite(graph: Graph) -> None:
    """Raise :class:`Unsupported` for weights that became infinite when ops were joined."""
    for op in graph.ops:
        if isinstance(op, (Conv, Deconv, Dense)) and not (
            np.isfinite(op.weights).all() and np.isfinite(op.bias).all()
        ):
            raise Unsupported(
                ", ".join(op.origin), "its weights and factors together are beyond float32"
            )


@np.errstate(all="ignore")  # what becomes infinite is refused
def prepared(
    source: Model,
    calibration: Calibration | None,
    options: Options,
    refused: list[CompileError] | None = None,
) -> tuple[Graph, Quant | None]:
    """The device graph, and what the codes of its input mean where that is given."""
    pixels = _fed(calibration, options) == "pixels"
    float_input = options.input == "float" or (
        options.input is None
        and options.kmodel == 4
        and not pixels
        and not _takes_codes(source, calibration)
    )
    graph = lowered(
        source,
        options.kmodel,
        float_input=float_input,
        tables=options.kmodel == 4 and options.opcodes == "beta4",
        small_maps=options.small_maps,
        runtime=runtime_of(options.runtime or "host"),
        refused=refused,
        pixels=None if float_input else _channels(source, calibration, options),
    )
    if graph.input.dtype != "uint8":
        return graph, None
    return graph, _meaning(options).quant if pixels else stated(source)


#: passes before scales are chosen, and those after by version of the kmodel
_BEFORE: tuple[Pass, ...] = (centre_logits, balance_products)
_AFTER: dict[int, tuple[Pass, ...]] = {
    3: (hold_clamps, lift_logits, drop_idle_turns),
    4: (exact_offsets,),
}


@dataclass(frozen=True, slots=True)
class Finished:
    """A kmodel, its listing, and the op that every layer of it came from."""

    graph: Graph
    kmodel: bytes
    listed: Summary
    ops: list[Op]

    @property
    def too_large(self) -> TooMuchMemory | None:
        """What is wrong where it leaves no room for a program."""
        size, main = len(self.kmodel), self.listed.main_bytes
        fits = size + main < SRAM_BYTES
        return None if fits else TooMuchMemory(size, main, SRAM_BYTES)


@np.errstate(all="ignore")
def finished(
    graph: Graph,
    ranges: Ranges,
    contract: Quant | None,
    options: Options,
    progress: Progress = _silent,
) -> Finished:
    """Everything from the device graph on, with the checker after each pass: ``k210 check``
    comes this way too, with ranges that stand in for measured ones."""
    kinds = allowed(options.kmodel, options.small_maps)
    for change in _BEFORE:
        change(graph, ranges)
        forms.check(graph, change.__name__, kinds)
    quantise(graph, ranges, contract, bits=options.weights, effort=options.effort)
    forms.check(graph, "quantise", kinds, placed=True)
    for change in _AFTER[options.kmodel]:
        change(graph, ranges)
        forms.check(graph, change.__name__, kinds, placed=True)
    runtime = runtime_of(options.runtime or "host")
    if options.kmodel == 3:
        fitting.check(graph, runtime)
    progress(2, STEPS, "placing")
    memory = allocate(graph)
    progress(3, STEPS, "encoding")
    model: KmodelV3 | KmodelV4
    if options.kmodel == 3:
        model, ops = encode_v3.encode(graph, memory, bits=options.weights, runtime=runtime)
    else:
        model, ops = encode_v4.encode(graph, memory)
    data = model.to_bytes()
    model.size = len(data)
    return Finished(graph, data, summary(model), ops)


def compile(
    model: bytes | Model,
    calibration: Calibration | None,
    options: Options = Options(),  # noqa: B008
    progress: Progress | None = None,
) -> Compiled:
    """A kmodel of version ``options.kmodel``.

    ``calibration`` may be None only for a fully int8-quantised ``model``. Raises
    :class:`CompileError` naming the op, tensor or layer that is in the way.
    """
    say = progress or _silent
    _check(options)
    source = opened(model)
    digest = hashlib.sha256(source.data).hexdigest()
    if calibration is not None and calibration.model_sha256 != digest:
        raise OtherModel()
    say(0, STEPS, "reading")
    graph, contract = prepared(source, calibration, options)
    say(1, STEPS, "quantising")
    channels = _channels(source, calibration, options)
    if calibration is not None and channels is not None and contract is not None:
        calibration = replace(calibration, kept=channels.common(calibration.kept))
    made = finished(graph, Ranges(calibration, options.method), contract, options, say)
    if made.too_large is not None:
        raise made.too_large
    say(STEPS, STEPS, "done")
    fed = _fed(calibration, options)
    described = _described(made, source, fed)
    return described if channels is None or contract is None else _of_channels(described, options)


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
    for value in std if isinstance(std, tuple) else (std,):
        if not value > 0:
            raise BadOptions(f"std must be above zero, it is {value:g}")
    if not np.isfinite(np.append(mean, std)).all():
        raise BadOptions("mean and std must be finite numbers")
    if options.input == "float" and options.kmodel == 3:
        raise BadOptions("a kmodel 3 is fed with uint8: use input: uint8 or kmodel: 4")


def _fed(calibration: Calibration | None, options: Options) -> Fed:
    """What the model is fed with, as told; floats do not show it."""
    told = options.fed or (None if calibration is None else calibration.fed)
    if told is None:
        return "tensors" if options.mean is None and options.std is None else "pixels"
    return told


def _scaling(options: Options) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Mean and std of pixels."""
    mean, std = options.mean, options.std
    return 0.0 if mean is None else mean, 1.0 if std is None else std


def _meaning(options: Options) -> Pixels:
    """What pixels mean under the preprocessing contract."""
    return meaning(*_scaling(options))


def _channels(source: Model, calibration: Calibration | None, options: Options) -> Pixels | None:
    """What pixels mean where that differs from channel to channel."""
    if _fed(calibration, options) != "pixels":
        return None
    pixels = _meaning(options)
    if pixels.factor is None:
        return None
    shape = source.inputs[0].shape
    channels = shape[-1] if len(shape) == 4 else 1
    if len(pixels.factor) != channels:
        raise BadOptions(
            f"mean and std have {len(pixels.factor)} numbers, one a channel, but the model's input "
            f"{source.inputs[0].name!r} has {channels} channel{'s'[: channels != 1]}"
        )
    return pixels


def stated(source: Model) -> Quant | None:
    """What codes 0 to 255 of the input mean where the file says it: of the input itself, or of
    what it is rounded to before anything else."""
    if len(source.inputs) != 1:
        return None
    given = source.inputs[0]
    readers = [op for op in source.ops if given in op.inputs]
    if readers and all(op.name == "QUANTIZE" for op in readers):
        given = readers[0].outputs[0]
    if given.scale is None or given.zero_point is None or given.type not in ("INT8", "UINT8"):
        return None
    first = -128 if given.type == "INT8" else 0
    return Quant(float(given.scale[0]), float(given.zero_point[0]) - first)


def _takes_codes(source: Model, calibration: Calibration | None) -> bool:
    """Whether the model is fed with the codes that the file itself speaks of."""
    if stated(source) is None:
        return False
    return calibration is None or source.inputs[0].type != "FLOAT32"


def _described(made: Finished, source: Model, fed: Fed) -> Compiled:
    listed = made.listed
    rows, lines = [], []
    for row, op in zip(listed.layers, made.ops, strict=True):
        tensor = op.output if op.output.place == "kpu" else op.outputs[-1]
        shapes = tuple("x".join(map(str, t.shape)) for t in (op.input, tensor))
        lines.append(f"{row.index}: {row.name} {shapes[0]} -> {shapes[1]}\n")
        at, quant = _place(op, tensor), tensor.quant
        scales = None if tensor.scales is None else tuple(float(s) for s in tensor.scales)
        rows.append(
            CompiledLayer(
                index=row.index,
                name=row.name,
                source=tuple(op.origin),
                output=tensor.name,
                runs_on="KPU" if isinstance(op, KpuConv) else "CPU",
                input_shape=op.input.shape,
                output_shape=tensor.shape,
                estimated_us=row.kpu.estimated_us if row.kpu else None,
                tensor=None if at is None else tensor.source,
                at=at,
                scale=None if quant is None else scales or quant.scale,
                zero_point=None if quant is None else quant.zero_point,
            )
        )
    return Compiled(
        kmodel=made.kmodel,
        layers=tuple(rows),
        listing="".join(lines),
        input=_input(made.graph.input, source),
        fed=fed,
        outputs=tuple(Port(t.name, _without_batch(t.shape)) for t in source.outputs),
        kpu_bytes=listed.kpu_bytes,
        main_bytes=listed.main_bytes,
    )


def _of_channels(made: Compiled, options: Options) -> Compiled:
    """With what the codes of each channel mean to the model, not to its first layer."""
    both = (np.asarray(v, np.float64) for v in _scaling(options))
    mean, std = np.broadcast_arrays(*both)
    scale, zero = tuple(1 / (255 * std)), tuple(255 * mean)
    port = replace(made.input, scale=tuple(map(float, scale)), zero_point=tuple(map(float, zero)))
    return replace(made, input=port)


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """An output's shape as the file of the kmodel has it; rows of a matrix are no batch."""
    return tuple((nchw(shape)[1:] if shape[:1] == (1,) else shape) or (1,))


def _place(op: Op, tensor: Tensor) -> Place | None:
    """Where in a KPU layer's map the source's tensor is that it computes."""
    if not isinstance(op, KpuConv) or tensor.source is None or op.shown is None:
        return None
    first = op.computes.first if op.computes else 0
    return Place(op.shown.offset, op.shown.step, op.shown.size, first)


def _input(tensor: Tensor, source: Model) -> Port:
    name, shape, quant = source.inputs[0].name, tensor.shape[1:], tensor.quant
    if tensor.dtype != "uint8" or quant is None:
        return Port(name, shape)
    return Port(name, shape, "uint8", quant.scale, quant.zero_point)
