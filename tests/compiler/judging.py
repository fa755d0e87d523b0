"""One random network through compiler and simulator, measured against what eight bits allow.

The measure is the noise against the variance over the samples, element by element of an
output: what is the same for every sample, a bias or the level of a softmax, does not count as
signal. The bound is what LiteRT reaches, less a few dB, with the float network's tensors rounded
to eight bits, or with the int8 file.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from k210tasks import compiler
from k210tasks.compiler import executor
from k210tasks.compiler.ir import Graph, to_nchw
from k210tasks.compiler.numerics.calibration import Calibration
from k210tasks.compiler.options import Compiled, Options
from k210tasks.compiler.pipeline import lowered
from k210tasks.compiler.problems import CompileError, PassBroke
from k210tasks.kmodel import KmodelError, parse
from k210tasks.kmodel.lint import lint
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.reference.litert import FloatModel, FloatModelError, measurable
from k210tasks.simulator import Simulator
from k210tasks.simulator.guards import audit
from tests.compiler import quantiser
from tests.compiler.drawing import Drawn, draw
from tests.compiler.tflite_builder import Net

SLACK = 3.0  # dB, to eight bits everywhere
#: dB to the kmodel's own codes, which say what is possible more tightly, by its effort: where that
#: is small, single weights are rounded as it comes
OWN_SLACK = {"fast": 7.0, "normal": 5.0, "high": 5.0}
LOST = 10.0  # dB, that a network must not lose unseen
#: what networks reached, by kmodel, written by tests.compiler.random_networks --record, and by how
#: many dB less is told: codes that fall otherwise move single networks by some
RECORDED, LESS = Path(__file__).with_name("recorded_networks.npz"), 6.0
#: dB that the rounded network must reach for its outputs to tell anything of a fault
TELLING = 18.0
#: dB beyond which noise is that of float arithmetic, and that of means over so many codes that
#: what is left are the sixteen segments of an activation table
EXACT, FINE = 60.0, 43.0
ALL = 1 << 20
ATTEMPTS = 50
#: how many choices of codes are tried
CHOICES = 10
#: standard deviations of the dB over these, of all noise and of what differs between samples
LUCK = (3.0, 1.0)
#: layers whose codes are of values that no other layer has
ROUNDING = {"K210Conv2d", "kpu_conv2d", "Quantize", "quantize"}
PIXEL = 2 / 255  # a step of pixels under mean 0.5, std 0.5: zero is between two codes

Outputs = list[NDArray[np.float64]]  # of one output over all samples, (N, elements)


@dataclass(frozen=True, slots=True)
class Network:
    """A drawn network and what LiteRT makes of it.

    ``tflite`` is the file the compiler is given, ``ranges`` and ``reference`` are tensors and
    outputs of the float network. ``rounded`` are the dB of all outputs with every tensor in eight
    bits, of the mean noise of a few choices of codes. ``most`` is what is possible at all: what
    the constants of an int8 file leave, and what pixels leave that are padded with zeros, since
    zero is half a step from two of their codes.
    """

    seed: int
    drawn: Drawn
    tflite: bytes
    ranges: quantiser.Ranges
    reference: Outputs
    rounded: list[float]
    most: list[float]


def decibels(reference: NDArray[Any], got: NDArray[Any]) -> float:
    """Variance of ``reference`` over the samples, (N, elements), to the noise of ``got``."""
    signal = float(np.square(reference - reference.mean(0)).sum())
    noise = float(np.square(reference - got).sum())
    if not np.isfinite(noise):
        return -200.0
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)), -200, 200))


def all_decibels(reference: Outputs, got: Outputs) -> list[float]:
    """The dB of every output, and after them those without what is off alike in all samples: in
    few values that is a matter of luck, and what differs from sample to sample is not."""
    pairs = list(zip(reference, got, strict=True))
    varying = [decibels(r, y - (y - r).mean(0)) for r, y in pairs]
    return [*(decibels(r, y) for r, y in pairs), *varying]


def missed(reference: Outputs, got: Outputs, least: Sequence[float]) -> bool:
    """Whether an output has less than its bounds, the worst sample left out: noise that is mostly
    that of one, a score on the verge of another for one, is a matter of luck."""
    count = len(reference)
    for r, y, *ends in zip(reference, got, least[:count], least[count:], strict=True):
        signal = float(np.square(r - r.mean(0)).sum())
        for error, bound in zip((r - y, r - y - (r - y).mean(0)), ends, strict=True):
            noise = np.square(error).sum(1)
            rest = (noise.sum() - noise.max()) * len(noise) / (len(noise) - 1)
            if not 10 * np.log10(max(signal, 1e-30) / max(rest, 1e-30)) >= bound:
                return True
    return False


def below(reached: Sequence[float], least: Sequence[float]) -> bool:
    """Whether an output has less dB than it must; of networks that are not recorded, none has."""
    return any(db < bound for db, bound in zip(reached, least, strict=False))


def worse(made: Network, right: Outputs) -> Outputs:
    """Outputs with so much noise more that they lose :data:`LOST` dB."""
    rng, found = np.random.default_rng(made.seed), []
    for r, y in zip(made.reference, right, strict=True):
        least = np.square(r - r.mean(0)).sum() / 10 ** (EXACT / 10)
        noise = max(float(np.square(r - y).sum()), float(least))
        more = rng.normal(0, 1, y.shape)
        found.append(y + more * np.sqrt(noise * (10 ** (LOST / 10) - 1) / np.square(more).sum()))
    return found


def outputs_of(model: FloatModel, inputs: list[NDArray[Any]]) -> Outputs:
    """Reals of every output over all samples; codes are taken for what they stand for."""
    runs = []
    for x in inputs:
        if model.input["dtype"] == np.int8:
            scale, zero = model.input["quantization"]
            x = np.clip(np.rint(x / scale) + zero, -128, 127)
        row = []
        for y, of in zip(model.run(x), model.outputs, strict=True):
            real = to_nchw(y).ravel().astype(np.float64)
            if of["dtype"] == np.int8:
                scale, zero = of["quantization"]
                real = (real - zero) * scale
            row.append(real)
        runs.append(row)
    return [np.stack(parts) for parts in zip(*runs, strict=True)]


@functools.lru_cache(maxsize=4)
def network(seed: int) -> Network:
    """Network number ``seed``; those whose outputs hardly differ between samples, or drown in
    the noise of eight bits, are drawn anew."""
    for attempt in range(ATTEMPTS):
        made = _useful(seed, draw(seed, attempt))
        if made is not None:
            return made
    raise AssertionError(f"seed {seed} gave no useful network in {ATTEMPTS} attempts")


def _useful(seed: int, drawn: Drawn) -> Network | None:
    net = drawn.net
    tflite = net.build(*net.outputs)
    model = FloatModel(tflite, keep_all=True)
    ranges = quantiser.measured(model, drawn.inputs)
    reference = outputs_of(model, drawn.inputs)
    try:
        if drawn.source == "float":
            shifts = quantiser.bias_shifts(net, drawn.inputs)
            twin = quantiser.fake_quantised(net, _codes(drawn, ranges), shifts)
        else:
            twin = tflite = quantiser.quantised(
                net, ranges, io="float32" if drawn.source == "int8" else "int8"
            )
        rounded = all_decibels(reference, _run(twin, drawn))
    except FloatModelError:  # an op without an int8 form
        return None
    if min(rounded) < TELLING:
        return None
    given, own = [], []
    if drawn.source != "float":
        net = quantiser.as_filed(net, ranges)
        given, own = [net], [rounded]
    rounded = _rounded(drawn, net, _codes(drawn, ranges), reference, own)
    if drawn.pictures is not None:
        given += [quantiser.padded_beside_zero(net, off) for off in (-PIXEL / 2, PIXEL / 2)]
    most = [FINE for _ in rounded]
    for twin in given:
        reached = all_decibels(reference, _run(twin.build(*net.outputs), drawn))
        most = [min(pair) for pair in zip(most, reached, strict=True)]
    return Network(seed, drawn, tflite, ranges, reference, rounded, most)


def _run(tflite: bytes, drawn: Drawn) -> Outputs:
    return outputs_of(FloatModel(tflite), drawn.inputs)


def _rounded(
    drawn: Drawn,
    net: Net,
    ranges: quantiser.Ranges,
    reference: Outputs,
    more: Sequence[list[float]] = (),
    sixteen: dict[int, float] | None = None,
) -> list[float]:
    """The dB that each output of ``net`` has at least with the tensors that are in ``ranges``
    rounded: of the mean noise over :data:`CHOICES` and ``more``, less :data:`LUCK` standard
    deviations. On a single choice of codes the few values of an output may be right, or wrong, by
    luck, and so may a kmodel's."""
    found, shifts = list(more), quantiser.bias_shifts(net, drawn.inputs)
    for number in range(CHOICES):
        stretched = quantiser.stretched(ranges, number)
        twin = quantiser.fake_quantised(net, stretched, shifts, sixteen)
        found.append(all_decibels(reference, _run(twin, drawn)))
    noise = np.power(10.0, -np.array(found) / 10).mean(0)
    luck = np.repeat(LUCK, len(reference))
    return list(-10 * np.log10(noise) - luck * np.std(found, 0, ddof=1))


def _codes(drawn: Drawn, ranges: quantiser.Ranges) -> quantiser.Ranges:
    """What is rounded on the way, over which range: pixels are codes as they come."""
    given = {drawn.net.input} if drawn.pictures is not None else set()
    ranges = quantiser.of_joined(drawn.net, ranges)
    return {t: ends for t, ends in ranges.items() if t not in given}


def bounds(made: Network, compiled: Compiled) -> list[float]:
    """The dB each output of a kmodel must reach: what eight bits everywhere reach less
    :data:`SLACK`, and of float networks also what eight bits reach where the kmodel has them,
    in its own codes, the rest in floats, less :data:`OWN_SLACK`; how what its codes leave
    differs between samples only those tell."""
    net, most = made.drawn.net, made.most

    def at_least(found: list[float], most: list[float], slack: float) -> list[float]:
        return [min(pair) - slack for pair in zip(found, most, strict=True)]

    least = at_least(made.rounded, most, SLACK)
    if made.drawn.source == "float":
        eight, sixteen = _coded(made, compiled)
        if not eight:
            most = [EXACT] * len(most)
        ranges = {t: r for t, r in _codes(made.drawn, made.ranges).items() if t in eight}
        ranges |= {t: r for t, r in _own(compiled).items() if t in ranges}
        finer = _rounded(made.drawn, net, ranges, made.reference, (), sixteen)
        finer = at_least(finer, most, OWN_SLACK[made.drawn.effort])
        outputs = len(made.reference)
        least[:outputs] = map(max, least[:outputs], finer[:outputs])
        least[outputs:] = finer[outputs:]
    return least


def _own(compiled: Compiled) -> quantiser.Ranges:
    """The ranges of the codes that a kmodel itself has for tensors of the file."""
    return {
        row.tensor: ((0 - row.zero_point) * scale, (255 - row.zero_point) * scale)
        for row in compiled.layers
        if row.tensor is not None and row.scale is not None and row.zero_point is not None
        for scale in [np.asarray(row.scale)]
    }


def _coded(made: Network, compiled: Compiled) -> tuple[set[int], dict[int, float]]:
    """The tensors of a float network that its kmodel has in eight bits, and those it has in
    sixteen, with their step. What an op is said to quantise it reads; a clamp of kmodel 3 has two
    codes for each value it reads, and the step of the finer.
    A KPU layer computes several ops in one, and of them the last is in codes. A layer that has
    the codes of one before it moves them, whatever op it belongs to, but for a table."""
    net = made.drawn.net
    ops = {f"{op[0]} #{number}": op for number, op in enumerate(net.ops)}
    names = Counter((row.source, row.name) for row in compiled.layers)
    eight = {net.input} if compiled.input.dtype == "uint8" else set()
    eight |= {row.tensor for row in compiled.layers if row.scale is not None} - {None}
    told = {row.source for row in compiled.layers if row.tensor in eight}
    sixteen: dict[int, float] = {}
    seen: set[tuple[bytes, float]] = set()
    for row in compiled.layers:
        if row.scale is None or row.zero_point is None:
            continue
        codes = np.asarray(row.scale).tobytes(), row.zero_point
        known = row.source in told or (codes in seen and row.name != "Requantize")
        moves = row.name not in ROUNDING and known
        seen.add(codes)
        if row.tensor in eight or moves:
            continue
        clamps = min(names[row.source, "Quantize"], names[row.source, "Add"]) > 1
        which = 1 if row.name in ("Quantize", "quantize") else 2
        found = {t for label in row.source if label in ops for t in ops[label][which]}
        if clamps and which == 1:
            step = float(np.max(row.scale))
            sixteen |= {t: min(step, sixteen.get(t, step)) for t in found}
        else:
            eight |= found
    held = made.ranges.keys()
    return eight & held, {t: step for t, step in sixteen.items() if t in held - eight}


@dataclass(slots=True)
class Verdict:
    """What became of a network as one kmodel version.

    ``kind``: "right", "refused", "wrong", "crashed", "check", where `check` and `compile` do
    not agree, or "outside", where a layer leaves its buffers. ``reason`` is a sentence,
    ``reached`` and ``bounds`` are dB as of :func:`all_decibels`. ``sharp``: whether the bounds
    would find that :data:`LOST` dB are lost; None where it was not compiled.
    """

    seed: int
    kmodel: int
    kind: str
    structures: tuple[str, ...]
    reason: str = ""
    reached: list[float] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    sharp: bool | None = None
    told: bool | None = None

    @property
    def fault(self) -> bool:
        return self.kind not in ("right", "refused")


@functools.lru_cache(maxsize=2)
def recorded(kmodel: int) -> dict[int, list[float]]:
    """The dB of every output that networks reached, by seed, at most :data:`EXACT`."""
    if not RECORDED.exists():
        return {}
    with np.load(RECORDED) as file:
        names = (f"{part}_v{kmodel}" for part in ("seeds", "counts", "decibels"))
        seeds, counts, found = (file[name] for name in names)
    parts = np.split(found.astype(float), np.cumsum(counts)[:-1])
    return {int(seed): part.tolist() for seed, part in zip(seeds, parts, strict=True)}


def least_before(seed: int, kmodel: int) -> list[float]:
    """What a recorded network must still reach; of another, nothing."""
    return [db - LESS for db in recorded(kmodel).get(seed, [])]


def record(verdicts: Iterable[Verdict], kmodel: int) -> None:
    """Keep what the networks of these verdicts reached beside what is recorded of the other
    kmodel."""
    reached = {v.seed: v.reached[: len(v.reached) // 2] for v in verdicts if v.reached}
    kept = {}
    if RECORDED.exists():
        with np.load(RECORDED) as file:
            kept = {name: file[name] for name in file if not name.endswith(f"v{kmodel}")}
    kept[f"seeds_v{kmodel}"] = np.array(list(reached), np.int32)
    kept[f"counts_v{kmodel}"] = np.array([len(row) for row in reached.values()], np.uint8)
    whole = np.concatenate([np.asarray(row) for row in reached.values()])
    kept[f"decibels_v{kmodel}"] = np.floor(np.clip(whole, 0, EXACT)).astype(np.uint8)
    np.savez_compressed(RECORDED, **kept)


def judge(seed: int, kmodel: int, runtime: str = "host", *, guards: bool = False) -> Verdict:
    """Compile network ``seed`` and measure what ``runtime`` makes of it; with ``guards`` also
    look whether it keeps to its buffers in every runtime."""
    made = network(seed)
    verdict = Verdict(seed, kmodel, "right", made.drawn.structures)
    try:
        approved = compiler.check(made.tflite, kmodel).supported
        try:
            compiled = compile_network(made, made.tflite, kmodel)
        except PassBroke:
            raise
        except CompileError as error:
            verdict.kind = "check" if approved else "refused"
            verdict.reason = str(error)
            return verdict
        if not approved:
            verdict.kind, verdict.reason = "check", "refused by check, compiled nevertheless"
            return verdict
        got = simulate(made, compiled, runtime)
        verdict.reached = all_decibels(made.reference, got)
        verdict.bounds = bounds(made, compiled)
        before = least_before(seed, kmodel)
        noisy = worse(made, got)
        verdict.sharp = missed(made.reference, noisy, verdict.bounds)
        verdict.told = verdict.sharp or below(all_decibels(made.reference, noisy), before)
        if missed(made.reference, got, verdict.bounds):
            verdict.kind, verdict.reason = "wrong", "dB below the bound"
        elif below(verdict.reached, before):
            was = ", ".join(f"{db + LESS:.0f}" for db in before)
            verdict.kind, verdict.reason = "wrong", f"it had {was} dB"
        elif made.drawn.source == "float" and (what := _differs(made, kmodel)):
            verdict.kind, verdict.reason = "wrong", what
        elif guards and (what := outside(made, compiled)):
            verdict.kind, verdict.reason = "outside", what
    except Exception as error:
        verdict.kind, verdict.reason = "crashed", f"{type(error).__name__}: {error}"
    return verdict


def compile_network(
    made: Network, tflite: bytes, kmodel: int, change: Callable[[Calibration], None] | None = None
) -> Compiled:
    """``tflite``, the network's file or a mutant of it, as the network's user would;
    ``change`` spoils the calibration data."""
    drawn = made.drawn
    pixels = drawn.pictures is not None
    calibration = None
    if drawn.sampled:
        calibration = compiler.calibrate(tflite, drawn.inputs, measurable, threads=1)
        calibration.samples = ALL  # no margin for samples not seen: there are none
    if change is not None and calibration is not None:
        change(calibration)
    mean = 0.5 if pixels else 0.0
    options = Options(
        kmodel=kmodel,
        mean=mean,
        std=mean or 1.0,
        effort=drawn.effort,
        fed="pixels" if pixels else "tensors",
    )
    return compiler.compile(tflite, calibration, options)


def fed(made: Network, compiled: Compiled, k: int) -> NDArray[Any]:
    """Sample ``k`` as the kmodel takes it, flat."""
    if made.drawn.pictures is not None:
        return np.moveaxis(made.drawn.pictures[k], -1, 0).ravel()
    x = to_nchw(made.drawn.inputs[k]).ravel()
    if compiled.input.dtype != "uint8":
        return x
    codes = np.rint(x / compiled.input.scale) + compiled.input.zero_point
    return np.clip(codes, 0, 255).astype(np.uint8)


def simulate(made: Network, compiled: Compiled, runtime: str = "host") -> Outputs:
    """The kmodel's outputs for the network's samples."""
    simulator = Simulator(parse(compiled.kmodel), runtime)
    runs = []
    for k in range(len(made.drawn.inputs)):
        outputs = simulator.run(fed(made, compiled, k))
        runs.append([np.array(y, np.float64) for y in outputs])
    return [np.stack(parts) for parts in zip(*runs, strict=True)]


def outside(made: Network, compiled: Compiled) -> str:
    """Where a layer leaves its buffers, in any runtime whose lint does not tell of it, or ""."""
    model = parse(compiled.kmodel)
    for name, runtime in RUNTIMES.items():
        try:
            simulator = Simulator(model, runtime)
        except KmodelError:  # it refuses the file, and says so
            continue
        found = audit(simulator, fed(made, compiled, 0))
        if found and (name == "host" or not lint(model, runtime)):
            return f"{name}: {'; '.join(map(str, found))}"
    return ""


def _differs(made: Network, kmodel: int) -> str:
    """Where the device graph computes in float something else than LiteRT, or ""."""
    graph: Graph = lowered(made.tflite, kmodel)
    x = to_nchw(made.drawn.inputs[0]).reshape(graph.input.shape)
    for k, (y, wanted) in enumerate(zip(executor.outputs(graph, x), made.reference, strict=True)):
        off = float(np.abs(y.ravel() - wanted[0]).max())
        if off > 1e-4 * max(1.0, float(np.abs(wanted[0]).max())):
            return f"the device graph's output {k} is off by {off:g} in float"
    return ""
