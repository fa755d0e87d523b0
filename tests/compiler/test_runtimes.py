"""Files that are right under every runtime that boards execute (docs/kpu-and-kmodel.md, 8).

The networks have the structures that runtimes were seen to compute otherwise than intended:
dense layers with an activation, zeros around maps, maps as wide as rows of KPU RAM, files that
begin beside the KPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks import compiler
from k210tasks.compiler.ir import to_nchw
from k210tasks.compiler.options import Compiled, Options
from k210tasks.compiler.problems import CompileError, NeedsOtherRuntime
from k210tasks.kmodel import parse, v3_layers
from k210tasks.kmodel.lint import lint
from k210tasks.kmodel.runtimes import RUNTIMES
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from k210tasks.simulator.guards import audit
from tests.compiler.helpers import decibels
from tests.compiler.tflite_builder import Net

#: runtimes that lack forms the others have: only for these the bytes may differ
NARROW = ("sdk_master", "maixduino", "freertos")
#: one runtime of each behaviour
BEHAVIOURS = {
    repr(replace(r, name="", title="", recorded=False, sources=())): r for r in RUNTIMES.values()
}.values()
#: what is not the file's fault: lists can be fed; Quantize is told half a step more where it
#: cuts off; maps below 4x4 are refused or asked for elsewhere
STATED = {"untold_shape", "truncated_codes", "small_map"}
LEAST = 25.0  # dB: a byte that is lost or zeros in the wrong place cost more


def _dense(units: list[int], act: str, inputs: int = 8) -> Net:
    net = Net((1, inputs), seed=len(units))
    x = net.input
    for n in units[:-1]:
        x = net.dense(x, n, act=act)
    net.dense(x, units[-1])
    return net


def _padded(pads: tuple[int, int, int, int], then: str) -> Net:
    top, bottom, left, right = pads
    net = Net((1, 6, 7, 3), seed=sum(pads))
    x = net.conv(net.input, 4, act="RELU6")
    x = net.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    if then == "conv":
        net.conv(x, 3, (3, 3), padding="VALID")
    elif then == "pointwise":
        net.conv(x, 3, (1, 1), padding="VALID")
    return net


def _squeezed(size: int, channels: int, gate: str) -> Net:
    net = Net((1, size, size, 3))
    x = net.conv(net.input, channels, act="RELU")
    s = net.reshape(net.reduce("MEAN", x, [1, 2], False), (1, channels))
    s = net.dense(s, max(1, channels // 4), act="RELU")
    s = net.unary(gate, net.dense(s, channels))
    s = net.reshape(s, (1, 1, 1, channels))
    x = net.binary("MUL", x, s)
    net.conv(x, 4)
    return net


def _u_net(width: int, channels: int = 4) -> Net:
    net = Net((1, 16, width, 3))
    first = net.conv(net.input, channels, act="RELU")
    low = net.pool(first, "MAX", (2, 2))
    low = net.conv(low, channels, act="RELU")
    up = net.resize(low, (16, width))
    net.conv(net.concat([first, up], 3), 2)
    return net


def _on_vectors(shape: tuple[int, ...], units: list[int], act: str) -> Net:
    net = Net(shape)
    x = net.reshape(net.input, (1, int(np.prod(shape))))
    for n in units[:-1]:
        x = net.dense(x, n, act=act)
    net.softmax(net.dense(x, units[-1]))
    return net


def _along_time(length: int, channels: int, kernel: int) -> Net:
    net = Net((1, length, channels))
    x = net.reshape(net.input, (1, 1, length, channels))
    x = net.conv(x, 6, (1, kernel), act="RELU")
    x = net.conv(x, 6, (1, kernel), stride=(1, 2), act="RELU")
    net.dense(net.reshape(x, (1, 6 * net.shape(x)[2])), 3)
    return net


def _tiny(size: int) -> Net:
    net = Net((1, size, size, 3))
    x = net.conv(net.input, 5, act="RELU")
    x = net.conv(x, 4, stride=(2, 2), act="RELU6")
    net.conv(x, 3)
    return net


def _summed(n: int) -> Net:
    """Sums of scalars and of vectors, one of them clamped."""
    net = Net((1, n))
    a, b = net.dense(net.input, 1, act="RELU"), net.dense(net.input, 1)
    total = net.binary("ADD", a, b, act="RELU6")
    net.outputs = [total, net.binary("ADD", net.dense(total, 5), net.dense(net.input, 5), "RELU")]
    return net


def _wide(width: int, channels: int, depthwise: bool = False) -> Net:
    net = Net((1, 6, width, 3))
    x = net.conv(net.input, channels, act="RELU")
    if depthwise:
        x = net.depthwise(x)
    net.outputs = [x, net.conv(x, 2)]
    return net


def _clamped_and_joined() -> Net:
    """A ReLU beside the KPU whose codes share a scale with signed ones."""
    net = Net((1, 64))
    relu = net.reshape(net.dense(net.input, 80, act="RELU"), (1, 4, 5, 4))
    signed = net.reshape(net.dense(net.input, 80), (1, 4, 5, 4))
    net.conv(net.concat([relu, signed], 3), 4)
    return net


def networks() -> Iterator[tuple[str, Callable[[], Net]]]:
    """Name and maker of every network."""
    units = [[3], [16, 4], [40, 30, 1], [7, 1, 9, 2], [200, 300, 10]]
    for sizes, act in itertools.product(units, ("RELU", "RELU6", "RELU_N1_TO_1")):
        yield f"dense_{'_'.join(map(str, sizes))}_{act}", lambda s=sizes, a=act: _dense(s, a)
    yield "dense_wide", lambda: _dense([1100, 5], "RELU", 1100)
    yield "dense_first", lambda: _dense([2000, 3], "RELU6", 1)
    for side, n in itertools.product(range(4), range(5)):
        pads = tuple(n if i == side else 0 for i in range(4))
        for then in ("", "conv", "pointwise"):
            if (n or not side) and (n in (2, 3) or then == "pointwise"):
                name = f"pad_{''.join(map(str, pads))}{then}"
                yield name, lambda p=pads, t=then: _padded(p, t)
    for pads in ((1, 2, 3, 4), (4, 3, 2, 1), (0, 3, 0, 3), (2, 2, 2, 2)):
        yield f"pad_{''.join(map(str, pads))}", lambda p=pads: _padded(p, "conv")
    for gate, channels in itertools.product(("LOGISTIC", "RELU6"), (4, 16, 64)):
        yield f"squeeze_{gate}_{channels}", lambda g=gate, c=channels: _squeezed(9, c, g)
    for width in (32, 64, 128, 192):
        yield f"u_net_{width}", lambda w=width: _u_net(w)
    for width in (4, 5, 15, 16, 17, 31, 33, 40, 63, 64, 65, 100, 127, 128, 129, 130):
        yield f"width_{width}", lambda w=width: _wide(w, 5)
    yield "width_64_depthwise", lambda: _wide(64, 6, True)
    yield "width_128_depthwise", lambda: _wide(128, 3, True)
    yield "width_64_full", lambda: _wide(64, 1024)
    yield "flat_28_28", lambda: _on_vectors((1, 28, 28), [32, 10], "RELU")
    for n in (10, 17, 48, 100, 127, 1500):
        yield f"flat_{n}", lambda n=n: _on_vectors((1, n), [12, 3], "RELU")
    yield "flat_10_3", lambda: _on_vectors((1, 10, 3), [12, 3], "RELU6")
    for length, channels, kernel in ((64, 3, 3), (33, 1, 5), (20, 6, 2)):
        name = f"time_{length}_{channels}_{kernel}"
        yield name, lambda s=(length, channels, kernel): _along_time(*s)
    for size in (4, 5, 6, 7, 9):
        yield f"tiny_{size}", lambda n=size: _tiny(n)
    yield "sums", lambda: _summed(6)
    yield "joined", _clamped_and_joined


MAKERS = dict(networks())


class Twin:
    """A network with samples, what LiteRT makes of them, and its files for runtimes."""

    def __init__(self, net: Net, kmodel: int, count: int = 5):
        self.kmodel = kmodel
        self.tflite = net.build(*net.outputs)
        self.shape = net.shape(net.input)
        rng = np.random.default_rng(3)
        self.samples = [rng.normal(0, 1, self.shape).astype(np.float32) for _ in range(count)]
        model = FloatModel(self.tflite)
        self.reference = [[to_nchw(y).ravel().copy() for y in model.run(x)] for x in self.samples]
        self.calibration = compiler.calibrate(self.tflite, self.samples, measurable)

    def file(self, runtime: str | None = None) -> Compiled:
        fed = "uint8" if self.kmodel == 4 else None  # codes: nothing is rounded to them there
        options = Options(
            kmodel=self.kmodel, effort="fast", fed="tensors", input=fed, runtime=runtime
        )
        return compiler.compile(self.tflite, self.calibration, options)

    def fed(self, made: Compiled) -> list[NDArray[np.generic]]:
        """The samples as the file is fed with them: floats, or codes with some more at the end
        where the file's map holds more."""
        given = made.input
        inputs = []
        for x in self.samples:
            values = np.zeros(int(np.prod(given.shape)), np.float32)
            values[: x.size] = to_nchw(x).ravel()
            if given.dtype == "uint8":
                codes = np.rint(values / given.scale) + given.zero_point
                values = np.clip(codes, 0, 255).astype(np.uint8)
            inputs.append(values.reshape(given.shape))
        return inputs

    def run(self, made: Compiled, runtime: str) -> list[NDArray[np.generic]]:
        """Per output, what ``runtime`` makes of all samples."""
        simulator = Simulator(parse(made.kmodel), runtime=runtime)
        runs = [[y.ravel() for y in simulator.run(x)] for x in self.fed(made)]
        return [np.stack(output) for output in zip(*runs, strict=True)]

    def decibels(self, got: list[NDArray[np.generic]]) -> float:
        wanted = [np.stack(output) for output in zip(*self.reference, strict=True)]
        return min(decibels(r, y) for r, y in zip(wanted, got, strict=True))


def _same(got: list[NDArray[np.generic]], wanted: list[NDArray[np.generic]], what: str) -> None:
    """Equal but for how floats are rounded, which a clamp of two bytes makes one of its steps."""
    for y, reference in zip(got, wanted, strict=True):
        limit = 1e-4 * max(float(np.ptp(reference)), 1e-6)
        np.testing.assert_allclose(y, reference, rtol=1e-6, atol=limit, err_msg=what)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", MAKERS)
def test_every_runtime_computes_the_same(name: str, kmodel: int) -> None:
    twin = Twin(MAKERS[name](), kmodel)
    made = twin.file()
    wanted = twin.run(made, "host")
    assert twin.decibels(wanted) > LEAST, made.listing
    for runtime in BEHAVIOURS:
        if kmodel not in runtime.kmodels:
            continue
        try:
            own = twin.file(runtime.name) if runtime.name in NARROW else made
        except NeedsOtherRuntime:
            continue
        found = {f.pitfall for f in lint(parse(own.kmodel), runtime)} - STATED
        assert not found, (runtime.name, own.listing)
        got = twin.run(own, runtime.name)
        assert twin.decibels(got) > LEAST, (runtime.name, own.listing)
        if own.kmodel == made.kmodel:
            _same(got, wanted, runtime.name)


@pytest.mark.parametrize("name", ["dense_16_4_RELU6", "u_net_64", "time_33_1_5", "sums"])
def test_bytes_do_not_depend_on_the_runtime_where_one_form_serves_all(name: str) -> None:
    twin = Twin(MAKERS[name](), 3)
    made = twin.file().kmodel
    for runtime in RUNTIMES:
        if runtime not in NARROW:
            assert twin.file(runtime).kmodel == made, runtime


REFUSED = {
    "width_16": "CONV_2D #0: the FreeRTOS SDK (not recorded) puts the lines of an input whose "
    "width is a multiple of 8, but not of 64, in the wrong places; use another width, 320 for "
    "one, or another firmware",
    "time_33_1_5": "CONV_2D #1: the FreeRTOS SDK (not recorded) looks only an eighth of the bytes "
    "up in a table; use another firmware, or a model without it",
    "dense_first": "FULLY_CONNECTED #0: the FreeRTOS SDK (not recorded) writes the weights of a "
    "dense layer beyond the memory it takes for them; use another firmware, or a model without it",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_runtime_cannot_compute_is_refused_by_name(name: str) -> None:
    twin = Twin(MAKERS[name](), 3)
    with pytest.raises(NeedsOtherRuntime) as caught:
        twin.file("freertos")
    assert str(caught.value) == REFUSED[name]
    report = compiler.check(twin.tflite, 3, runtime="freertos")
    assert report.problems == (REFUSED[name],)
    assert compiler.check(twin.tflite, 3, runtime="maixpy").supported


def test_a_runtime_without_the_format_is_no_choice() -> None:
    twin = Twin(MAKERS["width_5"](), 4)
    with pytest.raises(CompileError, match=r"^SDK master runs kmodel 3, not 4$"):
        twin.file("sdk_master")


FED = {
    "flat_28_28": [1, 28, 28],  # rows and columns of its own
    "flat_10_3": [1, 5, 6],  # columns of its own are too few
    "flat_48": [1, 6, 8],
    "flat_100": [1, 10, 10],
    "flat_17": [1, 4, 5],  # some more values at the end
    "flat_127": [1, 8, 16],
    "flat_10": [1, 4, 4],
    "time_64_3_3": [1, 12, 16],
}


@pytest.mark.parametrize("name", FED)
def test_what_is_no_map_is_fed_as_a_square_one(name: str) -> None:
    made = Twin(MAKERS[name](), 3).file("sdk_master")
    assert list(made.input.shape) == FED[name]
    first = parse(made.kmodel).layers[0]
    assert isinstance(first, v3_layers.K210Conv)
    assert first.registers.in_shape == tuple(FED[name])


def test_floats_are_fed_where_a_dense_layer_may_come_first() -> None:
    """Codes of sensors' values would lose what 8 bits do not hold."""
    twin = Twin(MAKERS["dense_40_30_1_RELU6"](), 3)
    floats, codes = twin.file("maixpy"), twin.file("maixduino")
    assert floats.input.dtype == "float32"
    assert codes.input.dtype == "uint8"
    assert twin.decibels(twin.run(floats, "maixpy")) > 80
    assert 25 < twin.decibels(twin.run(codes, "maixduino")) < 50


def test_a_width_of_whole_rows_costs_one_channel_of_one_layer() -> None:
    twin = Twin(MAKERS["u_net_64"](), 3)
    wide = [
        b.registers
        for b in parse(twin.file().kmodel).layers
        if isinstance(b, v3_layers.K210Conv) and b.to_main and b.registers.out_shape[2] == 64
    ]
    assert [r.out_channels for r in wide] == [3]  # the output's two, and one nobody looks at


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("kind", ["shared", "mean", "sum", "concat"])
def test_logits_far_below_zero_do_not_vanish(kind: str, kmodel: int) -> None:
    """The runtimes of kmodel 3 take the largest logit for at least zero."""
    net = Net((1, 8))
    low = np.full(8, -300, np.float32)
    weights = net.rng.normal(0, 1, (8, 8)).astype(np.float32)
    logits = net.op("FULLY_CONNECTED", [net.input, net.const(weights), net.const(low)], (1, 8),
                    "FullyConnectedOptions", FusedActivationFunction=0)  # fmt: skip
    if kind == "sum":
        logits = net.binary("ADD", logits, net.dense(net.input, 8))
    elif kind == "concat":
        logits = net.concat([logits, logits], 1)
    elif kind == "mean":
        maps = net.reshape(net.concat([logits] * 2, 1), (1, 2, 1, 8))
        logits = net.reduce("MEAN", maps, [1, 2], False)
    net.outputs = [net.softmax(logits), *([logits] if kind == "shared" else [])]
    twin = Twin(net, kmodel)
    for runtime in BEHAVIOURS:
        if kmodel in runtime.kmodels and runtime.name != "freertos":
            (shares, *_) = twin.run(twin.file(runtime.name), runtime.name)
            assert np.isfinite(shares).all()
            np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)


@pytest.mark.parametrize("kmodel", [3, 4])
@pytest.mark.parametrize("name", [
    "dense_40_30_1_RELU6", "pad_1234", "squeeze_RELU6_4", "u_net_64", "width_64_depthwise",
    "flat_17", "time_33_1_5", "tiny_5", "sums", "joined",
])  # fmt: skip
def test_no_layer_reads_or_writes_outside_its_buffers(name: str, kmodel: int) -> None:
    twin = Twin(MAKERS[name](), kmodel, 1)
    for runtime in BEHAVIOURS:
        if kmodel not in runtime.kmodels:
            continue
        try:
            made = twin.file(runtime.name)
        except NeedsOtherRuntime:
            continue
        simulator = Simulator(parse(made.kmodel), runtime=runtime)
        assert audit(simulator, twin.fed(made)[0]) == [], runtime.name
