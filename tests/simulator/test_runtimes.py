"""Outputs of the runtimes that boards execute, recorded, and reproduced by the simulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from k210tasks.kmodel import KmodelError, parse
from k210tasks.simulator import Simulator

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "golden"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/fixtures")

#: Recorded runtimes of each file, and of how many models: bit exact outputs, outputs within
#: 1e-5 of their span, refused. Without the runtimes' ways, 23, 5 and 10 of kmodel 3 were wrong.
RECORDED = {
    ("v3", "maixpy"): {"exact": 146, "close": 7, "refused": 2},
    ("v3", "sdk_develop"): {"exact": 149, "close": 4, "refused": 2},
    ("v3", "sdk_master"): {"exact": 145, "refused": 10},
    ("v4", "maixpy"): {"exact": 234, "close": 11},
    ("v4", "sdk_develop"): {"exact": 234, "close": 11},
}
#: Layers that call libm, whose last bit differs between implementations.
LIBM = {"Softmax", "Logistic", "softmax", "unary", "nnil_unary_method"}


@cache
def recorded(file: str) -> dict[str, NDArray[np.uint8]]:
    return dict(np.load(GOLDEN / f"runtime_{file}.npz"))


def names(file: str) -> list[str]:
    if not GOLDEN.is_dir():
        return []
    return [key[: -len(".kmodel")] for key in recorded(file) if key.endswith(".kmodel")]


def answers(file: str, name: str, runtime: str) -> Iterator[tuple[Any, list[NDArray[np.uint8]]]]:
    """Inputs in the order in which they were fed, and the bytes of the outputs."""
    everything = recorded(file)
    for i in range(len(everything)):
        if f"{name}.{runtime}.out{i}_0" not in everything:
            return
        outputs: list[NDArray[np.uint8]] = []
        while f"{name}.{runtime}.out{i}_{len(outputs)}" in everything:
            outputs.append(everything[f"{name}.{runtime}.out{i}_{len(outputs)}"].reshape(-1))
        yield everything[f"{name}.input{i}"].reshape(-1), outputs


def judged(file: str, name: str, runtime: str) -> str:
    """ "exact", "close" or "refused"; fails where an output is wrong."""
    model = parse(recorded(file)[f"{name}.kmodel"].tobytes())
    expected = list(answers(file, name, runtime))
    if not expected:
        with pytest.raises(KmodelError, match=r"SDK master|SDK develop|MaixPy"):
            Simulator(model, runtime)
        return "refused"
    simulator, exact = Simulator(model, runtime), True
    for x, wanted in expected:
        got = simulator.run(x)
        assert len(got) == len(wanted)
        for y, raw in zip(got, wanted, strict=True):
            right = raw.view(y.dtype)
            if np.array_equal(y.view(np.uint8), raw):
                continue
            assert y.dtype == np.float32
            exact = False
            np.testing.assert_allclose(y, right, rtol=0, atol=1e-5 * np.ptp(right))
    if not exact:
        bodies: Any = model.layers
        assert LIBM & {body.NAME for body in bodies}, f"{name}: nothing in it calls libm"
    return "exact" if exact else "close"


@pytest.mark.parametrize(("file", "runtime"), RECORDED)
def test_every_output_of_a_runtime_is_reproduced(file: str, runtime: str) -> None:
    count = Counter(judged(file, name, runtime) for name in names(file))
    assert count == RECORDED[file, runtime]


@pytest.mark.parametrize(
    ("name", "runtime", "message"),
    [
        ("one_dim.v3w16", "maixpy",
         "byte 3536 (0xdd0), layer 11 (QuantizedMaxPool2d): windows beyond the map make MaixPy "
         "read 96 bytes beyond main memory: pad by one pixel at a time, by a concat of zeros, or "
         "on the KPU"),
        ("tiny_maps.v3", "sdk_develop",
         "byte 4240 (0x1090), layer 4 (QuantizedMaxPool2d): windows beyond the map make SDK "
         "develop read 6 bytes beyond main memory: pad by one pixel at a time, by a concat of "
         "zeros, or on the KPU"),
        ("tf_mlp.v3", "sdk_master",
         "byte 68 (0x44), layer 0 (FullyConnected): SDK master returns -1 from a file that "
         "begins with FullyConnected: let a layer of the KPU come first, fed with uint8 codes"),
    ],
)  # fmt: skip
def test_what_gave_no_answer_is_refused_with_the_runtime_named(
    name: str, runtime: str, message: str
) -> None:
    with pytest.raises(KmodelError) as error:
        Simulator(parse(recorded("v3")[f"{name}.kmodel"].tobytes()), runtime)
    assert str(error.value) == message
