"""What of a kmodel a runtime computes otherwise than its layers say, or does not run at all.

Purely from the parsed file, anyone's (docs, section 8.2). One function a pitfall: it yields
where the pitfall is, and the facts for its docstring, whose first paragraph says what happens
and whose second what to do. What *stops* a runtime, the simulator of it refuses.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from k210tasks.kmodel import v3_layers as v3
from k210tasks.kmodel import v4_ops as v4
from k210tasks.kmodel.accesses import Span, accesses, outputs
from k210tasks.kmodel.codec import MAIN
from k210tasks.kmodel.listing import FIRST_LAYERS, LATE_NODES
from k210tasks.kmodel.quirks import (
    beyond_map,
    loses_last_byte,
    misplaced_end,
    misplaces_upload,
    read_end,
    requantized,
)
from k210tasks.kmodel.runtimes import Runtime, runtime_of
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from k210tasks.kpu.layout import KPU_RAM_BYTES

Model = KmodelV3 | KmodelV4
#: Where, as the index of a layer (None: the file as a whole), and the facts of the message.
Places = Iterator[tuple[int | None, dict[str, Any]]]

#: The least width and height of a map that upstream's compilers let the KPU write.
LEAST_MAP = 4
#: Times the weights of a layer can be loaded: six bits of a register (section 1.4).
MOST_LOADS = 64
#: Below this float32's exp is no normal number any more.
LOWEST_EXP = -87.336


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a file falls into a pitfall of a runtime."""

    layer: int | None  # its index; None: the file as a whole
    name: str  # as messages call the layer, or "the file"
    pitfall: str  # the name of the function that found it
    problem: str
    remedy: str
    stops: bool  # the runtime does not run the file at all

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}: {self.remedy}"


class Pitfall(NamedTuple):
    find: Callable[[Any, Runtime], Places]
    problem: str
    remedy: str
    stops: bool


PITFALLS: list[Pitfall] = []


def _pitfall(
    *, stops: bool = False
) -> Callable[[Callable[[Any, Runtime], Places]], Callable[[Any, Runtime], Places]]:
    def register(find: Callable[[Any, Runtime], Places]) -> Callable[[Any, Runtime], Places]:
        problem, remedy = inspect.cleandoc(find.__doc__ or "").split("\n\n")
        PITFALLS.append(Pitfall(find, " ".join(problem.split()), " ".join(remedy.split()), stops))
        return find

    return register


def _layers(model: Model, kind: Any) -> Iterator[tuple[int, Any]]:
    bodies: Any = model.layers
    return ((i, body) for i, body in enumerate(bodies) if isinstance(body, kind))


@_pitfall(stops=True)
def other_version(model: Model, runtime: Runtime) -> Places:
    """{runtime} loads kmodel {loads}, and this is kmodel {version}

    compile it for kmodel {one}
    """
    if model.version not in runtime.kmodels:
        loads = " and ".join(map(str, runtime.kmodels))
        yield None, {"loads": loads, "version": model.version, "one": runtime.kmodels[0]}


@_pitfall(stops=True)
def float_max_pool(model: Model, runtime: Runtime) -> Places:
    """type: no K210 runtime has a handler for float max pools

    pool the quantised map with QuantizedMaxPool2d
    """
    for i, _ in _layers(model, v3.MaxPool2d):
        yield i, {}


@_pitfall(stops=True)
def begins_otherwise(model: Model, runtime: Runtime) -> Places:
    """no K210 runtime starts with it

    the first layer must be K210Conv2d (fed with uint8 pixels) or FullyConnected (fed with float32)
    """
    bodies: Any = model.layers
    if model.version == 3 and bodies and not isinstance(bodies[0], FIRST_LAYERS):
        yield 0, {}


@_pitfall(stops=True)
def begins_dense(model: Model, runtime: Runtime) -> Places:
    """{runtime} returns -1 from a file that begins with FullyConnected

    let a layer of the KPU come first, fed with uint8 codes
    """
    for i, _ in _layers(model, v3.FullyConnected):
        if i == 0 and not runtime.starts_dense:
            yield i, {}


@_pitfall()
def untold_shape(model: Model, runtime: Runtime) -> Places:
    """{runtime} cannot tell the input shape of a file that begins with FullyConnected
    (ERR_GET_CONV_LAYER)

    let a layer of the KPU come first, or feed a list of floats and never an image
    """
    for i, _ in _layers(model, v3.FullyConnected):
        if i == 0 and runtime.starts_dense and not runtime.tells_dense_shape:
            yield i, {}


@_pitfall(stops=True)
def lacking(model: Model, runtime: Runtime) -> Places:
    """{runtime} has no code for it

    compute it with other layers, or in the application
    """
    for i, body in _layers(model, object):
        if body.NAME in runtime.lacks:
            yield i, {}


@_pitfall(stops=True)
def dense_overflow(model: Model, runtime: Runtime) -> Places:
    """{runtime} copies its weights to a quarter of the memory they need, over its heap

    keep the layer on the KPU
    """
    if not runtime.copies_dense:
        for i, _ in _layers(model, v3.FullyConnected):
            yield i, {}


@_pitfall()
def ignored_act(model: Model, runtime: Runtime) -> Places:
    """{runtime} ignores its activation {act} and puts out linear values

    keep the layer on the KPU, or write the activation as a layer of its own
    """
    for i, body in _layers(model, v3.FullyConnected):
        if body.act and not runtime.applies_act:
            yield i, {"act": {1: "relu", 2: "relu6"}.get(body.act, body.act)}


@_pitfall()
def ignored_pool_act(model: Model, runtime: Runtime) -> Places:
    """every runtime ignores its activation, number {act}

    write the activation as a layer of its own
    """
    for i, body in _layers(model, v3.AveragePool2d):
        if body.act:
            yield i, {"act": body.act}


@_pitfall(stops=True)
def beyond_memory(model: Model, runtime: Runtime) -> Places:
    """windows beyond the map make {runtime} read {bytes} bytes beyond main memory

    pad by one pixel at a time, by a concat of zeros, or on the KPU
    """
    for i, body in _layers(model, v3.Pool2d):
        if runtime.wraps_windows and not runtime.reads_beyond and beyond_map(body):
            over = read_end(body) - model.main_mem
            if over > 0:
                yield i, {"bytes": over}


@_pitfall()
def window_beyond_map(model: Model, runtime: Runtime) -> Places:
    """{runtime} does not clip windows that begin beyond the map, and reads the bytes that follow

    pad by one pixel at a time, by a concat of zeros, or on the KPU
    """
    stopped = {i for i, _ in beyond_memory(model, runtime)}
    for i, body in _layers(model, v3.Pool2d):
        if runtime.wraps_windows and i not in stopped and beyond_map(body):
            yield i, {}


@_pitfall()
def lost_byte(model: Model, runtime: Runtime) -> Places:
    """{runtime} loses the last byte of its map in main memory, {width} pixels wide

    call kpu.forward(task, image, dma=1), or let the width be no multiple of 64
    """
    for i, body in _layers(model, v3.K210Conv):
        last = body.out_mem + math.prod(body.registers.out_shape) - 1
        if loses_last_byte(runtime, body) and _is_read(model, i, last):
            yield i, {"width": body.registers.out_shape[2]}


def _is_read(model: Model, writer: int, byte: int) -> bool:
    """Whether a byte of main memory is read after layer ``writer`` before it is written anew."""

    def touched(spans: tuple[Span, ...]) -> bool:
        return any(s.memory == MAIN and s.start <= byte < s.start + s.size for s in spans)

    bodies: Any = model.layers
    for body in bodies[writer + 1 :]:
        part = accesses(body)
        if touched(part.reads):
            return True
        if touched(part.writes):
            return False
    return touched(outputs(model))


def _misplaced(model: Model, runtime: Runtime) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
    """Uploads to wrong lines, the input's among them: layer, row, shape of the map."""
    for i, body in _layers(model, v3.K210Upload):
        shape = (body.channels, body.height, body.width)
        if min(shape) > 0 and misplaces_upload(runtime, body.in_mem, body.height, body.width):
            yield i, body.out_kpu, shape
    for i, body in _layers(model, v3.K210Conv):
        _, height, width = shape = body.registers.in_shape
        if i == 0 and width % 64 and misplaces_upload(runtime, 0, height, width):
            yield i, body.registers.image_src_addr, shape


@_pitfall()
def misplaced_upload(model: Model, runtime: Runtime) -> Places:
    """{runtime} uploads maps whose width is a multiple of 8 to wrong lines of KPU RAM

    let the width, {width}, be no multiple of 8
    """
    for i, _, (_, _, width) in _misplaced(model, runtime):
        yield i, {"width": width}


@_pitfall(stops=True)
def upload_beyond_ram(model: Model, runtime: Runtime) -> Places:
    """{runtime} uploads it {bytes} bytes beyond KPU RAM

    let the width be no multiple of 8
    """
    for i, row, (channels, height, width) in _misplaced(model, runtime):
        over = misplaced_end(runtime, row, channels, height, width) - KPU_RAM_BYTES
        if over > 0:
            yield i, {"bytes": over}


@_pitfall()
def partial_requantize(model: Model, runtime: Runtime) -> Places:
    """{runtime} translates only {done} of its {count} bytes

    quantise both sides of it alike, so that it is not needed
    """
    for i, body in _layers(model, v3.Requantize):
        done = requantized(runtime, body.count)
        if done < body.count:
            yield i, {"done": done, "count": body.count}


@_pitfall()
def truncated_codes(model: Model, runtime: Runtime) -> Places:
    """{runtime} cuts off where others round, so that codes are up to one too low

    keep the values on the KPU, which rounds
    """
    for i, body in _layers(model, (v3.Quantize, v3.QuantizedAdd)):
        is_add = isinstance(body, v3.QuantizedAdd)
        if runtime.truncates_add if is_add else runtime.truncates_quantize:
            yield i, {}


@_pitfall()
def words_beyond_memory(model: Model, runtime: Runtime) -> Places:
    """it works in words of eight bytes, {bytes} bytes beyond main memory

    let main memory end at a multiple of 8 behind it
    """
    for i, body in _layers(model, (v3.K210Conv, v3.QuantizedAdd)):
        for span in (s for part in accesses(body) for s in part if s.memory == MAIN):
            over = span.start + -(-span.size // 8) * 8 - model.main_mem
            if span.start + span.size <= model.main_mem < model.main_mem + over:
                yield i, {"bytes": over}
                break


@_pitfall()
def underflowing_softmax(model: Model, runtime: Runtime) -> Places:
    """its inputs are all below {top:.4g}, where exp gives 0 and the quotient is no number, since
    no runtime subtracts a maximum below 0

    shift the range of its input
    """
    for i, body in _layers(model, v3.Softmax):
        before: Any = model.layers[i - 1] if i else None
        if isinstance(before, v3.Dequantize) and before.out_mem == body.in_mem:
            top = max(before.bias, before.bias + 255 * before.scale)
            if top < LOWEST_EXP:
                yield i, {"top": top}


@_pitfall()
def truncated_loads(model: Model, runtime: Runtime) -> Places:
    """its weights need {loads} loads, and the register counts to {most}

    split the layer into two of fewer output channels
    """
    for i, body in _layers(model, (v3.K210Conv, v4.KpuConv2d)):
        registers = body.registers
        loads = -(-registers.out_channels // (registers.o_ch_num_coef + 1))
        if not registers.depthwise and loads > MOST_LOADS:
            yield i, {"loads": loads, "most": MOST_LOADS}


@_pitfall()
def small_map(model: Model, runtime: Runtime) -> Places:
    """the KPU writes a map of {width}x{height}, and nothing tells what silicon makes of such

    compute it at 4x4 or larger and take the part that counts
    """
    if runtime.name == "host":
        return
    for i, body in _layers(model, (v3.K210Conv, v4.KpuConv2d)):
        _, height, width = body.registers.out_shape
        if min(height, width) < LEAST_MAP:
            yield i, {"width": width, "height": height}


@_pitfall()
def odd_constants(model: Model, runtime: Runtime) -> Places:
    """its {bytes} bytes of constants are no multiple of 8, and {runtime} reads the registers
    behind them as misaligned words, which may end the program (exit 1337)

    pad the constants to a multiple of 8
    """
    if isinstance(model, KmodelV4) and runtime.traps_misaligned and len(model.constants) % 8:
        yield None, {"bytes": len(model.constants)}


@_pitfall()
def late_node(model: Model, runtime: Runtime) -> Places:
    """builds of {runtime} with nncase 0.2 beta2 or before hang in it

    compile with opcodes: beta1
    """
    if not runtime.knows_late_nodes:
        for i, _ in _layers(model, tuple(LATE_NODES)):
            yield i, {}


@_pitfall()
def forgotten_bias(model: Model, runtime: Runtime) -> Places:
    """every runtime forgets its bias

    add the bias in a binary node behind it
    """
    for i, body in _layers(model, v4.Conv2dTranspose):
        if body.bias.any():
            yield i, {}


@_pitfall()
def cut_copy(model: Model, runtime: Runtime) -> Places:
    """it copies whole floats only: {bytes} of its bytes stay behind

    let its size be a multiple of 4
    """
    for i, body in _layers(model, v4.MemoryCopy):
        if body.input.size % 4:
            yield i, {"bytes": body.input.size % 4}


def _found(model: Model, runtime: Runtime, pitfalls: list[Pitfall]) -> Iterator[Finding]:
    bodies: Any = model.layers
    for find, problem, remedy, stops in pitfalls:
        for layer, facts in find(model, runtime):
            said = {"runtime": runtime.title, **facts}
            yield Finding(
                layer,
                "the file" if layer is None else f"layer {layer} ({bodies[layer].NAME})",
                find.__name__,
                problem.format(**said),
                remedy.format(**said),
                stops,
            )


def lint(model: Model, runtime: str | Runtime) -> list[Finding]:
    """Where ``model`` falls into a pitfall of ``runtime``, in the order of its layers.

    Never fails on a model that could be parsed. Raises
    :class:`~k210tasks.kmodel.runtimes.UnknownRuntime`.
    """
    found = _found(model, runtime_of(runtime), PITFALLS)
    return sorted(found, key=lambda f: -1 if f.layer is None else f.layer)


def stops(model: Model, runtime: Runtime) -> Finding | None:
    """The first reason why ``runtime`` does not run ``model`` at all; None where it does."""
    return next(_found(model, runtime, [p for p in PITFALLS if p.stops]), None)
