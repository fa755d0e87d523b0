"""What compiler tests share: compile, simulate and compare with LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks import compiler
from k210tasks.compiler import executor
from k210tasks.compiler.ir import Graph, as_fed, to_nchw
from k210tasks.compiler.options import Compiled, Options, SmallMaps
from k210tasks.compiler.pipeline import lowered
from k210tasks.kmodel import parse
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.simulator import Simulator
from tests.compiler.tflite_builder import Net

FIXTURES = Path(__file__).parents[2] / ".." / "shared" / "fixtures"
MEAN = 0.5  # of the preprocessing in these tests: inputs of both signs


def fixture(name: str) -> bytes:
    """A model of the shared fixtures; skips where they are absent."""
    path = FIXTURES / "tflite" / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path.read_bytes()


def pixels(shape: Any, count: int = 6, seed: int = 1) -> list[NDArray[np.uint8]]:
    """Random pictures of a model's input shape, without the batch."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, tuple(shape)[1:], dtype=np.uint8) for _ in range(count)]


def scaled(picture: NDArray[np.uint8], mean: float = MEAN, std: float = 1.0) -> NDArray[np.float32]:
    """A picture as the float model is fed with it."""
    return ((picture / 255 - mean) / std).astype(np.float32)[None]


def decibels(reference: NDArray[Any], got: NDArray[Any]) -> float:
    """Signal to noise ratio; 200 for equal arrays."""
    noise = float(np.square(reference.astype(np.float64) - got).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return 200.0 if noise <= 1e-20 * signal else 10 * np.log10(max(signal, 1e-30) / noise)


class Outcome:
    """A compiled network and what float model and simulator make of the same pictures."""

    def __init__(self, tflite: bytes, kmodel: int, pictures: Any = None, **options: Any):
        self.model = FloatModel(tflite)
        pictures = pixels(self.model.input_shape) if pictures is None else pictures
        inputs = [scaled(p) for p in pictures]
        calibration = compiler.calibrate(tflite, inputs, measurable)
        options = {"mean": MEAN, "effort": "fast", **options}
        self.compiled: Compiled = compiler.compile(
            tflite, calibration, Options(kmodel=kmodel, **options)
        )
        simulator = Simulator(parse(self.compiled.kmodel))
        self.reference: list[list[NDArray[Any]]] = []
        self.got: list[list[NDArray[Any]]] = []
        for picture, x in zip(pictures, inputs, strict=True):
            self.reference.append([to_nchw(y).ravel().copy() for y in self.model.run(x)])
            if self.compiled.input.dtype == "uint8":
                fed = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
            else:
                fed = np.ascontiguousarray(to_nchw(x))
            self.got.append([np.array(y).ravel() for y in simulator.run(fed)])

    def decibels(self) -> list[float]:
        """Signal to noise of every output over all pictures."""
        count = len(self.reference[0])
        return [
            decibels(np.stack([r[k] for r in self.reference]), np.stack([g[k] for g in self.got]))
            for k in range(count)
        ]

    @property
    def layers(self) -> list[str]:
        """Names of the layers of the file."""
        return [row.name for row in self.compiled.layers]


def same_after_legalise(tflite: bytes, kmodel: int, small_maps: SmallMaps = "padded") -> Graph:
    """The device graph, proven to compute in float what LiteRT does."""
    model = FloatModel(tflite)
    x = scaled(pixels(model.input_shape, 1)[0])
    graph = lowered(tflite, kmodel, small_maps=small_maps)
    got = executor.outputs(graph, as_fed(to_nchw(x), graph.input))
    for reference, y in zip(model.run(x), got, strict=True):
        reference = to_nchw(reference)
        assert y.shape == reference.shape
        limit = 1e-4 * max(1.0, float(np.abs(reference).max()))
        np.testing.assert_allclose(y, reference, rtol=0, atol=limit)
    return graph


def proven(net: Net, kmodel: int, least: float = 25.0, *outputs: int, **options: Any) -> Outcome:
    """Compile a network; float graph equal, simulated outputs within ``least`` dB."""
    tflite = net.build(*outputs)
    same_after_legalise(tflite, kmodel, options.get("small_maps", "padded"))
    outcome = Outcome(tflite, kmodel, **options)
    assert min(outcome.decibels()) > least, outcome.compiled.listing
    return outcome


def kinds(graph: Graph) -> list[str]:
    """Kinds of the ops of a device graph that take a layer."""
    return [op.kind for op in graph.ops if op.kind not in ("reshape", "kpu_concat")]
