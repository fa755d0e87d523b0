"""Outputs computed by upstream's own interpreters, reproduced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from k210tasks.kmodel import parse
from k210tasks.simulator import Simulator

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs ../shared/fixtures")

#: Model -> absolute tolerance; 0 is bit exact.
MODELS = {
    "v3_face_detect": 0.0,
    "v3_yolo20": 0.0,
    "v3_mnist": 1e-7,
    "v3_iris": 1e-5,
    "v4_ulffd_landmark": 0.0,
    "v4_slim-320": 0.0,
    "v4_yolo20": 0.0,
    "v4_iris": 1e-5,
}


@pytest.mark.parametrize(("name", "tolerance"), MODELS.items())
def test_whole_models(name: str, tolerance: float) -> None:
    version, model = name.split("_", 1)
    golden = np.load(FIXTURES / "golden" / f"{name}.npz")
    path = FIXTURES / "kmodel" / version / f"{model}.kmodel"
    simulator = Simulator(parse(path.read_bytes()))
    assert len(golden["input"]) >= 3
    for x, expected in zip(golden["input"], golden["output"], strict=True):
        got = np.concatenate(simulator.run(x))
        assert got.dtype == expected.dtype == np.float32
        if tolerance:
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
        else:
            np.testing.assert_array_equal(got, expected)


#: Ops whose output is float32, compared within 2e-5; the rest is bytes and bit exact.
FLOAT_OPS = {
    "binary",
    "conv2d",
    "dequantize",
    "nnil_unary_method",
    "reduce",
    "reduce_window2d",
    "softmax",
    "unary",
}
NODES = FIXTURES / "golden" / "v4_nodes.npz"


def node_names() -> list[str]:
    if not NODES.is_file():
        return []
    return sorted(n[: -len(".kmodel")] for n in np.load(NODES).files if n.endswith(".kmodel"))


def test_there_are_all_the_node_files() -> None:
    names = node_names()
    assert len(names) == 196
    assert sum(name.startswith("kpu_conv2d") for name in names) == 60


@pytest.fixture(scope="module")
def nodes() -> dict[str, np.ndarray]:
    return dict(np.load(NODES))


@pytest.mark.parametrize("name", node_names())
def test_single_nodes(name: str, nodes: dict[str, np.ndarray]) -> None:
    simulator = Simulator(parse(nodes[f"{name}.kmodel"].tobytes()))
    got = simulator.run(nodes[f"{name}.input"])[0].view(np.uint8)
    expected = nodes[f"{name}.output"].reshape(-1)
    op = name.rsplit("_", 1)[0]
    is_float = op in FLOAT_OPS or (op == "resize_image" and simulator.input.dtype == "float32")
    if is_float:
        np.testing.assert_allclose(got.view("<f4"), expected.view("<f4"), rtol=0, atol=2e-5)
    else:
        np.testing.assert_array_equal(got, expected)
