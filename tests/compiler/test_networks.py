"""Networks of the kinds people run on a K210, small ones, through the whole compiler."""

from __future__ import annotations

import pytest

from k210tasks.compiler.passes.place import allocate
from tests.compiler.helpers import same_after_legalise
from tests.compiler.tflite_builder import Net


@pytest.mark.parametrize("kmodel", [3, 4])
def test_the_first_layers_of_a_mobilenet_of_224_pixels_fit_the_kpu(kmodel: int) -> None:
    net = Net((1, 224, 224, 3))
    x = net.pad(net.input, [(0, 0), (0, 1), (0, 1), (0, 0)])
    x = net.conv(x, 24, stride=(2, 2), padding="VALID", act="RELU6")
    net.depthwise(x, stride=(2, 2), act="RELU6")
    graph = same_after_legalise(net.build(), kmodel)
    assert allocate(graph, rounds=0).kpu_bytes <= 2 << 20
