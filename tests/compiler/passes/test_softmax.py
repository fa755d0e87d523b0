"""Logits in front of a softmax: their codes cover what it can tell apart, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k210tasks.compiler.ops import KpuConv
from k210tasks.compiler.passes.ranges import Ranges
from k210tasks.compiler.passes.softmax import NOTHING, centre_logits
from k210tasks.compiler.pipeline import lowered
from k210tasks.reference.litert import measurable
from tests.compiler.helpers import MEAN, Outcome, compiler, pixels, scaled
from tests.compiler.tflite_builder import Net


def classifier(classes: int, gain: float, *, also_logits: bool = False) -> bytes:
    """Flatten, dense 32, dense to logits of a size by ``gain``, softmax."""
    net = Net((1, 8, 8, 3))
    x = net.dense(net.reshape(net.input, (1, 192)), 32, act="RELU")
    w = (net.rng.normal(0, gain, (classes, 32)) + 3).astype(np.float32)  # a common offset too
    logits = net.op("FULLY_CONNECTED", [x, net.const(w)], (1, classes), "FullyConnectedOptions",
                    FusedActivationFunction=0)  # fmt: skip
    y = net.softmax(logits)
    return net.build(logits, y) if also_logits else net.build()


def centred(tflite: bytes) -> list[Any]:
    """The layers of the v3 graph whose logits were centred."""
    inputs = [scaled(p) for p in pixels((1, 8, 8, 3))]
    graph = lowered(tflite, 3)
    centre_logits(graph, Ranges(compiler.calibrate(tflite, inputs, measurable), "minmax"))
    return [op for op in graph.ops if isinstance(op, KpuConv) and op.centred]


def test_logits_of_two_classes_end_where_one_has_all() -> None:
    (layer,) = centred(classifier(2, 20.0))
    assert layer.fn == (("clamp", -NOTHING, NOTHING),)
    assert layer.output.source is None
    np.testing.assert_allclose(layer.weights.sum(0), 0, atol=1e-4)


def test_of_more_classes_the_first_keeps_its_room() -> None:
    (layer,) = centred(classifier(5, 20.0))
    ((_, low, high),) = layer.fn
    assert low == -NOTHING
    assert high > NOTHING


def test_small_logits_keep_their_own_range() -> None:
    (layer,) = centred(classifier(2, 0.01))
    ((_, low, high),) = layer.fn
    assert -1 < low < 0 < high < 1


def test_logits_that_are_an_output_too_stay_as_they_are() -> None:
    assert centred(classifier(2, 20.0, also_logits=True)) == []


def test_nothing_changes_without_calibration() -> None:
    graph = lowered(classifier(2, 20.0), 3)
    centre_logits(graph, Ranges(None, "minmax"))
    assert not any(isinstance(op, KpuConv) and op.centred for op in graph.ops)


@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_of_large_logits_are_right(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tflite = classifier(classes, 20.0)
    better = Outcome(tflite, 3, mean=MEAN, effort="normal").decibels()[0]
    monkeypatch.setattr("k210tasks.compiler.pipeline._BEFORE", ())
    plain = Outcome(tflite, 3, mean=MEAN, effort="normal").decibels()[0]
    assert better > 30
    assert better > plain
